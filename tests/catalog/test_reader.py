"""`Catalog.load`: what it reads, what it rejects, and the error messages."""

import dataclasses
import json
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from make_jax.catalog import source as source_module
from make_jax.catalog.importers.rows import Row
from make_jax.catalog.reader import Catalog
from make_jax.errors import InputError
from tests.tiny_catalog import write_catalog, write_lines, zip_folder


def lines(folder: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / name).read_text(encoding="utf-8").splitlines()]


def set_info(folder: Path, **values: Any) -> None:
    (folder / "catalog.json").write_text(json.dumps(values), encoding="utf-8")


def message(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        Catalog.load(path)
    return str(caught.value)


def test_reads_a_folder_in_the_order_of_its_files(tmp_path: Path) -> None:
    folder = write_catalog(tmp_path / "tiny", products=24, queries=8)
    catalog = Catalog.load(folder)
    assert [product.id for product in catalog.products] == [f"p{i}" for i in range(24)]
    assert [query.id for query in catalog.queries] == [f"q{i}" for i in range(8)]
    assert [click.product for click in catalog.clicks] == [row["product"] for row in lines(folder, "clicks.jsonl")]
    assert [product.id for product in catalog.split_products("val")] == ["p3", "p8", "p13", "p18", "p23"]
    assert {query.split for query in catalog.split_queries("test")} == {"test"}
    assert catalog.index["p7"] == 7
    first, untitled, without_image = catalog.products[0], catalog.products[3], catalog.products[6]
    assert (first.title, first.image, first.category) == ("red circle number 0", "images/p0.png", ("shapes", "circle"))
    assert untitled.title == "" and without_image.image is None
    assert catalog.image_bytes(first) == (folder / "images/p0.png").read_bytes()
    assert catalog.image_bytes(without_image) is None
    assert catalog.queries[0].rel == lines(folder, "queries.jsonl")[0]["rel"]


@pytest.mark.parametrize("inside", ["", "mine/"])
def test_a_zip_reads_like_its_folder(tmp_path: Path, inside: str) -> None:
    folder = write_catalog(tmp_path / "a" / inside / "tiny" if inside else tmp_path / "tiny")
    archive = zip_folder(folder.parent if inside else folder)
    of_folder, of_zip = Catalog.load(folder), Catalog.load(archive)
    assert of_zip.products == of_folder.products
    assert of_zip.queries == of_folder.queries and of_zip.clicks == of_folder.clicks
    assert of_zip.image_bytes(of_zip.products[1]) == of_folder.image_bytes(of_folder.products[1])
    assert of_zip.digest == of_folder.digest  # as the docstring states


def test_products_alone_are_a_catalog(tmp_path: Path) -> None:
    write_lines(tmp_path / "products.jsonl", [{"id": "a", "title": " Red  shoe ", "split": "test"}])
    catalog = Catalog.load(tmp_path)
    assert catalog.info.name == tmp_path.name and catalog.info.relevant == 3 and catalog.info.gains == {}
    assert catalog.products[0].title == "Red  shoe"
    assert catalog.queries == () and catalog.clicks == ()


def test_a_catalog_is_never_changed(tmp_path: Path) -> None:
    catalog = Catalog.load(write_catalog(tmp_path / "tiny"))
    with pytest.raises(dataclasses.FrozenInstanceError):
        catalog.products = ()  # type: ignore[misc]


def test_hide_title_removes_every_title(tmp_path: Path) -> None:
    folder = write_catalog(tmp_path / "tiny", missing=False)
    set_info(folder, hide_title=True)
    catalog = Catalog.load(folder)
    assert catalog.info.hide_title and {product.title for product in catalog.products} == {""}


def test_hide_title_requires_an_image_for_every_product(tmp_path: Path) -> None:
    folder = write_catalog(tmp_path / "tiny", products=8)
    set_info(folder, hide_title=True)
    assert "products.jsonl:7: image: missing" in message(folder)


BAD_LINES = {
    "neither title nor image": ("products.jsonl", 1, {"title": " ", "image": None}, "title: neither title nor image"),
    "bad split": ("products.jsonl", 2, {"split": "dev"}, 'split: found "dev", expected one of "train", "val", "test"'),
    "no split": ("products.jsonl", 2, {"split": ...}, 'products.jsonl:2: split: missing, expected one of "train"'),
    "query without split": ("queries.jsonl", 1, {"split": ...}, 'split: missing, expected one of "train"'),
    "split all": ("queries.jsonl", 1, {"split": "all"}, '"test"; "pool": "all" in catalog.json makes queries search'),
    "id is a fraction": ("products.jsonl", 3, {"id": 1.5}, "id: found 1.5, expected a string"),
    "id is true": ("products.jsonl", 3, {"id": True}, "id: found true, expected a string"),
    "id with a space": ("products.jsonl", 3, {"id": "a b"}, 'id: found "a b", expected a string'),
    "id twice": ("products.jsonl", 5, {"id": "p0"}, 'id: "p0" is the id of line 1 too, expected unique ids'),
    "title is a list": ("products.jsonl", 1, {"title": ["red"]}, 'title: found ["red"], expected a string'),
    "title is half a pair": ("products.jsonl", 1, {"title": "\ud83d"}, "title: half of a surrogate pair"),
    "category is a number": ("products.jsonl", 1, {"category": 3}, "category: found"),
    "sensitive is a word": ("products.jsonl", 1, {"sensitive": "no"}, 'sensitive: found "no", expected true or false'),
    "dropped is a word": ("products.jsonl", 1, {"dropped": "colour"}, "dropped: found"),
    "attribute is an object": ("products.jsonl", 1, {"colour": {}}, "colour: found {}, expected a string, a number"),
    "attribute is half a pair": ("products.jsonl", 1, {"colour": ["\ud83d"]}, "colour: half of a surrogate pair"),
    "image is missing": (
        "products.jsonl",
        1,
        {"image": "images/no.png"},
        'image: "images/no.png" is not in the catalog',
    ),
    "image outside the catalog": (
        "products.jsonl",
        1,
        {"image": "../p0.png"},
        "image: \"../p0.png\" has an empty, '.' or '..' part",
    ),
    "image is absolute": ("products.jsonl", 1, {"image": "/etc/passwd"}, 'image: "/etc/passwd" is absolute'),
    "qid twice": ("queries.jsonl", 2, {"qid": "q0"}, 'qid: "q0" is the qid of line 1 too, expected unique qids'),
    "query without text": ("queries.jsonl", 1, {"text": ""}, 'text: found "", expected a string that is not empty'),
    "unknown product": ("queries.jsonl", 1, {"rel": {"x": 3, "y": 1}}, 'judges the unknown product "x" and 1 more'),
    "grade is a fraction": (
        "queries.jsonl",
        1,
        {"rel": {"p4": 2.5}},
        'rel: found {"p4": 2.5}, expected an object {product id: grade}, grades',
    ),
    "grade is negative": ("queries.jsonl", 1, {"rel": {"p4": -1}}, 'rel: found {"p4": -1}, expected an object'),
    "grade is a time": ("queries.jsonl", 1, {"rel": {"p4": 1_500_000_000}}, "grades integers 0 to 1000000"),
    "grade is true": ("queries.jsonl", 1, {"rel": {"p4": True}}, 'rel: found {"p4": true}, expected an object'),
    "no judgements": ("queries.jsonl", 1, {"rel": ...}, "rel: missing, expected an object {product id: grade}"),
    "click on an unknown product": ("clicks.jsonl", 1, {"product": "x"}, 'product: found the unknown product "x"'),
    "click without query": (
        "clicks.jsonl",
        1,
        {"query": None},
        "query: found null, expected a string that is not empty",
    ),
}


@pytest.mark.parametrize("case", BAD_LINES)
def test_one_problem_is_one_line_with_file_line_and_key(tmp_path: Path, case: str) -> None:
    name, number, change, expected = BAD_LINES[case]
    folder = write_catalog(tmp_path / "tiny")
    (folder / "queries.jsonl").write_text("") if name == "products.jsonl" else None  # the only problem
    (folder / "clicks.jsonl").write_text("") if name == "products.jsonl" else None
    rows = lines(folder, name)
    row = {**rows[number - 1], **change}
    rows[number - 1] = {key: value for key, value in row.items() if value is not ...}
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    text = message(folder)
    assert f"{name}:{number}: " in text and expected in text
    assert "\n" not in text and text.startswith(str(folder))


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b'{"qid": "q16", "text": }', "queries.jsonl:17: not JSON (Expecting value at column 24)"),
        (
            b'{"qid": "q16", "text": "a", "split": "val", "rel": {"p1": 3, "p1": 0}}',
            'queries.jsonl:17: "p1" occurs twice in one object, expected each key once',
        ),
        (b'\xef\xbb\xbf{"qid": "q16", "x": [{"a": 1, "a": 1}]}', 'queries.jsonl:17: "a" occurs twice'),
        (b"[1, 2]", "queries.jsonl:17: found [1, 2], expected one object"),
        (b'{"qid": "\xff"}', "queries.jsonl:17: not UTF-8 at byte 10"),
        (b"[" * 100_000, "queries.jsonl:17: nested too deep"),
        (b'{"qid": ' + b"1" * 5000 + b"}", "queries.jsonl:17: not readable"),
    ],
)
def test_an_invalid_line_is_reported_with_its_number(tmp_path: Path, line: bytes, expected: str) -> None:
    folder = write_catalog(tmp_path / "tiny", queries=20)
    rows = (folder / "queries.jsonl").read_bytes().splitlines()
    rows[16] = line
    (folder / "queries.jsonl").write_bytes(b"\n".join(rows))
    assert expected in message(folder)
    assert "\n" not in message(folder)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"license": "MIT"}, 'catalog.json: license: unknown key, expected "licence"'),
        ({"gains": {"high": 1}}, 'catalog.json: gains: found {"high": 1}'),
        ({"gains": {"1": -1}}, 'catalog.json: gains: found {"1": -1}'),
        ({"relevant": 0}, "catalog.json: relevant: found 0, expected an integer >= 1"),
        ({"relevant": 1_000_001}, "catalog.json: relevant: found 1000001, expected an integer >= 1, at most 1000000"),
        ({"hide_title": 1}, "catalog.json: hide_title: found 1, expected true or false"),
        ({"attributes": "colour"}, 'catalog.json: attributes: found "colour", expected a list of strings'),
    ],
)
def test_catalog_json_is_checked(tmp_path: Path, values: dict[str, Any], expected: str) -> None:
    folder = write_catalog(tmp_path / "tiny")
    set_info(folder, **values)
    assert expected in message(folder)


