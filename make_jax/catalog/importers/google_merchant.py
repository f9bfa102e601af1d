"""Google Merchant Center: a product feed as RSS or Atom (.xml) or as a tab-separated table.

The attributes are taken from support.google.com/merchants/answer/7052112. Items with one item_group_id are variants of
one product. In tables the names may have spaces ("image link").
"""

import argparse
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from make_jax.catalog.importers import cells, staging
from make_jax.catalog.importers.benchmark_info import BenchmarkInfo
from make_jax.catalog.importers.columns import attribute_key
from make_jax.catalog.importers.import_state import ImportState
from make_jax.catalog.importers.local_images import LocalImages
from make_jax.catalog.importers.rows import Row
from make_jax.catalog.importers.shop_fields import Fields, add_price, attribute, decimal_of, find_columns, note_columns
from make_jax.catalog.importers.shop_products import add_products, add_row, clean_id, download_steps
from make_jax.catalog.importers.staging import Item
from make_jax.catalog.importers.table_files import open_table
from make_jax.catalog.importers.tables import Table
from make_jax.catalog.importers.xml_feed import Feed, FeedItem

TEXTS = (
    *("brand", "size", "gender", "age_group", "pattern", "condition", "size_system", "size_type"),
    *(f"custom_label_{number}" for number in range(5)),
)
LISTS = ("color", "material")  # up to three, separated by "/"
NAMES = (
    *("id", "title", "description", "image_link", "additional_image_link", "price", "sale_price", "availability"),
    *("product_type", "google_product_category", "item_group_id", *TEXTS, *LISTS),
)
# Columns that are known and not taken, by what they are for.
IGNORED = {
    r"(?:link|mobile[ _]link|ads[ _]redirect|canonical[ _]link)": "addresses of pages",
    r"(?:shipping|tax|ships|transit|m..[ _]handling|installment|subscription|loyalty|promotion|sale[ _]price[ _]eff|"
    r"availability[ _]date|expiration|cost[ _]of|unit[ _]pricing|auto[ _]pricing|included|excluded).*": "shipping, tax "
    "and advertising",
    r"(?:gtin|mpn|identifier[ _]exists|is[ _]bundle|multipack|adult|energy|m..[ _]energy).*": "codes and labels",
}
_FEED = "a product feed of Google Merchant Center"


def read(state: ImportState, options: argparse.Namespace) -> BenchmarkInfo:
    """Reads the feed `options.source`."""
    source: Path = options.source
    table: Table
    decimal = "."
    if source.suffix.lower() in (".xml", ".rss", ".atom"):
        table, columns = Feed(source), {name: name for name in NAMES}
    else:
        opened = open_table(source, options.encoding)
        table, columns = opened.table, find_columns(opened, {name: (name,) for name in NAMES}, ("id", "title"), _FEED)
        decimal = decimal_of(opened, [columns[name] for name in ("sale_price", "price") if name in columns])
        taken = set(columns.values())
        state.run_once("columns", lambda: note_columns(state, opened, {}, taken, IGNORED))
    state.read_table(table, partial(_row, state, columns, decimal))
    attributes = add_products(state, LocalImages(state.database, source.parent, options.images))
    return BenchmarkInfo(
        name=source.stem,
        title=f"Google Merchant feed ({source.name})",
        licence="not stated by the source",
        provenance="A product feed. Items of one item_group_id are joined; the id is that of the first item.",
        attributes=attributes,
        next_steps=download_steps(state),
    )


def _row(state: ImportState, columns: Mapping[str, str], decimal: str, row: Row) -> None:
    details = row.values.pop("product_detail", None)
    if isinstance(row, FeedItem):
        _note_elements(state, row)
    for name, value in row.values.items():  # repeated elements of XML
        if isinstance(value, list):
            texts = [each for each in value if isinstance(each, str)]
            row.values[name] = ",".join(texts) if name == "additional_image_link" else texts[0] if texts else ""
        elif isinstance(value, dict):
            row.values[name] = ""
    if not any(row.values.values()):
        return
    fields = Fields(row, columns)
    id, group = clean_id(state, row, fields.text("id")), fields.text("item_group_id")
    if not id:
        state.note("dropped", "an item without id", row.place)
        return
    item = Item(id, fields.plain("title"), fields.plain("description"), variant=id)
    item.image_names = [
        name for key in ("image_link", "additional_image_link") for name in cells.image_names(fields.text(key))
    ]
    category = fields.plain("product_type") or fields.plain("google_product_category")
    item.category = [] if category.isdecimal() else cells.category_levels(category)
    add_price(state, row, item, fields.text("sale_price") or fields.text("price"), decimal)
    for key in TEXTS:
        attribute(item, key, fields.plain(key))
    for key in LISTS:
        if values := cells.texts(fields.plain(key), "/"):
            item.attributes[key] = values if len(values) > 1 else values[0]
    if stock := fields.text("availability"):
        item.attributes["in_stock"] = re.sub(r"[_\s]+", " ", stock.casefold()) == "in stock"
    _add_details(item, details)
    key = f"group:{group}" if group else f"id:{id}"
    if group and staging.has_variant(state.database, key, id):
        state.note("dropped", "its id is that of an earlier row", f"{row.place}: {id}")
        return
    add_row(state, row, key, item, "variants, with the item_group_id of an earlier item" if group else "")


def _note_elements(state: ImportState, row: Row) -> None:
    """Reports the elements of an item that are not taken: unlike a table, a feed does not list its columns."""
    for name, value in row.values.items():
        if value and name not in NAMES:
            reason = next((reason for regex, reason in IGNORED.items() if re.fullmatch(regex, name)), "")
            state.note("ignored", f"elements `{name}`, {reason or 'not known to this format'}", row.place)
        elif isinstance(value, list) and name != "additional_image_link":
            state.note("ignored", f"further elements `{name}` of an item, of which the first is used", row.place)


def _add_details(item: Item, details: Any) -> None:
    """Adds g:product_detail, an attribute that the feed names."""
    for detail in details if isinstance(details, list) else [details]:
        if isinstance(detail, dict):
            name, value = detail.get("attribute_name"), detail.get("attribute_value")
            if isinstance(name, str) and isinstance(value, str):
                attribute(item, attribute_key(cells.plain_text(name)), cells.plain_text(value))
