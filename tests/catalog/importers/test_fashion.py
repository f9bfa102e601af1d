"""The generated parts of the fashion importer, by the rules in PROVENANCE.md: sparse titles and template queries."""

import hashlib
import json
from pathlib import Path

import pytest

from make_jax.catalog.importers import fashion_queries
from make_jax.catalog.importers.fashion_titles import RATES, TitleVocabulary, stem, words_before_gender
from tests.catalog.importers import published
from tests.catalog.importers.imports import imported

VOCABULARY = TitleVocabulary.from_labels(
    frozenset({"Puma", "Gini and Jony"}), {"Casual Shoes", "Watches", "Tops"}, {"White", "Blue"}
)


@pytest.mark.parametrize(
    ("word", "expected"),
    [("Men's", "men"), ("Watches", "watch"), ("T-Shirts", "tshirt"), ("Dress", "dress"), ("Dresses", "dress")],
)
def test_words_are_compared_in_lower_case_without_punctuation_and_plural(word: str, expected: str) -> None:
    assert stem(word) == expected


def test_a_brand_is_the_words_before_the_first_gender_word() -> None:
    assert words_before_gender("Gini and Jony Girl's Blue Top") == "Gini and Jony"
    assert VOCABULARY.brand("Gini and Jony Girl's Blue Top") == "Gini and Jony" and VOCABULARY.brand("Nike Men") == ""
    assert words_before_gender("Royal Diadem Green Jewellery") == ""


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("colour", "Puma Women's & Printed Watch 2"),
        ("type", "Puma Women's White & Navy Printed 2"),
        ("gender", "Puma White & Navy Printed Watch 2"),
        ("brand", "Women's White & Navy Printed Watch 2"),
    ],
)
def test_a_title_loses_the_words_that_state_one_attribute(
    monkeypatch: pytest.MonkeyPatch, key: str, expected: str
) -> None:
    for name in RATES:
        monkeypatch.setitem(RATES, name, float(name == key))
    labels = {"colour": "Navy Blue", "type": "Watches", "gender": "Women", "brand": "puma"}
    assert VOCABULARY.shorten("Puma Women's White & Navy Printed Watch 2", "1", labels) == (expected, [key])


def test_a_brand_states_no_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in RATES:
        monkeypatch.setitem(RATES, name, float(name == "colour"))
    labels = {"colour": "White", "type": "Tops", "gender": "Men", "brand": "White Tape"}
    assert VOCABULARY.shorten("White Tape Men White Top", "1", labels) == ("White Tape Men Top", ["colour"])


def test_the_documented_hash_picks_products_at_the_documented_rates() -> None:
    labels = {"colour": "White", "type": "Tops", "gender": "Men", "brand": "Puma"}
    counts = dict.fromkeys(RATES, 0)
    for number in range(4000):
        title, dropped = VOCABULARY.shorten("Puma Men White Top 3", str(number), labels)
        first = hashlib.sha256(f"sparse colour:{number}".encode()).digest()[:8]
        assert ("colour" in dropped) == (int.from_bytes(first, "big") / 2**64 < 0.5) == ("White" not in title)
        for key in dropped:
            counts[key] += 1
    assert all(abs(counts[key] / 4000 - rate) < 0.03 for key, rate in RATES.items())


def test_sparse_titles_change_titles_alone(tmp_path: Path) -> None:
    source = published.kaggle_fashion(tmp_path / "kaggle", products=60)
    full = imported(tmp_path / "full", "fashion", source, "--clicks")
    sparse = imported(tmp_path / "sparse", "fashion", source, "--clicks", "--sparse")
    assert sparse.info.name == "fashion-sparse"
    assert [(p.id, p.image, p.split, p.attributes) for p in full.products] == [
        (p.id, p.image, p.split, p.attributes) for p in sparse.products
    ]
    assert full.queries == sparse.queries and full.clicks == sparse.clicks
    changed = [(a.title, b) for a, b in zip(full.products, sparse.products, strict=True) if a.title != b.title]
    assert len(changed) > 20 and all(product.dropped for _, product in changed)
    assert all(set(b.title.split()) < set(title.split()) for title, b in changed)
    assert "SPARSE TITLES" in (tmp_path / "sparse/PROVENANCE.md").read_text(encoding="utf-8")