@pytest.mark.parametrize(
    "title", ["\u200b", "\ufeff", "\xad", "\0", " \u2060\u00a0", "\u3164", "\ufe0f", "\u202a\u202c"]
)
def test_invisible_characters_are_no_title(tmp_path: Path, title: str) -> None:
    write_lines(tmp_path / "products.jsonl", [{"id": "a", "title": title, "split": "test"}])
    assert "products.jsonl:1: title: neither title nor image" in message(tmp_path)
    write_lines(tmp_path / "products.jsonl", [{"id": "a", "title": "shoe", "split": "test"}])
    write_lines(tmp_path / "queries.jsonl", [{"qid": "q", "text": title, "split": "test", "rel": {"a": 3}}])
    assert "queries.jsonl:1: text: found" in message(tmp_path)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\ufeffshoe\u200b ", "shoe"),
        (" \u200b \0shoe\t\xad", "shoe"),
        ("sun \u2600\ufe0f", "sun \u2600\ufe0f"),  # an emoji variation
        (
            "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
            "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
        ),  # Persian
        ("\U0001f3f4\U000e0067\U000e007f", "\U0001f3f4\U000e0067\U000e007f"),  # a flag
    ],
)
def test_invisible_characters_are_stripped_at_the_ends(tmp_path: Path, text: str, expected: str) -> None:
    write_lines(tmp_path / "products.jsonl", [{"id": "a", "title": text, "split": "test"}])
    assert Catalog.load(tmp_path).products[0].title == expected
    assert Row("a.csv:1", {"title": text}).text("title") == expected


