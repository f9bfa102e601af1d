"""Marqo's evaluation sets of Google Shopping and Amazon: image retrieval by title and by category.

The layout is taken from the card of huggingface.co/datasets/Marqo/google-shopping-general-eval (image, item_ID, query,
title, position; split `data`, files data/data-*), and, also for Amazon, from README.md of
github.com/marqo-ai/marqo-ecommerce-embeddings (which columns are queries) and evals/eval_hf_datasets_v1.py of
github.com/marqo-ai/GCL (item_ID is unique). Ground truth: its gt_results/gs-title2image/gt_results.json,
{title + "_{!@#~}_": {item_ID: 1}}.
"""

import dataclasses
from pathlib import Path

from make_jax.catalog.importers.benchmark_info import BenchmarkInfo
from make_jax.catalog.importers.import_state import ImportState
from make_jax.catalog.importers.rows import Row, short_digest
from make_jax.catalog.importers.tables import JsonMembers, Parquet, shards
from make_jax.catalog.text import strip_text

TITLE_SUFFIX = "_{!@#~}_"  # appended to each title by the published evaluation

INFO = BenchmarkInfo(
    name="marqo",
    title="",
    licence="not stated on the cards",
    provenance=(
        "Products with a title and an image. Titles are hidden: the published evaluation retrieves images only. "
        "Queries of kind `title` are product titles; all products with that title are relevant. Queries of kind "
        "`category` (Google Shopping only) are the column `query`; all products with that value are relevant. The "
        "published evaluation draws 4,000 of each at random; with `--ground-truth` the title queries are those of its "
        "published file, otherwise every title is a query. The only grade is 1. Everything is in the split `test`."
    ),
    citation=("Zhu, Clark: Marqo Ecommerce Embeddings, 2024, https://github.com/marqo-ai/marqo-ecommerce-embeddings"),
    hide_title=True,
    pool="all",
)
TITLES = {
    "google-shopping": "Marqo's Google Shopping evaluation set",
    "amazon-products": "Marqo's Amazon products evaluation set",
}


def read(state: ImportState, source: Path, name: str, ground_truth: Path | None) -> BenchmarkInfo:
    """Reads the Parquet files of one of the two sets, and the ground truth of title queries if given."""
    categories = ("query",) if name == "google-shopping" else ()
    table = Parquet(shards(source, "data"), ("item_ID", "title", "image", *categories))
    state.read_table(table, lambda row: _product(state, row, ground_truth is None))
    if ground_truth is not None:
        state.read_table(JsonMembers(ground_truth), lambda row: _truth(state, row))
    return dataclasses.replace(INFO, name=name, title=TITLES[name])


def _product(state: ImportState, row: Row, title_queries: bool) -> None:
    id, title, image = row.id("item_ID"), row.required_text("title"), row.image_bytes("image")
    if image is None:
        raise row.value_error("image", "an image")
    state.add_product(row, id, "test", title, image)
    for kind, text in (("title", title if title_queries else ""), ("category", row.text("query"))):
        if text:
            _add_query(state, row, kind, text, [id])


def _truth(state: ImportState, row: Row) -> None:
    title = strip_text(row.text("key").removesuffix(TITLE_SUFFIX))
    relevant = [row.valid_unicode("key", key) for key in row.values if key != "key"]
    _add_query(state, row, "title", title, relevant)


def _add_query(state: ImportState, row: Row, kind: str, text: str, relevant: list[str]) -> None:
    query = f"{kind}-{short_digest(text)}"
    if not state.has_query(query):
        state.add_query(row, query, "test", text, kind=kind)
    for id in relevant:
        state.add_judgement(row, query, id, 1)
