"""Shopping Queries (ESCI): Amazon products with human queries and judgements; images come from SQID.

The layout is taken from README.md of github.com/amazon-science/esci-data (shopping_queries_dataset_examples.parquet,
..._products.parquet) and, for the gains, from ranking/prepare_trec_eval_files.py: E 1, S 0.1, C 0.01, I 0. SQID's
product_image_urls.csv (product_id, image_url): README.md of github.com/Crossing-Minds/shopping-queries-image-dataset.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from make_jax.catalog.importers import esci_images
from make_jax.catalog.importers.benchmark_info import BenchmarkInfo
from make_jax.catalog.importers.import_state import ImportState
from make_jax.catalog.importers.rows import Row, hash_fraction
from make_jax.catalog.importers.tables import Parquet
from make_jax.catalog.schema import Split

GRADES = {"E": 3, "S": 2, "C": 1, "I": 0}
LANGUAGES = {"us": "en", "es": "es", "jp": "ja"}
VALIDATION = 0.05  # share of the training queries used for validation
EXAMPLES = ("query", "query_id", "product_id", "product_locale", "esci_label", "split")

INFO = BenchmarkInfo(
    name="esci",
    title="Shopping Queries (ESCI)",
    licence="Apache-2.0, as the repository states; SQID: MIT",
    provenance=(
        "Amazon products with human queries and judgements, from github.com/amazon-science/esci-data. Grades: Exact 3, "
        "Substitute 2, Complement 1, Irrelevant 0, with the gains 100, 10, 1, 0; only Exact counts as relevant. "
        "Products without a judgement of the chosen language and version are omitted. A product judged by a test query "
        "is in the split `test`, otherwise one judged by a validation query in `val`, the rest in `train`: no test "
        "product is used for training, which is stricter than the benchmark. Validation queries are 5 % of the "
        "published training queries, chosen by a hash of the id; their judgements of test products are kept but are "
        "outside the split. Clicks are the Exact judgements between training queries and training products. "
        "Descriptions and bullet points are omitted. Images, if any, are those of SQID."
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


def read(state: ImportState, source: Path, locale: str, version: str, images: Sequence[Path]) -> BenchmarkInfo:
    """Reads the repository or its folder shopping_queries_dataset, then images downloaded by img2dataset."""
    folder = source / "shopping_queries_dataset" if (source / "shopping_queries_dataset").is_dir() else source
    flag = f"{version}_version"
    state.read_table(
        Parquet([folder / "shopping_queries_dataset_examples.parquet"], (*EXAMPLES, flag)),
        lambda row: _judgement(state, row, locale, flag),
    )
    state.read_table(
        Parquet(
            [folder / "shopping_queries_dataset_products.parquet"],
            ("product_id", "product_title", "product_brand", "product_color", "product_locale"),
        ),
        lambda row: _product(state, row, locale),
    )
    for folder in images:
        for shard in esci_images.shards(folder, "product_id"):
            state.read_table(shard, lambda row: esci_images.add_image(state, row, "product_id"))
    state.run_once("clicks", lambda: state.add_clicks_from_judgements(3, LANGUAGES[locale]))
    return dataclasses.replace(INFO, name=f"esci-{locale}-{version}")


def _judgement(state: ImportState, row: Row, locale: str, flag: str) -> None:
    if row.choice("product_locale", tuple(LANGUAGES)) != locale or not row.non_negative_int(flag):
        return
    query, grade = row.id("query_id"), GRADES[row.choice("esci_label", tuple(GRADES))]
    published = row.choice("split", ("train", "test"))
    split: Split = (
        "test" if published == "test" else "val" if hash_fraction("esci val", query) < VALIDATION else "train"
    )
    if not state.has_query(query):
        state.add_query(row, query, split, row.text("query"), kind="people", lang=LANGUAGES[locale])
    state.add_judgement(row, query, row.id("product_id"), grade)


def _product(state: ImportState, row: Row, locale: str) -> None:
    if row.text("product_locale") != locale:
        return
    id = row.id("product_id")
    splits = state.splits_judging(id)
    if not splits:
        return
    split: Split = "test" if "test" in splits else "val" if "val" in splits else "train"
    brand, colour = row.text("product_brand"), row.text("product_color")
    state.add_product(row, id, split, row.required_text("product_title"), None, brand=brand, colour=colour)
