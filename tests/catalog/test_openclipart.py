"""The packaged catalog: the claims of its PROVENANCE.md, and the rules that built it."""

import importlib
import io
import itertools
import json
import re
import sys
import zipfile
from collections import Counter, defaultdict
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
PACKAGED = ROOT / "make_jax" / "catalog" / "openclipart.zip"
SCRIPTS = ROOT / "scripts" / "openclipart"


def read_lines(archive: zipfile.ZipFile, name: str) -> list[dict]:
    return [json.loads(line) for line in archive.read(name).decode().splitlines()]


@pytest.fixture(scope="module")
def archive():
    with zipfile.ZipFile(PACKAGED) as opened:
        yield opened


@pytest.fixture(scope="module")
def products(archive: zipfile.ZipFile) -> list[dict]:
    return read_lines(archive, "products.jsonl")


@pytest.fixture(scope="module")
def queries(archive: zipfile.ZipFile) -> list[dict]:
    return read_lines(archive, "queries.jsonl")


@pytest.fixture(scope="module")
def clicks(archive: zipfile.ZipFile) -> list[dict]:
    return read_lines(archive, "clicks.jsonl")


@pytest.fixture(scope="module")
def scripts():
    """Adds the folder of the scripts to the import path, as running build_openclipart.py does."""
    sys.path.insert(0, str(SCRIPTS))
    yield
    sys.path.remove(str(SCRIPTS))


@pytest.fixture(scope="module")
def build(scripts: None) -> ModuleType:
    return importlib.import_module("build_openclipart")


@pytest.fixture(scope="module")
def images_module(scripts: None) -> ModuleType:
    return importlib.import_module("openclipart_images")


@pytest.fixture(scope="module")
def rules(scripts: None) -> ModuleType:
    return importlib.import_module("openclipart_rules")


def words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+", text.lower())


def test_at_most_11_mebibytes_with_enough_products_and_queries(products, queries, clicks):
    splits = Counter(product["split"] for product in products)
    judged = Counter(query["split"] for query in queries)
    assert PACKAGED.stat().st_size <= 11 * 2**20
    assert splits["train"] >= 1200 and splits["val"] >= 100 and splits["test"] >= 550
    assert judged["val"] >= 80 and judged["test"] >= 250 and judged["train"] == 0
    assert splits["train"] < len(clicks) <= 60_000


def test_every_image_is_a_webp_of_96_pixels_and_not_blank(archive, products):
    stored = {name for name in archive.namelist() if name.startswith("images/")}
    assert stored == {product["image"] for product in products}
    for product in products:
        with Image.open(io.BytesIO(archive.read(product["image"]))) as opened:
            assert opened.format == "WEBP" and max(opened.size) == 96 and min(opened.size) >= 24, product["id"]
            darkest, brightest = opened.convert("L").getextrema()
            assert brightest - darkest > 8 or darkest < 240, product["id"]


def test_ids_are_unique_and_equal_images_share_a_group(archive, products):
    assert len({product["id"] for product in products}) == len(products)
    groups = defaultdict(set)
    for product in products:
        groups[archive.getinfo(product["image"]).CRC].add(product["group"])
    assert all(len(inside) == 1 for inside in groups.values())


def test_titles_are_words(products):
    for product in products:
        title = product["title"]
        assert len(re.findall(r"[^\W_]", title)) >= 3, product["id"]
        assert not re.search(r"untitled|clip ?art by|\.svg|\.png|_|&\w+;|hash\(|@", title, re.IGNORECASE), title


def test_no_group_spans_two_splits(products):
    splits = defaultdict(set)
    for product in products:
        splits[product["group"]].add(product["split"])
    assert all(len(inside) == 1 for inside in splits.values())


def test_near_duplicates_and_series_share_a_group(archive, products, images_module):
    items = []
    for product in products:
        image = archive.read(product["image"])
        author = product["group"]  # authors are not packed: series are searched inside groups, images everywhere
        items.append(
            images_module.Item(
                product["id"], product["title"], author, set(), [], image, *images_module.fingerprint(image)
            )
        )
    pairs = [(i, j) for i, j in images_module.near_duplicates(items) if i != j]
    assert len(pairs) > 200
    assert all(products[i]["group"] == products[j]["group"] for i, j in pairs)


def test_clicks_are_on_training_products_only_and_each_has_one(products, clicks):
    training = {product["id"] for product in products if product["split"] == "train"}
    assert {click["product"] for click in clicks} == training
    assert len({(click["query"], click["product"]) for click in clicks}) == len(clicks)
    assert {click["lang"] for click in clicks} == {"en"}


def test_every_word_of_a_judged_query_occurs_in_training(queries, clicks):
    training = set(itertools.chain.from_iterable(words(click["query"]) for click in clicks))
    for query in queries:
        assert set(words(query["text"])) <= training, query["text"]


