"""Imports of shop exports: Shopify, WooCommerce, Google Merchant."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from make_jax.errors import InputError
from tests.catalog.importers import shop_exports
from tests.catalog.importers.published import encoded_image
from tests.catalog.importers.test_table import import_table


@pytest.fixture(scope="module")
def shopify(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[dict[str, Any]], str]:
    """The products of 300 in a Shopify export, and PROVENANCE.md."""
    folder = tmp_path_factory.mktemp("shopify")
    source, images = shop_exports.shopify(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)  # of 300 images, most of the time of this import
        products = import_table(source, "--images", images, format="shopify")
    return products, (folder / "out/PROVENANCE.md").read_text(encoding="utf-8")


def test_shopify_rows_of_one_handle_are_one_product(shopify: tuple[list[dict[str, Any]], str]) -> None:
    products, _ = shopify
    assert len(products) == 298 and [product["id"] for product in products[:2]] == ["boots-0", "boots-1"]
    two = products[2]
    assert two | {"image": "", "split": ""} == {
        "id": "boots-2",
        "title": "Boots & more 2",
        "image": "",
        "split": "",
        "category": ["Apparel & Accessories", "Shoes"],
        "description": "Warm, waterproof No. 2",
        "variants": ["0002-0", "0002-1", "0002-2"],
        "vendor": "O'Neill 2",
        "type": "Boots",
        "tags": ["winter"],
        "color": ["red", "blue"],
        "colour": ["red", "blue", "olive green"],
        "shoe_size": ["40", "41", "42"],
        "price": 12.99,
        "currency": "$",
    }
    titles = {product["id"]: product["title"] for product in products}
    assert titles["boots-0"] == "Women's boots 0" and "00005" in titles  # the apostrophe of the handle is gone
    assert "variants" not in products[3] and "colour" not in products[3]  # Default Title
    prices = {product["id"]: (product["price"], product["currency"]) for product in products}
    assert prices["boots-0"] == (1000.5, "$") and prices["boots-100"] == (1100.5, "EUR")


def test_shopify_report_states_what_was_joined_changed_and_dropped(shopify: tuple[list[dict[str, Any]], str]) -> None:
    _, report = shopify
    for line in (
        "- taken 999: rows of products.csv",
        "- taken 652: prices in $ (first: products.csv:2)",
        "- taken 48: prices in EUR (first: products.csv:433)",
        "- joined 699: variants and further images, rows with the handle of an earlier row (first: products.csv:4:",
        "- changed 720: the apostrophe before an id is removed (first: products.csv:2: '0000-0",
        "- noted 140: prices with commas (first: products.csv:2: $1,000.50 is 1,000.5",
        "- noted 296: products with several images, of which the first is used",
        "- noted 700: prices in several currencies ($ 652, EUR 48), not converted",
        "- without image 1: the image cannot be read (first: products.csv:75: boots-17 Boots & more 17",
        "- without image 1: the URL of the image has no file in the folder of --images (first: products.csv:101:",
        "- dropped 1: the shop does not show it: status draft (option --drafts) (first: products.csv:184: boots-42",
        "- dropped 1: no title, and no image is named (first: products.csv:431: boots-99)",
    ):
        assert line in report


def test_shopify_drafts_and_later_column_names(tmp_path: Path) -> None:
    names = {"handle": "URL handle", "price": "Price", "image": "Product image URL"}
    rows = [{"URL handle": "a", "Title": "A", "Status": "Draft", "Price": "5"}, {"URL handle": "b", "Title": "B"}]
    source = shop_exports.write_csv(tmp_path / "p.csv", [*names.values(), "Title", "Status"], rows)
    assert [product["id"] for product in import_table(source, format="shopify")] == ["b"]
    products = import_table(source, "--drafts", format="shopify", name="all")
    assert products[0]["price"] == 5 and [product["id"] for product in products] == ["a", "b"]


def test_shopify_images_follow_their_position(tmp_path: Path) -> None:
    rows = [
        {"Handle": "a", "Title": "A", "Image Src": "https://x.example/2.jpg", "Image Position": "2"},
        {"Handle": "b", "Title": "B"},
        {"Handle": "a", "Image Src": "https://x.example/1.jpg", "Image Position": "1"},  # not next to its product
    ]
    source = shop_exports.write_csv(tmp_path / "p.csv", ["Handle", "Title", "Image Src", "Image Position"], rows)
    for number in (1, 2):
        (tmp_path / f"{number}.jpg").write_bytes(encoded_image(number))
    products = import_table(source, "--images", tmp_path, format="shopify")
    assert (tmp_path / "out" / products[0]["image"]).read_bytes() == encoded_image(1)
    assert [product["title"] for product in products] == ["A", "B"]
    (tmp_path / "1.jpg").write_bytes(b"damaged")
    products = import_table(source, "--images", tmp_path, format="shopify", name="second")
    assert (tmp_path / "second" / products[0]["image"]).read_bytes() == encoded_image(2)
    report = (tmp_path / "second/PROVENANCE.md").read_text(encoding="utf-8")
    assert "changed 1: a further image is used: the image cannot be read" in report


def test_woocommerce_variations_are_joined_to_their_parent(tmp_path: Path) -> None:
    header = ["ID", "Type", "SKU", "Name", "Published", "Description", "In stock?", "Sale price", "Regular price"]
    header += ["Categories", "Tags", "Images", "Parent"]
    header += [f"Attribute {n} {part}" for n in (1, 2) for part in ("name", "value(s)")]
    colour, size = "Attribute 1 name", "Attribute 2 name"
    rows = [
        {"ID": "12", "Type": "variation", "SKU": "H-red", "Name": "Hoodie - Red", "Parent": "H",
         "Regular price": "45,50", "Sale price": "39,90", "In stock?": "1",
         colour: "Color", "Attribute 1 value(s)": "Red"},
        {"ID": "11", "Type": "variable", "SKU": "H", "Name": "Hoodie &amp; hat", "Published": "1", "In stock?": "0",
         "Description": "<p>Warm</p>", "Categories": "Clothing > Hoodies\\, Sweaters, Sale", "Tags": "new, warm",
         "Images": "https://x.example/h1.jpg, https://x.example/h2.jpg", colour: "Color", size: "Logo",
         "Attribute 1 value(s)": "Red, Green", "Attribute 2 value(s)": "Yes\\, big"},
        {"ID": "13", "Type": "variation", "Name": "Hoodie - Green", "Parent": "H", "Regular price": "€1.045,00",
         colour: "Color", "Attribute 1 value(s)": "Green"},
        {"ID": "20", "Type": "simple, virtual", "Name": "Gift", "Published": "-1"},
        {"ID": "21", "Type": "variable", "Name": "Cup", "Published": "1"},
        {"ID": "22", "Type": "variation", "Name": "Cup - Blue", "Parent": "id:21", "Regular price": "5"},
        {"ID": "23", "Type": "simple", "SKU": "H", "Name": "Again", "Published": "1"},
    ]  # fmt: skip
    source = shop_exports.write_csv(tmp_path / "wc.csv", header, rows)
    (tmp_path / "images").mkdir()
    (tmp_path / "images/h1.jpg").write_bytes(encoded_image(1))
    products = import_table(source, "--images", tmp_path / "images", format="woocommerce")
    assert [product["id"] for product in products] == ["11", "21"] and products[1]["price"] == 5
    assert products[0] | {"image": "", "split": ""} == {
        "id": "11",
        "title": "Hoodie & hat",
        "image": "",
        "split": "",
        "category": ["Clothing", "Hoodies, Sweaters"],
        "description": "Warm",
        "variants": ["H", "H-red", "13"],
        "tags": ["new", "warm"],
        "in_stock": True,
        "color": ["Red", "Green"],
        "logo": "Yes, big",
        "price": 39.9,
    }
    report = (tmp_path / "out/PROVENANCE.md").read_text(encoding="utf-8")
    assert "- joined 2: variations, joined to their parent" in report  # the first of 12 and 13 began the product
    assert "- dropped 1: the shop does not show it: draft" in report
    assert "- dropped 1: its id is that of an earlier row (first: wc.csv:8: 23)" in report


FEED = """<?xml version="1.0"?>
<rss version="2.0" xmlns:g="http://base.google.com/ns/1.0"><channel><title>Shop</title>
<item><g:id>1</g:id><title>Tea &amp; cup</title><g:description><![CDATA[<b>Hot</b>]]></g:description>
<g:image_link>https://x.example/1.jpg</g:image_link><g:additional_image_link>https://x.example/2.jpg</g:additional_image_link>
<g:additional_image_link>https://x.example/3.jpg</g:additional_image_link><g:price>12.99 USD</g:price>
<g:item_group_id>T</g:item_group_id><g:color>Red/Blue</g:color><g:size>S</g:size>
<g:availability>out_of_stock</g:availability>
<g:product_type>Home &gt; Kitchen, Dining &gt; Tea</g:product_type>
<g:google_product_category>42</g:google_product_category>
<g:shipping><g:country>US</g:country><g:price>1 USD</g:price></g:shipping><g:brand>O'Tea</g:brand>
<g:product_detail><g:attribute_name>Leaf size</g:attribute_name>
<g:attribute_value>large</g:attribute_value></g:product_detail>
</item>
<item><g:id>3</g:id><g:title>Pot</g:title><g:price>1,299.00 EUR</g:price></item>
<item><g:id>2</g:id><g:title>Tea cup L</g:title><g:price>11.50 USD</g:price><g:item_group_id>T</g:item_group_id>
<g:color>Green</g:color><g:size>L</g:size><g:availability>in stock</g:availability></item>
</channel></rss>"""


@pytest.mark.parametrize("kind", ["rss", "atom"])
def test_google_merchant_items_of_a_group_are_joined(tmp_path: Path, kind: str) -> None:
    text = FEED
    if kind == "atom":
        text = text.replace('<rss version="2.0"', '<feed xmlns="http://www.w3.org/2005/Atom"').replace(
            "</rss>", "</feed>"
        )
        text = text.replace("<channel>", "").replace("</channel>", "").replace("item>", "entry>")
    (tmp_path / "feed.xml").write_text(text, encoding="utf-8")
    products = import_table(tmp_path / "feed.xml", format="google-merchant")
    assert [product["id"] for product in products] == ["1", "3"] and products[1]["price"] == 1299
    assert products[0] | {"split": ""} == {
        "id": "1",
        "title": "Tea & cup",
        "image": None,
        "split": "",
        "category": ["Home", "Kitchen, Dining", "Tea"],
        "description": "Hot",
        "variants": ["1", "2"],
        "brand": "O'Tea",
        "size": ["S", "L"],
        "color": ["Red", "Blue", "Green"],
        "in_stock": True,
        "leaf_size": "large",
        "price": 11.5,
        "currency": "USD",
    }
    assert (tmp_path / "out/fetch-images.curl").read_text(encoding="utf-8").count("\nurl = ") == 1  # the first image


def test_a_google_merchant_table_gives_the_same(tmp_path: Path) -> None:
    header = ["id", "title", "image link", "price", "item group id", "google product category", "age_group"]
    rows = [
        ["1", "A", "https://x.example/1.jpg", "12.99 USD", "g", "Home > Tea", "adult"],
        ["2", "B", "", "", "g", "", ""],
    ]
    rows += [["1", "A again", "", "", "", "", ""], ["3", "C", "", "free", "", "", ""], ["3", "C", "", "", "", "", ""]]
    source = shop_exports.write_csv(
        tmp_path / "feed.txt", header, [dict(zip(header, row, strict=True)) for row in rows], "\t"
    )
    products = import_table(source, format="google-merchant")
    assert json.loads(json.dumps(products[0])) | {"split": ""} == {
        "id": "1",
        "title": "A",
        "image": None,
        "split": "",
        "category": ["Home", "Tea"],
        "variants": ["1", "2"],
        "age_group": "adult",
        "price": 12.99,
        "currency": "USD",
    }
    report = (tmp_path / "out/PROVENANCE.md").read_text(encoding="utf-8")
    assert len(products) == 2 and "changed 1: a price that is no number is left out (first: feed.txt:5: free)" in report
    assert "dropped 1: its id is that of an earlier row" in report
    assert "dropped 1: its id is that of an earlier product" in report


@pytest.mark.parametrize(
    ("format", "text", "expected"),
    [
        (
            "shopify",
            "Title,Name\nA,B\n",
            r"no column 'Handle' among Title, Name; expected the CSV file of Shopify's .*`table`",
        ),
        ("woocommerce", "ID,Name\n1,B\n", r"no column 'Type' among ID, Name; expected the CSV file of WooCommerce"),
        ("google-merchant", "id,name\n1,B\n", r"no column 'title' among id, name; expected a product feed of Google"),
        ("shopify", "Handle,Title\n", r"no product, expected at least one; it has no rows"),
    ],
)
def test_an_export_of_another_kind_is_rejected(tmp_path: Path, format: str, text: str, expected: str) -> None:
    (tmp_path / "p.csv").write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=expected):
        import_table(tmp_path / "p.csv", format=format)
    assert [path.name for path in tmp_path.iterdir()] == ["p.csv"]
