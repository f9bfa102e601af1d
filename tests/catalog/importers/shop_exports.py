"""Writes exports as shop systems do, with what goes wrong in them.

python -m tests.catalog.importers.shop_exports FOLDER     the Shopify export of 300 products
"""

import csv
import sys
from pathlib import Path
from typing import Any

from tests.catalog.importers.published import encoded_image

SHOPIFY = [
    *("Handle", "Title", "Body (HTML)", "Vendor", "Product Category", "Type", "Tags", "Published", "Option1 Name"),
    *("Option1 Value", "Option2 Name", "Option2 Value", "Variant SKU", "Variant Price", "Image Src", "Image Position"),
    *("Status", "Color (product.metafields.shopify.color-pattern)"),
]
COLOURS = ("red", "blue", "olive green")
URL = "https://cdn.shopify.com/s/files/1/0001/products"
BROKEN, MISSING, DRAFT, NO_TITLE = 17, 23, 42, 99  # products
EUROS = range(100, 120)


def write_csv(path: Path, header: list[str], rows: list[dict[str, Any]], separator: str = ",") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, header, restval="", delimiter=separator)
        writer.writeheader()
        writer.writerows(rows)
    return path


def shopify(folder: Path, products: int = 300) -> tuple[Path, Path]:
    """products.csv and the folder of its images. Every product has a second image in a row of its own; two of three
    have three variants. Every tenth title has an apostrophe; a fifth of the prices has a comma; 20 are in euros."""
    rows: list[dict[str, Any]] = []
    (folder / "images").mkdir(parents=True)
    for number in range(products):
        rows += _product(number)
        data = b"<html>404</html>" if number == BROKEN else encoded_image(number)
        if number != MISSING:
            (folder / f"images/p{number}.jpg").write_bytes(data)
    return write_csv(folder / "products.csv", SHOPIFY, rows), folder / "images"


def _product(number: int) -> list[dict[str, Any]]:
    handle = f"'{number:05d}" if number % 50 == 5 else f"boots-{number}"
    title = f"Women's boots {number}" if number % 10 == 0 else f"Boots &amp; more {number}"
    amount = f"{1000 + number:,}.50" if number % 5 == 0 else f"{10 + number}.99"
    price = f"€{amount}" if number in EUROS else f"${amount}"
    first = {
        "Title": "" if number == NO_TITLE else title,
        "Body (HTML)": f"<p>Warm,\n<b>waterproof</b></p><ul><li>No. {number}</li></ul><script>x()</script>",
        "Vendor": f"O'Neill {number % 4}",
        "Product Category": "Apparel & Accessories > Shoes",
        "Type": "Boots",
        "Tags": "winter, sale" if number % 2 else "winter",
        "Published": "TRUE",
        "Status": "draft" if number == DRAFT else "active",
        "Color (product.metafields.shopify.color-pattern)": "red; blue",
        "Image Src": "" if number == NO_TITLE else f"{URL}/p{number}.jpg?v=17",
        "Image Position": 1,
    }
    variants = 1 if number % 3 == 0 else 3
    rows: list[dict[str, Any]] = []
    for variant in range(variants):
        option = {"Option1 Name": "Title", "Option1 Value": "Default Title"}
        if variants > 1:
            option = {"Option1 Name": "Colour", "Option1 Value": COLOURS[variant], "Option2 Value": str(40 + variant)}
            option |= {"Option2 Name": "Shoe size"}
        if variant:
            option |= {"Option1 Name": "", "Option2 Name": ""}
        rows.append({**option, "Variant SKU": f"'{number:04d}-{variant}", "Variant Price": price})
    rows[0] |= first
    if number != NO_TITLE:
        rows.append({"Image Src": f"{URL}/p{number}-back.jpg?v=17", "Image Position": 2})
    return [{"Handle": handle, **row} for row in rows]


if __name__ == "__main__":
    print(*shopify(Path(sys.argv[1])))