def test_images_are_found_with_any_extension(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = published.kaggle_fashion(tmp_path / "kaggle", products=8)
    images = source / "images"
    for id, name, kind in ((1000, "JPG", "JPEG"), (1001, "jpeg", "JPEG"), (1002, "png", "PNG"), (1003, "WebP", "WEBP")):
        (images / f"{id}.jpg").unlink()
        (images / f"{id}.{name}").write_bytes(published.encoded_image(id, kind))
    (images / "1004.PNG").write_bytes(published.encoded_image(3, "PNG"))  # the .jpg is preferred
    (images / "1005.jpg").rename(images / "1005.txt")
    catalog = imported(tmp_path / "out", "fashion", source)
    found = {product.id: (product.image or "")[-4:] for product in catalog.products}
    assert list(found.values()) == [".jpg", ".jpg", ".png", "webp", ".jpg", "", ".jpg", ""]
    assert "8 products (6 with an image, 2 without), 0 judged queries" in capsys.readouterr().out


def test_images_of_marqo_gs_are_found_with_another_extension(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, images = published.marqo_gs_files(tmp_path)
    (images / "1000.jpg").rename(images / "1000.JPG")
    (images / "1001.jpg").rename(images / "1001.jpeg")
    imported(tmp_path / "out", "marqo-gs", source, "--images", images)
    assert "8 products (7 with an image, 1 without)" in capsys.readouterr().out


def test_clicks_and_judgements_follow_the_labels(tmp_path: Path) -> None:
    source = published.kaggle_fashion(tmp_path / "kaggle", products=240)
    catalog = imported(tmp_path / "out", "fashion", source, "--clicks")
    lines = (tmp_path / "out/products.jsonl").read_text(encoding="utf-8").splitlines()
    products = {row["id"]: {**row, "type": row["category"][-1]} for row in map(json.loads, lines)}
    held = [pair for pair in ((t, c) for t in published.TYPES for c in published.COLOURS) if _held(*pair)]
    assert held, "the fixture has no held-out pair"
    for click in catalog.clicks:
        product = products[click.product]
        has_colour = product["colour"].lower() in click.query
        assert product["split"] == "train" and product["type"].lower() in click.query
        assert not (has_colour and (product["type"], product["colour"]) in held)
    trained = [product for product in products.values() if product["split"] == "train"]
    assert len({click.product for click in catalog.clicks}) == len(trained)
    assert {query.split for query in catalog.queries} == {"val", "test"}
    assert any(query.heldout for query in catalog.queries)
    for query in catalog.queries:
        kind = tuple(query.kind.removeprefix("attr:").split("+"))
        wanted = next(products[id] for id, grade in query.rel.items() if grade == 3)
        candidates = {id: product for id, product in products.items() if product["split"] == query.split}
        same = {id: product for id, product in candidates.items() if product["type"] == wanted["type"]}
        grades = {id: fashion_queries.grade(kind, wanted, product) for id, product in same.items()}
        assert query.rel == {id: grade for id, grade in grades.items() if grade}


def test_a_similar_colour_has_a_higher_grade() -> None:
    kind, wanted = ("colour", "type"), {"type": "Tops", "colour": "Navy Blue"}
    grades = [
        fashion_queries.grade(kind, wanted, {"type": "Tops", "colour": c}) for c in ("Navy Blue", "Blue", "Red", "")
    ]
    assert grades == [3, 2, 1, 1]
    both = {**wanted, "gender": "Men"}
    assert fashion_queries.grade(("gender", *kind), both, {"type": "Tops", "colour": "Red", "gender": "Women"}) == 0


def _held(kind: str, colour: str) -> bool:
    return fashion_queries.is_held_out({"type": kind, "colour": colour})
