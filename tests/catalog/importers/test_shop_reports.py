"""What the imports of shop exports report: columns, titles, currencies and prices that can be read in two ways."""

from pathlib import Path

import pytest

from tests.catalog.importers import shop_exports
from tests.catalog.importers.test_table import import_table


def report(folder: Path, name: str = "out") -> str:
    return (folder / name / "PROVENANCE.md").read_text(encoding="utf-8")


def test_shopify_lists_every_column_as_taken_or_ignored(tmp_path: Path) -> None:
    header = ["Handle", "Title", "Variant Price", "Price", "Price / International", "Compare At Price / Canada"]
    header += ["Variant Inventory Qty", "Cost per item", "SEO Title", "Image Alt Text", "Fabric", "Variant Tax Code"]
    row = dict.fromkeys(header, "1") | {"Variant Tax Code": ""}
    source = shop_exports.write_csv(tmp_path / "p.csv", header, [row])
    products = import_table(source, format="shopify")
    assert products == [{"id": "1", "title": "1", "image": None, "split": products[0]["split"], "price": 1}]
    lines = [line for line in report(tmp_path).splitlines() if "columns" in line]
    assert lines == [
        "- taken 3: columns: Handle, Title, Variant Price",
        "- ignored 1: columns, another column has the same meaning: Price",
        "- ignored 2: columns, of further markets, in currencies that the export does not state; `price` is that of "
        "the main market: Price / International, Compare At Price / Canada",
        "- ignored 2: columns, stock, shipping, tax, codes and cost: Variant Inventory Qty, Cost per item",
        "- ignored 1: columns, written for other search engines: SEO Title",
        "- ignored 1: columns, the title describes the picture: Image Alt Text",
        "- ignored 1: columns, not known to this format: Fabric",
        "- ignored 1: columns, empty in the first 1 rows: Variant Tax Code",
    ]


@pytest.mark.parametrize(
    ("format", "name", "text", "expected"),
    [
        (
            "woocommerce",
            "p.csv",
            "ID,Type,Name,Meta: x,Attribute 1 name,Attribute 1 value(s),Attribute 1 visible,Position\n"
            "1,simple,Cup,y,Color,Red,1,0\n",
            (
                "taken 5: columns: ID, Type, Name, Attribute 1 name, Attribute 1 value(s)",
                "ignored 1: columns, fields of plugins: Meta: x",
                "ignored 1: columns, how the shop shows an attribute: Attribute 1 visible",
                "ignored 1: columns, how the shop shows a product: Position",
            ),
        ),
        (
            "google-merchant",
            "p.tsv",
            "id\ttitle\tlink\tshipping weight\tgtin\tnote\n1\tCup\thttps://x.example/1\t2 kg\t123\tx\n",
            (
                "taken 2: columns: id, title",
                "ignored 1: columns, addresses of pages: link",
                "ignored 1: columns, shipping, tax and advertising: shipping weight",
                "ignored 1: columns, codes and labels: gtin",
                "ignored 1: columns, not known to this format: note",
            ),
        ),
        (
            "google-merchant",
            "p.xml",
            "<rss><item><id>1</id><title>Cup</title><title>Mug</title><link>x</link><tax><rate>1</rate></tax></item>"
            "<item><id>2</id><title>Pot</title><link>x</link></item></rss>",
            (
                "ignored 2: elements `link`, addresses of pages (first: p.xml: item 1; p.xml: item 2)",
                "ignored 1: elements `tax`, shipping, tax and advertising (first: p.xml: item 1)",
                "ignored 1: further elements `title` of an item, of which the first is used (first: p.xml: item 1)",
            ),
        ),
    ],
)
def test_other_exports_list_what_they_ignore(
    tmp_path: Path, format: str, name: str, text: str, expected: tuple[str, ...]
) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    import_table(tmp_path / name, format=format)
    for line in expected:
        assert f"- {line}" in report(tmp_path).splitlines()


