import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from make_jax.catalog.attributes import AttributeValue
from make_jax.catalog.reader import Catalog
from make_jax.catalog.schema import Query
from make_jax.evaluation.evaluate import Evaluation, evaluate
from make_jax.evaluation.fonts import Fonts, wrap
from make_jax.evaluation.gallery import draw_gallery, sample_queries
from tests.retrieval.fake_encoder import FakeEncoder
from tests.tiny_catalog import write_catalog


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    return Catalog.load(write_catalog(tmp_path_factory.mktemp("catalog") / "tiny", products=60, queries=16))


@pytest.fixture(scope="module")
def evaluation(catalog: Catalog) -> Evaluation:
    return evaluate(FakeEncoder(), catalog, "test")


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def green(path: Path) -> int:
    return int((pixels(path) == (0x13, 0x8A, 0x36)).all(axis=-1).sum())


def test_the_gallery_marks_relevant_results(catalog: Catalog, evaluation: Evaluation, tmp_path: Path) -> None:
    caption = draw_gallery(evaluation, catalog, tmp_path / "a.png", rows=2, columns=3)
    assert caption.startswith("2 of 8 queries, sampled with seed 0")
    swapped = dict(evaluation.rankings)
    worst = evaluation.rankings["joint"]
    swapped["joint"] = type(worst)(worst.scores[:, ::-1].copy(), worst.indices[:, ::-1].copy())
    draw_gallery(dataclasses.replace(evaluation, rankings=swapped), catalog, tmp_path / "b.png", rows=2, columns=3)
    assert green(tmp_path / "a.png") > green(tmp_path / "b.png")


def test_sensitive_products_and_their_queries_are_left_out(
    catalog: Catalog, evaluation: Evaluation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hidden = {product.id for product in evaluation.products[:6]}
    products = tuple(dataclasses.replace(product, sensitive=product.id in hidden) for product in evaluation.products)
    shown: list[str] = []
    real = Catalog.image_bytes
    monkeypatch.setattr(Catalog, "image_bytes", lambda self, product: shown.append(product.id) or real(self, product))
    caption = draw_gallery(dataclasses.replace(evaluation, products=products), catalog, tmp_path / "a.png", columns=12)
    eligible = [
        query
        for query in evaluation.judgements.queries
        if not hidden & {i for i, grade in query.rel.items() if grade > 0} and Fonts().covers(query.text)
    ]
    assert caption.startswith(f"{len(eligible)} of 8 queries")
    assert "sensitive" in caption
    assert not hidden & set(shown)


def test_the_gallery_shows_the_attributes_of_each_product(
    catalog: Catalog, evaluation: Evaluation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert all(product.attributes for product in evaluation.products)  # of the test split
    drawn: list[str] = []
    text = ImageDraw.ImageDraw.text
    monkeypatch.setattr(
        ImageDraw.ImageDraw, "text", lambda self, xy, line, **how: drawn.append(line) or text(self, xy, line, **how)
    )

    def height(**attributes: AttributeValue) -> int:
        drawn.clear()
        products = tuple(dataclasses.replace(product, attributes=attributes) for product in evaluation.products)
        draw_gallery(dataclasses.replace(evaluation, products=products), catalog, tmp_path / "a.png", rows=2, columns=3)
        return len(pixels(tmp_path / "a.png"))

    plain = height()
    assert height(price=19.5, new=True, sizes=("S", 44)) > plain
    lines = " ".join(drawn)
    assert lines.count("price: 19.5 · new: true") == 6 and lines.count("sizes: S, 44") == 6
    assert plain < height(text="word " * 300) < height() + 2 * 15 * 9  # at most 8 lines


def test_queries_are_stratified_by_kind_and_language_and_sampled_by_the_seed() -> None:
    queries = tuple(
        Query(f"q{i}", "t", "test", {}, kind, lang)
        for i, (kind, lang) in enumerate([("attr:a", "en")] * 20 + [("attr:b", "zh")] * 3 + [("title", "en")])
    )
    everything = list(range(len(queries)))
    sampled = sample_queries(queries, everything, 6, seed=0)
    assert sorted((queries[i].kind[:5], queries[i].lang) for i in sampled) == [
        ("attr:", "en"),
        ("attr:", "en"),
        ("attr:", "en"),
        ("attr:", "zh"),
        ("attr:", "zh"),
        ("title", "en"),
    ]
    assert sample_queries(queries, everything, 6, seed=0) == sampled
    assert sample_queries(queries, everything, 6, seed=1) != sampled
    assert len(sample_queries(queries, everything, 100, seed=0)) == 24


def test_queries_that_no_font_can_render_are_left_out_and_counted(
    catalog: Catalog, evaluation: Evaluation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Fonts, "covers", lambda self, text: text.isascii())
    caption = draw_gallery(evaluation, catalog, tmp_path / "a.png", rows=8, columns=2)
    assert caption.startswith("4 of 8 queries")
    assert "4 queries are not shown: no installed font" in caption


def test_fonts_cover_english_and_not_private_characters() -> None:
    fonts = Fonts()
    assert fonts.covers("Red shoes, größe 42 ✓")
    assert not fonts.covers("\ue123")


def test_wrap_keeps_to_width_and_lines() -> None:
    font = Fonts().for_text("a", 12)
    text = "A very long product title that is wrapped and cut behind three lines or so"
    lines = wrap(text, font, 100, 3)
    assert len(lines) == 3 and lines[-1].endswith("…")
    assert all(font.getlength(line) <= 100 for line in lines)
    assert " ".join(wrap(text, font, 100, 99)) == text
    assert "".join(wrap("x" * 100, font, 100, 99)) == "x" * 100
    assert wrap("", font, 100, 3) == []


@pytest.mark.parametrize("text", ["x", "long word ", "i", "红", "a\u0301\u0323", "\u200d", "  \n"])
def test_the_time_of_wrapping_does_not_depend_on_the_length(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A title of 10,000 characters stalled the gallery for minutes."""
    font = Fonts().for_text(text, 12)
    measured: list[int] = []
    real = type(font).getlength
    monkeypatch.setattr(type(font), "getlength", lambda self, part: measured.append(len(part)) or real(self, part))
    costs, wrapped = [], []
    for length in (3_000, 30_000, 3_000_000):
        measured.clear()
        wrapped.append(wrap((text * length)[:length], font, 150, 3))
        costs.append(sum(measured))
    assert costs[0] == costs[1] == costs[2] < 200_000
    assert wrapped[0] == wrapped[1] == wrapped[2] and len(wrapped[0]) <= 3
    assert all(line.endswith("…") for line in wrapped[0][-1:])


def test_the_gallery_of_long_titles_and_queries_takes_no_longer(
    catalog: Catalog, evaluation: Evaluation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[int] = []
    font = type(Fonts().for_text("a", 12))
    real = font.getlength
    monkeypatch.setattr(font, "getlength", lambda self, part: measured.append(len(part)) or real(self, part))
    costs = []
    for length in (3_000, 300_000):
        products = tuple(dataclasses.replace(p, title="w" * length) for p in evaluation.products)
        queries = tuple(dataclasses.replace(q, text="word " * length) for q in evaluation.judgements.queries)
        judgements = dataclasses.replace(evaluation.judgements, queries=queries)
        measured.clear()
        long = dataclasses.replace(evaluation, products=products, judgements=judgements)
        draw_gallery(long, catalog, tmp_path / f"{length}.png", rows=2, columns=2)
        costs.append(sum(measured))
    assert costs[0] == costs[1]
