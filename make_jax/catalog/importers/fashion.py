"""Fashion Product Images (Myntra): real products with merchants' labels, published without queries.

Sources of the layouts: styles.csv (id, gender, masterCategory, subCategory, articleType, baseColour, season, year,
usage, productDisplayName), images/<id>.jpg (or .jpeg, .png, .webp, in upper case too) and styles/<id>.json ({"data":
{"brandName", ...}}) in programs that read Kaggle's paramaggarwal/fashion-product-images-dataset and -small (Kaggle's
pages were not accessible); commas in the last column of styles.csv are not quoted. And the card of
huggingface.co/datasets/ashraq/fashion-product-images-small: the same columns and `image`, in data/train-*.parquet.
"""

import dataclasses
import json
from collections import Counter
from pathlib import Path
from typing import Any

from make_jax.catalog.importers import fashion_queries, fashion_titles
from make_jax.catalog.importers.benchmark_info import BenchmarkInfo
from make_jax.catalog.importers.fashion_titles import TitleVocabulary
from make_jax.catalog.importers.image_folder import ImageFolder
from make_jax.catalog.importers.import_state import ImportState
from make_jax.catalog.importers.rows import Row, hash_fraction, short_digest
from make_jax.catalog.importers.tables import Csv, Parquet, Table, shards
from make_jax.catalog.schema import Split
from make_jax.unique_json import DuplicateKeyError, object_of

LABELS = ("gender", "masterCategory", "subCategory", "articleType", "baseColour", "season", "year", "usage")
COLUMNS = ("id", *LABELS, "productDisplayName")
MIN_BRAND_PRODUCTS = 10  # whose titles share the words before a gender word; these words are then a brand

INFO = BenchmarkInfo(
    name="fashion",
    title="Fashion Product Images, Myntra",
    licence="MIT according to the uploader on Kaggle, who is not the photographer",
    provenance=(
        "Products scraped from Myntra, uploaded to Kaggle by Param Aggarwal (2019); also mirrored on Hugging Face. "
        "Splits are 80 % train, 10 % val, 10 % test by a hash of the title in lower case, so equal titles share a "
        "split; unlike make_jax's own catalogs of this dataset, near-duplicate images are not detected. "
        "`brand` is brandName of styles/<id>.json; if missing, the words of the title before the first gender "
        f"word, if at least {MIN_BRAND_PRODUCTS} products share them. `sensitive` marks underwear and swimwear."
    ),
    citation="P. Aggarwal: Fashion Product Images Dataset, Kaggle, 2019.",
    attributes=("brand", "category", "colour", "gender", "usage"),
    relevant=3,
)


def read(state: ImportState, source: Path, sparse: bool, clicks: bool) -> BenchmarkInfo:
    """Reads Kaggle's folder or the Hugging Face dataset."""
    table: Table
    if (source / "styles.csv").exists():
        table = Csv(source / "styles.csv", COLUMNS, join_excess=True)
    else:
        table = Parquet(shards(source, "train"), (*COLUMNS, "image"))
    vocabulary = _title_vocabulary(table)
    images = ImageFolder(source / "images")
    state.read_table(table, lambda row: _product(state, row, source, images, vocabulary, sparse))
    if clicks:
        state.run_once("clicks", lambda: fashion_queries.add_template_queries(state))
    name = "fashion-sparse" if sparse else "fashion"
    parts = [INFO.provenance, *([fashion_titles.PROVENANCE] if sparse else [])]
    parts.append(fashion_queries.PROVENANCE if clicks else "There are no queries and no clicks.")
    return dataclasses.replace(INFO, name=name, provenance="\n\n".join(parts))


def _title_vocabulary(table: Table) -> TitleVocabulary:
    """The labels of all rows, collected in a first pass; the second pass reports invalid rows."""
    brands: Counter[str] = Counter()
    types: set[str] = set()
    colours: set[str] = set()
    for row in table.rows(0):
        values = [row.values.get(key) for key in ("productDisplayName", "articleType", "baseColour")]
        title, kind, colour = (value if isinstance(value, str) else "" for value in values)
        brands[fashion_titles.words_before_gender(title)] += 1
        types.add(kind)
        colours.add(colour)
    frequent = frozenset(brand for brand, count in brands.items() if brand and count >= MIN_BRAND_PRODUCTS)
    return TitleVocabulary.from_labels(frequent, types, colours)


def _product(
    state: ImportState, row: Row, source: Path, images: ImageFolder, vocabulary: TitleVocabulary, sparse: bool
) -> None:
    id, title = row.id("id"), row.text("productDisplayName")
    image = row.image_bytes("image") or images.read(id)
    levels = [_label(row, key) for key in ("masterCategory", "subCategory", "articleType")]
    labels: dict[str, Any] = {
        key: _label(row, column) for key, column in (("gender", "gender"), ("colour", "baseColour"))
    }
    labels |= {key: _label(row, key) for key in ("usage", "season", "year")}
    labels["brand"] = _brand(row, source / "styles" / f"{id}.json") or vocabulary.brand(title)
    fraction = hash_fraction("fashion split", title.lower())
    split: Split = "train" if fraction < 0.8 else "val" if fraction < 0.9 else "test"
    group = f"g-{short_digest(title.lower())}" if title else ""
    dropped: list[str] = []
    if sparse:
        shorter, dropped = vocabulary.shorten(title, id, {**labels, "type": levels[-1]})
        title, dropped = (shorter, dropped) if shorter or image else (title, [])
    state.add_product(
        row,
        id,
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
    """brandName of a product's JSON file; "" without a file."""
    if not path.is_file():
        return ""
    try:
        values = json.loads(path.read_bytes(), object_pairs_hook=object_of)
    except DuplicateKeyError as error:
        raise row.error(f"styles/{path.name}: {error}") from None
    except (ValueError, RecursionError) as error:
        raise row.error(f"styles/{path.name}: not JSON ({error}), expected one object") from None
    data = values.get("data") if isinstance(values, dict) else None
    if not isinstance(data, dict):
        raise row.error(f'styles/{path.name}: no object "data", expected one')
    return Row(f"{row.place}: styles/{path.name}", data).text("brandName")
