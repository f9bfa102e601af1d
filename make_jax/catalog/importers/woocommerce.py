"""WooCommerce: the CSV file of Products > Export, one row a product or variation.

The columns are taken from github.com/woocommerce/woocommerce/wiki/Product-CSV-Import-Schema. A variation names its
parent by SKU, or "id:12" if that has none. Lists are separated by commas; "\\," is a comma inside an entry.
"""

import argparse
import re
from collections.abc import Mapping
from functools import partial

from make_jax.catalog.importers import cells
from make_jax.catalog.importers.benchmark_info import BenchmarkInfo
from make_jax.catalog.importers.columns import attribute_key
from make_jax.catalog.importers.import_state import ImportState
from make_jax.catalog.importers.local_images import LocalImages
from make_jax.catalog.importers.rows import Row
from make_jax.catalog.importers.shop_fields import Fields, add_price, attribute, decimal_of, find_columns, note_columns
from make_jax.catalog.importers.shop_products import add_products, add_row, clean_id, clean_sku, download_steps
from make_jax.catalog.importers.staging import Item
from make_jax.catalog.importers.table_files import open_table
from make_jax.catalog.text import strip_text

COLUMNS: dict[str, tuple[str, ...]] = {
    "id": ("ID",),
    "type": ("Type",),
    "sku": ("SKU",),
    "name": ("Name",),
    "published": ("Published",),
    "visibility": ("Visibility in catalog",),
    "description": ("Description",),
    "short description": ("Short description",),
    "in stock": ("In stock?",),
    "sale price": ("Sale price",),
    "price": ("Regular price",),
    "categories": ("Categories",),
    "tags": ("Tags",),
    "images": ("Images",),
    "parent": ("Parent",),
    "brands": ("Brands", "Brand"),
}
# Columns that are known and not taken, by what they are for.
IGNORED = {
    r"Attribute \d+ (?:visible|global|default)": "how the shop shows an attribute",
    r"Meta: .+": "fields of plugins",
    r"Date .+|Position|Is featured\?|Upsells|Cross-sells|Grouped products|External URL|Button text": "how the shop "
    "shows a product",
    r"Tax .+|Stock|Low stock amount|Backorders.*|Sold individually.*|Weight.*|Length.*|Width.*|Height.*|Shipping class|"
    r"Allow customer reviews.*|Purchase note|Download.*|GTIN.*": "stock, shipping, tax and codes",
}
_EXPORT = "the CSV file of WooCommerce's Products > Export, in English"
_ATTRIBUTE = re.compile(r"Attribute (\d+) name", re.IGNORECASE)
_UNPUBLISHED = {"0": "private", "-1": "draft"}


def read(state: ImportState, options: argparse.Namespace) -> BenchmarkInfo:
    """Reads the export `options.source`."""
    opened = open_table(options.source, options.encoding)
    columns = find_columns(opened, COLUMNS, ("type", "name"), _EXPORT)
    for name in opened.columns:
        if match := _ATTRIBUTE.fullmatch(name):
            aliases = {f"attribute {match[1]} value": (f"Attribute {match[1]} value(s)",)}
            columns |= {f"attribute {match[1]} name": name, **find_columns(opened, aliases, list(aliases), _EXPORT)}
    decimal = decimal_of(opened, [columns[name] for name in ("sale price", "price") if name in columns])
    taken = set(columns.values())
    state.run_once("columns", lambda: note_columns(state, opened, COLUMNS, taken, IGNORED))
    state.read_table(opened.table, partial(_row, state, columns, decimal))
    images = LocalImages(state.database, options.source.parent, options.images)
    attributes = add_products(state, images, options.drafts)
    return BenchmarkInfo(
        name=options.source.stem,
        title=f"WooCommerce products ({options.source.name})",
        licence="not stated by the source",
        provenance="A product export of WooCommerce. Variations are joined to their parent; ids are those of the shop.",
        attributes=attributes,
        next_steps=download_steps(state),
    )


def _row(state: ImportState, columns: Mapping[str, str], decimal: str, row: Row) -> None:
    if not any(value for value in row.values.values()):
        return
    fields = Fields(row, columns)
    sku = clean_sku(state, row, fields.text("sku"))
    id = clean_id(state, row, fields.text("id")) or clean_id(state, row, sku)
    if not id:
        state.note("dropped", "a row without ID and SKU", row.place)
        return
    is_variation = "variation" in _entries(fields.text("type").casefold())
    own = f"sku:{sku}" if sku else f"id:{id}"
    parent = clean_sku(state, row, fields.text("parent"))
    key = (parent if parent.startswith("id:") else f"sku:{parent}") if is_variation and parent else own
    item = Item(id, fields.plain("name"), is_main=not is_variation, variant=sku or id)
    item.description = fields.plain("description") or fields.plain("short description")
    item.image_names = cells.image_names(fields.text("images"))
    categories = _entries(fields.text("categories"))
    item.category = cells.category_levels(categories[0]) if categories else []
    if len(categories) > 1:
        state.note("noted", "products in several categories, of which the first is used", f"{row.place}: {id}")
    add_price(state, row, item, fields.text("sale price") or fields.text("price"), decimal)
    item.hidden = _hidden(fields)
    _add_attributes(fields, columns, item)
    add_row(state, row, key, item, "variations, joined to their parent" if is_variation else "")


def _add_attributes(fields: Fields, columns: Mapping[str, str], item: Item) -> None:
    if tags := [cells.plain_text(tag) for tag in _entries(fields.text("tags"))]:
        item.attributes["tags"] = tags
    attribute(item, "brand", ", ".join(_entries(fields.plain("brands"))))
    stock = fields.text("in stock").casefold()
    if stock:
        item.attributes["in_stock"] = stock not in ("0", "no", "outofstock")
    for column in columns:
        name = fields.plain(column) if column.startswith("attribute ") and column.endswith(" name") else ""
        values = [cells.plain_text(value) for value in _entries(fields.text(f"{column.removesuffix('name')}value"))]
        if name and values:
            item.attributes[attribute_key(name)] = values if len(values) > 1 else values[0]


def _entries(text: str) -> list[str]:
    """The entries of a list, separated by commas without a backslash before them."""
    entries = (strip_text(part.replace("\\,", ",")) for part in re.split(r"(?<!\\),", text))
    return list(dict.fromkeys(entry for entry in entries if entry))


def _hidden(fields: Fields) -> str:
    if status := _UNPUBLISHED.get(fields.text("published")):
        return status
    return "hidden from catalog and search" if fields.text("visibility").casefold() == "hidden" else ""
