"""WANDS: Wayfair products with human queries and judgements; titles without images.

The layout is taken from README.md and read_dataset.ipynb of github.com/wayfair/WANDS: dataset/product.csv, query.csv,
label.csv, separated by tabs; the notebook's header has "category hierarchy" with a space.
"""

from pathlib import Path

from make_jax.catalog.importers.benchmark_info import BenchmarkInfo
from make_jax.catalog.importers.import_state import ImportState
from make_jax.catalog.importers.rows import Row
from make_jax.catalog.importers.tables import Csv
from make_jax.catalog.text import strip_text

GRADES = {"Exact": 2, "Partial": 1, "Irrelevant": 0}

INFO = BenchmarkInfo(
    name="wands",
    title="WANDS: Wayfair product search relevance",
    licence="MIT, as the repository states",
    provenance=(
        "Wayfair products with human queries and judgements, from github.com/wayfair/WANDS. Grades: Exact 2, Partial "
        "1, Irrelevant 0; only Exact counts as relevant. The repository defines no gains, so a gain is the grade, and "
        "no split, so everything is `test`. There are no images. Descriptions, features and ratings are omitted."
    ),
    citation=(
        "Chen, Liu, Liu, Sun, Baltrunas, Schroeder: WANDS: Dataset for Product Search Relevance Assessment. ECIR 2022."
    ),
    attributes=("category",),
    relevant=2,
    pool="all",
)


def read(state: ImportState, source: Path) -> BenchmarkInfo:
    """Reads the repository or its folder `dataset`."""
    folder = source / "dataset" if (source / "dataset").is_dir() else source
    state.read_table(
        Csv(folder / "product.csv", ("product_id", "product_name", "category hierarchy"), "\t"),
        lambda row: _product(state, row),
    )
    state.read_table(
        Csv(folder / "query.csv", ("query_id", "query", "query_class"), "\t"),
        lambda row: state.add_query(
            row, row.id("query_id"), "test", row.text("query"), kind="people", lang="en", asks=row.text("query_class")
        ),
    )
    state.read_table(
        Csv(folder / "label.csv", ("query_id", "product_id", "label"), "\t"),
        lambda row: state.add_judgement(
            row, row.id("query_id"), row.id("product_id"), GRADES[row.choice("label", tuple(GRADES))]
        ),
    )
    return INFO


def _product(state: ImportState, row: Row) -> None:
    levels = [text for level in row.text("category hierarchy").split("/") if (text := strip_text(level))]
    state.add_product(row, row.id("product_id"), "test", row.required_text("product_name"), None, category=levels)
