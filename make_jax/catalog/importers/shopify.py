"""Shopify: the CSV file of Products > Export, one row a variant or further image of a product.

The columns are taken from help.shopify.com/manual/products/import-export/using-csv: those of 2024 (Handle, Body (HTML),
Image Src) and their later names (URL handle, Description, Product image URL). Rows with one handle are one product, of
which only the first has the title and the names of options. Metafields are "Label (product.metafields.x.y)".
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

COLUMNS: dict[str, tuple[str, ...]] = {
    "handle": ("Handle", "URL handle"),
    "title": ("Title",),
    "body": ("Body (HTML)", "Description"),
    "vendor": ("Vendor",),
    "category": ("Product Category", "Standard Product Type", "Google Shopping / Google Product Category"),
    "type": ("Type", "Custom Product Type"),
    "tags": ("Tags",),
    "published": ("Published", "Published on online store"),
    "status": ("Status",),
    "sku": ("Variant SKU", "SKU"),
    "price": ("Variant Price", "Price"),
    "image": ("Image Src", "Product image URL"),
    "position": ("Image Position",),
    "variant image": ("Variant Image", "Variant image URL"),
    "gender": ("Google Shopping / Gender",),
    "age_group": ("Google Shopping / Age Group",),
    **{f"option {n} name": (f"Option{n} Name",) for n in (1, 2, 3)},
    **{f"option {n} value": (f"Option{n} Value",) for n in (1, 2, 3)},
}
# Columns that are known and not taken, by what they are for.
IGNORED = {
    r"(?:Price|Compare At Price|Compare-at price|Included) / .+": "of further markets, in currencies that the export "
    "does not state; `price` is that of the main market",
    r"(?:Variant )?Compare[ -]At Price": "the price before a discount",
    r"(?:Variant )?(?:Inventory .+|Fulfillment Service|Grams|Weight .+|Requires Shipping|Tax.*|Barcode)|Cost per item|"
    r"Charge tax|Continue selling .+|Gift Card": "stock, shipping, tax, codes and cost",
    r"SEO .+|Google Shopping / .+": "written for other search engines",
    r"Image Alt Text": "the title describes the picture",
    r"(?:Variant )?Unit price .+|Option\d Linked To": "how the shop shows a variant",
}
_EXPORT = "the CSV file of Shopify's Products > Export"
_METAFIELD = re.compile(r"(.+?)\s*\(product\.metafields\.[^)]*\)")
_LAST = 1_000_000  # position of images without one


def read(state: ImportState, options: argparse.Namespace) -> BenchmarkInfo:
    """Reads the export `options.source`."""
    opened = open_table(options.source, options.encoding)
    columns = find_columns(opened, COLUMNS, ("handle", "title"), _EXPORT)
    metafields = {name: match[1] for name in opened.columns if (match := _METAFIELD.fullmatch(name))}
    decimal = decimal_of(opened, [columns["price"]] if "price" in columns else [])
    taken = {*columns.values(), *metafields}
    state.run_once("columns", lambda: note_columns(state, opened, COLUMNS, taken, IGNORED))
    state.read_table(opened.table, partial(_row, state, columns, metafields, decimal))
    images = LocalImages(state.database, options.source.parent, options.images)
    attributes = add_products(state, images, options.drafts)
    return BenchmarkInfo(
        name=options.source.stem,
        title=f"Shopify products ({options.source.name})",
        licence="not stated by the source",
        provenance="A product export of Shopify. Variants of a product are joined; its id is the handle.",
        attributes=attributes,
        next_steps=download_steps(state),
    )


def _row(state: ImportState, columns: Mapping[str, str], metafields: Mapping[str, str], decimal: str, row: Row) -> None:
    if not any(value for value in row.values.values()):
        return
    fields = Fields(row, columns)
    handle = clean_id(state, row, fields.text("handle"))
    if not handle:
        state.note("dropped", "a row without a handle", row.place)
        return
    item = Item(handle, fields.plain("title"), fields.plain("body"), is_main=bool(fields.text("title")))
    item.image_names = [name for key in ("image", "variant image") if (name := fields.text(key))]
    position = fields.text("position")
    item.image_position = int(position) if position.isdecimal() and fields.text("image") else _LAST
    item.category = cells.category_levels(fields.text("category")) or cells.category_levels(fields.text("type"))
    item.variant = clean_sku(state, row, fields.text("sku"))
    add_price(state, row, item, fields.text("price"), decimal)
    item.hidden = _hidden(fields)
    for key in ("vendor", "type", "gender", "age_group"):
        attribute(item, key, fields.plain(key))
    if tags := cells.texts(fields.text("tags"), ","):
        item.attributes["tags"] = tags
    for column, label in metafields.items():
        if values := cells.texts(cells.plain_text(row.text(column)), ";"):
            item.attributes[attribute_key(label)] = values if len(values) > 1 else values[0]
    item.options = [_option(fields, number) for number in (1, 2, 3)]
    add_row(state, row, handle, item, "variants and further images, rows with the handle of an earlier row")


def _option(fields: Fields, number: int) -> list[str]:
    """Key and value of an option; the value is "" for the option of a product without variants."""
    name, value = fields.plain(f"option {number} name"), fields.plain(f"option {number} value")
    return [attribute_key(name) if name else "", "" if value == "Default Title" else value]


def _hidden(fields: Fields) -> str:
    """Why Shopify does not show a product; "" if it does, or for the further rows of one."""
    status = fields.text("status").casefold()
    if status and status != "active":
        return f"status {status}"
    return "not published" if cells.boolean(fields.text("published")) is False else ""