def test_usual_forms_of_values_are_accepted(tmp_path: Path) -> None:
    folder = write_catalog(tmp_path / "tiny")
    image = "././images/p0.png"
    rows = [
        {"id": 17, "title": "a", "split": "train", "category": "shoes", "image": image, "colour": "red"},
        {"id": 18.0, "title": "b", "split": "validation", "category": " "},
    ]
    write_lines(folder / "products.jsonl", rows)
    judged = [{"qid": 0, "text": "x", "split": "validation", "rel": {"18": 1.0, "17": 2}}]
    write_lines(folder / "queries.jsonl", judged)
    write_lines(folder / "clicks.jsonl", [{"query": "a", "product": 17}])
    set_info(folder, relevant=2.0, attributes=["category"])
    catalog = Catalog.load(folder)
    first, second = catalog.products
    assert (first.id, first.category, first.image, first.attributes) == (
        "17",
        ("shoes",),
        "images/p0.png",
        {"category": "shoes"},
    )
    assert (second.id, second.split, second.category) == ("18", "val", ())
    (query,) = catalog.queries
    assert (query.id, query.split, query.rel) == ("0", "val", {"18": 1, "17": 2})
    assert type(query.rel["18"]) is int and catalog.clicks[0].product == "17" and catalog.info.relevant == 2


