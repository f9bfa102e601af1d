"""WANDS: Wayfair's products with judged queries of people; titles without pictures.

Layout read in README.md and read_dataset.ipynb of github.com/wayfair/WANDS: dataset/product.csv, query.csv, label.csv,
separated by tabs; the notebook's header says "category hierarchy", with a space.
"""

from pathlib import Path

from make_jax.catalog.importers.import_state import About, Work
from make_jax.catalog.importers.rows import Row
from make_jax.catalog.importers.tables import Csv

GRADES = {"Exact": 2, "Partial": 1, "Irrelevant": 0}

ABOUT = About(
    name="wands",
    title="WANDS: Wayfair product search relevance",
    licence="MIT, as the repository states",
    provenance=(
        "Products of Wayfair with queries and judgements by people, from github.com/wayfair/WANDS. Grades: Exact 2, "
        "Partial 1, Irrelevant 0; Exact alone counts as relevant. The repository gives no gains, so a grade gains "
        "itself, and no split, so all is test. There are no pictures. Descriptions, features and ratings are left out."
    ),
    citation=(
        "Chen, Liu, Liu, Sun, Baltrunas, Schroeder: WANDS: Dataset for Product Search Relevance Assessment. ECIR 2022."
    ),
    attributes=("category",),
    relevant=2,
    pool="all",
)


def read(work: Work, source: Path) -> About:
    """Reads the repository, or its folder `dataset`."""
    folder = source / "dataset" if (source / "dataset").is_dir() else source
    work.each(
        Csv(folder / "product.csv", ("product_id", "product_name", "category hierarchy"), "\t"),
        lambda row: _product(work, row),
    )
    work.each(
        Csv(folder / "query.csv", ("query_id", "query", "query_class"), "\t"),
        lambda row: work.query(
            row, row.name("query_id"), "test", row.text("query"), kind="people", lang="en", asks=row.text("query_class")
        ),
    )
    work.each(
        Csv(folder / "label.csv", ("query_id", "product_id", "label"), "\t"),
        lambda row: work.judge(
            row, row.name("query_id"), row.name("product_id"), GRADES[row.one_of("label", tuple(GRADES))]
        ),
    )
    return ABOUT


def _product(work: Work, row: Row) -> None:
    levels = [level.strip() for level in row.text("category hierarchy").split("/") if level.strip()]
    work.product(row, row.name("product_id"), "test", row.needed("product_name"), None, category=levels)
