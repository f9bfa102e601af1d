"""Shopping Queries (ESCI): Amazon's products with judged queries of people; pictures come from SQID.

Layout read in README.md of github.com/amazon-science/esci-data (shopping_queries_dataset_examples.parquet,
..._products.parquet) and, for the gains, in ranking/prepare_trec_eval_files.py there: E 1, S 0.1, C 0.01, I 0. SQID's
product_image_urls.csv (product_id, image_url): README.md of github.com/Crossing-Minds/shopping-queries-image-dataset.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from make_jax.catalog.importers import img2dataset
from make_jax.catalog.importers.chance import share
from make_jax.catalog.importers.import_state import About, Work
from make_jax.catalog.importers.rows import Row
from make_jax.catalog.importers.tables import Parquet
from make_jax.catalog.schema import Split

GRADES = {"E": 3, "S": 2, "C": 1, "I": 0}
LANGUAGES = {"us": "en", "es": "es", "jp": "ja"}
VALIDATION = 0.05  # share of the training queries that validate
EXAMPLES = ("query", "query_id", "product_id", "product_locale", "esci_label", "split")

ABOUT = About(
    name="esci",
    title="Shopping Queries (ESCI)",
    licence="Apache-2.0, as the repository states; SQID: MIT",
    provenance=(
        "Products of Amazon with queries and judgements of people, from github.com/amazon-science/esci-data. Grades: "
        "Exact 3, Substitute 2, Complement 1, Irrelevant 0, with the gains 100, 10, 1, 0; Exact alone counts as "
        "relevant. Products that no judgement of the chosen language and version names are left out. A product that a "
        "test query judges is in the split `test`; of the others those that a validation query judges are in `val`, "
        "the rest is `train`: no test product is trained on, which is stricter than the benchmark. Validation queries "
        "are 5 % of the published training queries, chosen by a hash of the id; a judgement of theirs that names a "
        "test product stays but is outside the split. Clicks are the Exact judgements between training queries and "
        "training products. Descriptions and bullet points are left out. Pictures, if any, are those of SQID."
    ),
    citation=(
        "Reddy et al.: Shopping Queries Dataset: A Large-Scale ESCI Benchmark for Improving Product Search, arXiv "
        "2206.06588; Al Ghossein, Chen, Tang: Shopping Queries Image Dataset (SQID), arXiv 2405.15190."
    ),
    attributes=("brand", "colour"),
    gains={0: 0.0, 1: 1.0, 2: 10.0, 3: 100.0},
    relevant=3,
    pool="judged",
)


def read(work: Work, source: Path, locale: str, version: str, images: Sequence[Path]) -> About:
    """Reads the repository, or its folder shopping_queries_dataset, then pictures that img2dataset fetched."""
    folder = source / "shopping_queries_dataset" if (source / "shopping_queries_dataset").is_dir() else source
    flag = f"{version}_version"
    work.each(
        Parquet([folder / "shopping_queries_dataset_examples.parquet"], (*EXAMPLES, flag)),
        lambda row: _judgement(work, row, locale, flag),
    )
    work.each(
        Parquet(
            [folder / "shopping_queries_dataset_products.parquet"],
            ("product_id", "product_title", "product_brand", "product_color", "product_locale"),
        ),
        lambda row: _product(work, row, locale),
    )
    for fetched in images:
        for shard in img2dataset.shards(fetched, "product_id"):
            work.each(shard, lambda row: img2dataset.add_picture(work, row, "product_id"))
    work.once("clicks", lambda: work.click_judged(3, LANGUAGES[locale]))
    return dataclasses.replace(ABOUT, name=f"esci-{locale}-{version}")


def _judgement(work: Work, row: Row, locale: str, flag: str) -> None:
    if row.one_of("product_locale", tuple(LANGUAGES)) != locale or not row.integer(flag):
        return
    query, grade = row.name("query_id"), GRADES[row.one_of("esci_label", tuple(GRADES))]
    published = row.one_of("split", ("train", "test"))
    split: Split = "test" if published == "test" else "val" if share("esci val", query) < VALIDATION else "train"
    if not work.has_query(query):
        work.query(row, query, split, row.text("query"), kind="people", lang=LANGUAGES[locale])
    work.judge(row, query, row.name("product_id"), grade)


def _product(work: Work, row: Row, locale: str) -> None:
    if row.text("product_locale") != locale:
        return
    identity = row.name("product_id")
    splits = work.judging_splits(identity)
    if not splits:
        return
    split: Split = "test" if "test" in splits else "val" if "val" in splits else "train"
    brand, colour = row.text("product_brand"), row.text("product_color")
    work.product(row, identity, split, row.needed("product_title"), None, brand=brand, colour=colour)