@pytest.mark.parametrize("name", ["products.jsonl", "clicks.jsonl", "catalog.json"])
def test_a_key_may_occur_once_in_an_object(tmp_path: Path, name: str) -> None:
    folder = write_catalog(tmp_path / "tiny")
    key = {"products.jsonl": "title", "clicks.jsonl": "product", "catalog.json": "gains"}[name]
    text = (folder / name).read_text(encoding="utf-8")
    value = {"gains": '{"1": 1, "1": 2}'}.get(key, f'"", "{key}": "p0"')
    (folder / name).write_text(text.replace("{", f'{{"{key}": {value}, ', 1), encoding="utf-8")
    place = name if name == "catalog.json" else f"{name}:1"
    repeated = "1" if name == "catalog.json" else key
    assert message(folder) == f'{folder}: {place}: "{repeated}" occurs twice in one object, expected each key once'


def test_all_problems_are_reported_together_up_to_a_limit(tmp_path: Path) -> None:
    folder = write_catalog(tmp_path / "tiny", products=60)
    rows = lines(folder, "clicks.jsonl")
    for row in rows[:25]:
        row["query"] = ""
    rows[30]["product"] = "unknown"
    write_lines(folder / "clicks.jsonl", rows)
    text = message(folder).splitlines()
    assert text == [
        f"{folder}: 26 problems:",
        '  clicks.jsonl:1: query: found "", expected a string that is not empty (25 lines: 1, 2, 3, ...)',
        '  clicks.jsonl:31: product: found the unknown product "unknown", expected an id of products.jsonl',
    ]


def test_problems_of_many_kinds_are_cut_to_a_limit(tmp_path: Path) -> None:
    folder = write_catalog(tmp_path / "tiny", products=30)
    rows = [row | {f"a{i}": {}} for i, row in enumerate(lines(folder, "products.jsonl"))]
    write_lines(folder / "products.jsonl", rows)
    set_info(folder, attributes=[f"a{chr(97 + i)}" for i in range(26)])
    assert Catalog.load(folder).products  # the keys differ: no product has one of these attributes
    for i, row in enumerate(rows):
        row[f"a{chr(97 + i % 26)}"] = {}
    write_lines(folder / "products.jsonl", rows)
    text = message(folder).splitlines()
    assert text[0] == f"{folder}: 30 problems:" and len(text) == 22
    assert text[21] == f"  ... 6 more lines; python -m make_jax.catalog check {folder} lists them"


def test_a_catalog_without_any_split_is_read_with_its_clicks(tmp_path: Path) -> None:
    folder = write_catalog(tmp_path / "tiny")
    for row in (rows := lines(folder, "products.jsonl")):
        del row["split"]
    rows[0]["split"] = None
    write_lines(folder / "products.jsonl", rows)
    catalog = Catalog.load(folder)
    assert {product.split for product in catalog.products} == {None} and len(catalog.clicks) == 30
    assert all(not catalog.split_products(split) for split in ("train", "val", "test"))


