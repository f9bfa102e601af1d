"""Fashion Product Images (Myntra): real products with merchants' labels; no queries are published with them.

Layouts read: styles.csv (id, gender, masterCategory, subCategory, articleType, baseColour, season, year, usage,
productDisplayName), images/<id>.jpg and styles/<id>.json ({"data": {"brandName", ...}}) in programs that read Kaggle's
paramaggarwal/fashion-product-images-dataset and -small, whose pages could not be read; commas in the last column of
styles.csv stand without quotes there. And the card of huggingface.co/datasets/ashraq/fashion-product-images-small:
the same columns and `image`, in data/train-*.parquet.
"""

import dataclasses
import json
from collections import Counter
from pathlib import Path

from make_jax.catalog.importers import fashion_queries, fashion_titles
from make_jax.catalog.importers.chance import digest, share
from make_jax.catalog.importers.import_state import About, Work
from make_jax.catalog.importers.rows import Row
from make_jax.catalog.importers.tables import Csv, Parquet, Table, shards
from make_jax.catalog.schema import Split

LABELS = ("gender", "masterCategory", "subCategory", "articleType", "baseColour", "season", "year", "usage")
COLUMNS = ("id", *LABELS, "productDisplayName")
BRAND_LEAST = 10  # products whose titles begin with the same words before a gender's word: the words are a brand

ABOUT = About(
    name="fashion",
    title="Fashion Product Images, Myntra",
    licence="MIT according to the uploader on Kaggle, who is not the photographer",
    provenance=(
        "Products scraped from Myntra, uploaded to Kaggle by Param Aggarwal (2019); copied to Hugging Face by others. "
        "Splits are 80 % train, 10 % val, 10 % test by a hash of the title in lower case, so that equal titles are in "
        "one split; unlike in make_jax's own catalogs of this data set, near-identical pictures are not looked for. "
        "`brand` is brandName of styles/<id>.json; where that is missing, the words of the title before the first word "
        f"for a gender, if at least {BRAND_LEAST} products share them. `sensitive` marks underwear and swimwear."
    ),
    citation="P. Aggarwal: Fashion Product Images Dataset, Kaggle, 2019.",
    attributes=("brand", "category", "colour", "gender", "usage"),
    relevant=3,
)


def read(work: Work, source: Path, sparse: bool, clicks: bool) -> About:
    """Reads Kaggle's folder, or the Hugging Face data set."""
    table: Table
    if (source / "styles.csv").exists():
        table = Csv(source / "styles.csv", COLUMNS, rest=True)
    else:
        table = Parquet(shards(source, "train"), (*COLUMNS, "image"))
    vocabulary = _vocabulary(table)
    work.each(table, lambda row: _product(work, row, source, vocabulary, sparse))
    if clicks:
        work.once("clicks", lambda: fashion_queries.add(work))
    name = "fashion-sparse" if sparse else "fashion"
    parts = [ABOUT.provenance, *([fashion_titles.PROVENANCE] if sparse else [])]
    parts.append(fashion_queries.PROVENANCE if clicks else "There are no queries and no clicks.")
    return dataclasses.replace(ABOUT, name=name, provenance="\n\n".join(parts))


def _vocabulary(table: Table) -> fashion_titles.Vocabulary:
    """The labels that occur, read in a first pass. What is wrong with rows is left to the second."""
    brands: Counter[str] = Counter()
    types: set[str] = set()
    colours: set[str] = set()
    for row in table.rows(0):
        values = [row.values.get(key) for key in ("productDisplayName", "articleType", "baseColour")]
        title, kind, colour = (value if isinstance(value, str) else "" for value in values)
        brands[fashion_titles.before_gender(title)] += 1
        types.add(kind)
        colours.add(colour)
    frequent = frozenset(brand for brand, count in brands.items() if brand and count >= BRAND_LEAST)
    return fashion_titles.Vocabulary.of(frequent, types, colours)


def _product(work: Work, row: Row, source: Path, vocabulary: fashion_titles.Vocabulary, sparse: bool) -> None:
    identity, title = row.name("id"), row.text("productDisplayName")
    picture = source / "images" / f"{identity}.jpg"
    image = row.picture("image") or (picture.read_bytes() if picture.is_file() else None)
    levels = [_label(row, key) for key in ("masterCategory", "subCategory", "articleType")]
    labels = {key: _label(row, column) for key, column in (("gender", "gender"), ("colour", "baseColour"))}
    labels |= {key: _label(row, key) for key in ("usage", "season", "year")}
    labels["brand"] = _brand(row, source / "styles" / f"{identity}.json") or vocabulary.brand(title)
    place = share("fashion split", title.lower())
    split: Split = "train" if place < 0.8 else "val" if place < 0.9 else "test"
    group = f"g-{digest(title.lower())}" if title else ""
    dropped: list[str] = []
    if sparse:
        shorter, dropped = vocabulary.shorten(title, identity, {**labels, "type": levels[-1]})
        title, dropped = (shorter, dropped) if shorter or image else (title, [])
    work.product(
        row,
        identity,
        split,
        title,
        image,
        category=[level for level in levels if level],
        **labels,
        group=group,
        sensitive=levels[1] == "Innerwear" or levels[2] == "Swimwear",
        dropped=dropped,
    )


def _label(row: Row, column: str) -> str:
    text = row.text(column)
    return "" if text == "NA" else text


def _brand(row: Row, path: Path) -> str:
    """brandName of a product's JSON file; "" when there is no such file."""
    if not path.is_file():
        return ""
    try:
        values = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise row.bad(f"styles/{path.name}: not JSON ({error}), expected one object") from None
    data = values.get("data") if isinstance(values, dict) else None
    if not isinstance(data, dict):
        raise row.bad(f'styles/{path.name}: no object "data", expected one')
    return Row(f"{row.place}: styles/{path.name}", data).text("brandName")