def test_queries_judge_products_of_their_own_split(products, queries):
    splits = {product["id"]: product["split"] for product in products}
    assert len({query["qid"] for query in queries}) == len(queries)
    assert len({(query["split"], query["text"]) for query in queries}) == len(queries)
    for query in queries:
        assert query["rel"] and set(query["rel"].values()) == {3}, query
        assert {splits[product] for product in query["rel"]} == {query["split"]}, query
        assert query["lang"] == "en" and query["source"] == "contributor keyword"


def test_no_keyword_query_is_relevant_to_more_than_15_percent(products, queries):
    sizes = Counter(product["split"] for product in products)
    for query in queries:
        assert len(query["rel"]) <= 0.20 * sizes[query["split"]], query["text"]  # 15 % over all splits together


def test_kind_picture_has_its_word_in_no_relevant_title_and_kind_title_has(products, queries):
    titles = {product["id"]: "".join(words(product["title"])) for product in products}
    kinds = Counter()
    for query in queries:
        kinds[query["kind"], query["split"]] += 1
        if query["kind"] == "keyword:pair":
            continue
        in_title = any(
            word.removesuffix("s").removesuffix("e") in titles[product] or word in titles[product]
            for word in words(query["text"])
            for product in query["rel"]
        )
        if query["kind"] == "keyword:picture":
            assert not any(word in titles[product] for word in words(query["text"]) for product in query["rel"]), query
        else:
            assert query["kind"] == "keyword:title" and (in_title or query["text"].endswith(("y", "f", "ies"))), query
    assert min(kinds[kind, "test"] for kind in ("keyword:title", "keyword:picture", "keyword:pair")) >= 60


def test_words_of_the_librarys_organization_are_not_queries(queries, clicks, rules):
    texts = {query["text"] for query in queries} | {click["query"] for click in clicks}
    assert not texts & rules.FILING
    assert not any(re.search(r"hash\(|0x|@|_|\bunsorted\b|clip ?art", text) for text in texts)


def test_provenance_is_in_the_zip_and_next_to_it(archive, products):
    inside = archive.read("PROVENANCE.md").decode()
    assert inside == PACKAGED.with_suffix(".PROVENANCE.md").read_text(encoding="utf-8")
    assert "clip-art drawings, not products" in inside and "No query and no click is the behaviour of a user" in inside
    for split, count in Counter(product["split"] for product in products).items():
        assert f"| {split} | {count} |" in inside


def test_the_reader_loads_it(products, queries, clicks):
    reader = pytest.importorskip("make_jax.catalog.reader")
    catalog = reader.Catalog.load("")
    assert (len(catalog.products), len(catalog.queries), len(catalog.clicks)) == tuple(
        map(len, (products, queries, clicks))
    )
    assert catalog.info.name == "openclipart" and catalog.info.relevant == 3


def test_packing_is_deterministic(archive, build):
    files = {"a.jsonl": b"{}\n" * 50, "images/b.webp": b"RIFF"}
    assert build.pack(files) == build.pack(files)
    assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


@pytest.mark.parametrize(
    ("written", "author", "file", "expected"),
    [
        ("Tigre02", "A", "x", "Tigre"),
        ("Clipart by Nicu Buculei - antenna", "Nicu Buculei", "desk_lamp_01", "desk lamp"),
        ("", "Benji Park", "red_hat_benji_pa_01", "red hat"),
        ("Benji Park", "Benji Park", "benji_park_01", ""),
        ("Crawfish (B and W)", "Gerald G.", "crawfish_bw", "Crawfish black and white"),
        ("8 ball", "A", "x", "8 ball"),
        ("Etiquette Icons", "A", "mouse", ""),
    ],
)
def test_title_is_the_contributors_or_the_file_name_in_words(rules, written, author, file, expected):
    assert rules.title(written, author, file) == expected


def test_keywords_are_descriptions_only(rules):
    written = ["Animal", "hash(0x8669854)", "unsorted", "clip_art", "11", "benji park", "north_america", "icecream", ""]
    assert rules.keywords(written, "Benji Park") == {"animal", "north america", "ice cream"}


def test_plurals_become_singular_only_where_the_singular_is_known(rules):
    known = {"cat", "berry", "glass", "news", "new", "shoes"}
    assert [rules.singular(word, known) for word in ("cats", "berries", "glass", "news", "shoes")] == [
        "cat",
        "berry",
        "glass",
        "news",
        "shoes",
    ]


@pytest.mark.parametrize(
    ("keyword", "title", "expected"),
    [
        ("cat", "Two Cats", True),
        ("berries", "Berry bowl", True),
        ("leaf", "Maple leaves", True),
        ("ice cream", "Vanilla Icecream cone", True),
        ("horse", "Cavallo", False),
        ("light bulb", "Bulb", True),
    ],
)
def test_a_word_occurs_in_a_title_in_any_case_singular_or_plural(rules, keyword, title, expected):
    assert rules.occurs_in(keyword, title) is expected