def test_clicks_on_products_outside_the_training_split_are_left_out(tmp_path: Path) -> None:
    folder = write_catalog(tmp_path / "tiny")
    rows = lines(folder, "clicks.jsonl")
    rows[0]["product"], rows[7]["product"] = "p4", "p3"
    write_lines(folder / "clicks.jsonl", rows)
    assert len(Catalog.load(folder).clicks) == len(rows) - 2


def test_an_invalid_product_line_does_not_invalidate_its_judgements(tmp_path: Path) -> None:
    folder = write_catalog(tmp_path / "tiny")
    rows = (folder / "products.jsonl").read_text().splitlines()
    (folder / "products.jsonl").write_text("\n".join([*rows[:4], "{", *rows[5:]]))
    assert message(folder).startswith(f"{folder}: products.jsonl:5: not JSON")


def test_missing_catalogs(tmp_path: Path) -> None:
    assert "not found, expected a catalog folder or .zip" in message(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    assert "products.jsonl: not found" in message(tmp_path / "empty")
    (tmp_path / "empty" / "products.jsonl").write_text("\n\n")
    assert "products.jsonl: no product" in message(tmp_path / "empty")


@pytest.mark.parametrize("zipped", [False, True])
def test_the_digest_changes_when_a_line_or_an_image_does(tmp_path: Path, zipped: bool) -> None:
    folder = write_catalog(tmp_path / "tiny")

    def digest() -> str:
        return Catalog.load(zip_folder(folder) if zipped else folder).digest

    before = digest()
    assert digest() == before
    image = folder / "images/p0.png"
    data = bytearray(image.read_bytes())
    data[-20] ^= 1  # same size, same time stamps or not
    image.write_bytes(bytes(data))
    changed = digest()
    rows = (folder / "clicks.jsonl").read_text()
    (folder / "clicks.jsonl").write_text(rows.replace("red", "Red", 1))
    assert len({before, changed, digest()}) == 3


@pytest.mark.parametrize("zipped", [False, True])
def test_may_be_used_by_several_threads_and_pickled_to_other_processes(tmp_path: Path, zipped: bool) -> None:
    path = write_catalog(tmp_path / "tiny", products=60, zipped=zipped)
    catalog = Catalog.load(path)
    expected = [catalog.image_bytes(product) for product in catalog.products]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(catalog.image_bytes, list(catalog.products) * 5)) == expected * 5
    code = (
        "import pickle, sys; catalog = pickle.load(sys.stdin.buffer)\n"
        "assert not {'jax', 'tensorflow_datasets'} & set(sys.modules), 'heavy imports'\n"
        "print(sum(len(catalog.image_bytes(product) or b'') for product in catalog.products))"
    )
    child = subprocess.run([sys.executable, "-c", code], input=pickle.dumps(catalog), capture_output=True, check=True)
    assert int(child.stdout) == sum(len(data or b"") for data in expected)


def test_a_forked_process_opens_its_own_zip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    catalog = Catalog.load(write_catalog(tmp_path / "tiny", zipped=True))
    archive = catalog.source._archive()  # type: ignore[attr-defined]
    assert catalog.source._archive() is archive  # type: ignore[attr-defined]
    monkeypatch.setattr(source_module.os, "getpid", lambda: -1)
    assert catalog.source._archive() is not archive  # type: ignore[attr-defined]
    archive.close()
    catalog.source._archive().close()  # type: ignore[attr-defined]


@pytest.mark.parametrize("extra", ['"\\ud83d"', "[" * 300 + "]" * 300, "NaN"])
def test_values_of_undeclared_keys_may_be_any_json(tmp_path: Path, extra: str) -> None:
    write_lines(tmp_path / "products.jsonl", [{"id": "a", "title": "shoe", "split": "test"}])
    line = (tmp_path / "products.jsonl").read_text()
    (tmp_path / "products.jsonl").write_text("\ufeff" + line.replace("}", f', "extra": {extra}}}'), encoding="utf-8")
    assert Catalog.load(tmp_path).products[0].title == "shoe"


def test_messages_can_always_be_printed(tmp_path: Path) -> None:
    write_lines(tmp_path / "products.jsonl", [{"id": "a", "title": "shoe", "split": "test"}])
    set_info(tmp_path, gains=["\ud83d"])
    assert "gains: found" in message(tmp_path).encode().decode()