def test_a_second_title_of_a_handle_is_reported_with_both_lines(tmp_path: Path) -> None:
    rows = [{"Handle": handle, "Title": title} for handle, title in (("a", "Red"), ("b", "Cup"), ("a", "Blue"))]
    rows += [{"Handle": "b", "Title": "Cup"}, {"Handle": "b"}]  # the same title, and none, are not reported
    source = shop_exports.write_csv(tmp_path / "p.csv", ["Handle", "Title"], rows)
    assert [product["title"] for product in import_table(source, format="shopify")] == ["Red", "Cup"]
    reason = "rows of one product have different titles; the first is used"
    assert f"- noted 1: {reason} (first: p.csv:2: Red; p.csv:4: Blue)" in report(tmp_path)


def test_a_second_item_with_an_id_of_its_group_is_dropped_and_reported(tmp_path: Path) -> None:
    rows = [("1", "Red cup", "g", "red"), ("2", "Blue cup", "g", "blue"), ("1", "Old cup", "g", "old")]
    header = ["id", "title", "item_group_id", "color"]
    source = shop_exports.write_csv(tmp_path / "p.csv", header, [dict(zip(header, row, strict=True)) for row in rows])
    products = import_table(source, format="google-merchant")
    assert [(product["variants"], product["color"]) for product in products] == [(["1", "2"], ["red", "blue"])]
    assert "- dropped 1: its id is that of an earlier row (first: p.csv:4: 1)" in report(tmp_path)


PRICES = ("€1.299,00", "1,299.00", "US$ 12", "12 USD", "$12 USD", "12")


@pytest.mark.parametrize("format", ["shopify", "woocommerce", "google-merchant", "table"])
def test_prices_with_and_without_currencies_are_not_mixed_silently(tmp_path: Path, format: str) -> None:
    names = {"shopify": ["Handle", "Title", "Variant Price"], "woocommerce": ["ID", "Name", "Regular price", "Type"]}
    header = names.get(format, ["id", "title", "price"])
    rows = [dict(zip(header, (f"p{n}", f"t {n}", price, "simple"), strict=False)) for n, price in enumerate(PRICES)]
    source = shop_exports.write_csv(tmp_path / "p.csv", header, rows)
    products = import_table(source, format=format)
    assert [(product["price"], product.get("currency", "")) for product in products] == [
        (1299, "EUR"), (1299, ""), (12, "USD"), (12, "USD"), (12, "USD"), (12, ""),
    ]  # fmt: skip
    text = "prices in several currencies (EUR 1, without one 2, USD 3), not converted: filter by `currency` too"
    assert f"- noted 6: {text}" in report(tmp_path)


def test_one_currency_and_prices_without_one_are_reported(tmp_path: Path) -> None:
    rows = [{"Handle": "a", "Title": "A", "Variant Price": "€1"}, {"Handle": "b", "Title": "B", "Variant Price": "2"}]
    source = shop_exports.write_csv(tmp_path / "p.csv", ["Handle", "Title", "Variant Price"], rows)
    import_table(source, format="shopify")
    assert "- noted 2: prices in several currencies (EUR 1, without one 1), not converted" in report(tmp_path)


@pytest.mark.parametrize(("other", "price", "mark"), [("12,50", 1299, ","), ("12.50", 1.299, ".")])
def test_a_price_with_two_readings_is_read_like_the_others_and_reported(
    tmp_path: Path, other: str, price: float, mark: str
) -> None:
    rows = [{"Handle": n, "Title": n, "Variant Price": text} for n, text in (("a", "1.299"), ("b", other))]
    source = shop_exports.write_csv(tmp_path / "p.csv", ["Handle", "Title", "Variant Price"], rows)
    assert [product["price"] for product in import_table(source, format="shopify")] == [price, 12.5]
    how = f'prices that can be read in two ways, here with the decimal mark "{mark}"'
    assert f"- noted 1: {how} (first: p.csv:2: 1.299 is {price:,})" in report(tmp_path)
