"""Marqo's evaluation sets of Google Shopping and Amazon: pictures found by title, and by category.

Layout read on the card of huggingface.co/datasets/Marqo/google-shopping-general-eval (image, item_ID, query, title,
position; split `data`, files data/data-*), and, for Amazon too, in README.md of
github.com/marqo-ai/marqo-ecommerce-embeddings (which columns are asked with) and evals/eval_hf_datasets_v1.py of
github.com/marqo-ai/GCL (item_ID is unique). Ground truth: gt_results/gs-title2image/gt_results.json there,
{title + "_{!@#~}_": {item_ID: 1}}.
"""

import dataclasses
from pathlib import Path

from make_jax.catalog.importers.chance import digest
from make_jax.catalog.importers.import_state import About, Work
from make_jax.catalog.importers.rows import Row
from make_jax.catalog.importers.tables import JsonMembers, Parquet, shards

END = "_{!@#~}_"  # what the published evaluation puts behind each title

ABOUT = About(
    name="marqo",
    title="",
    licence="not stated on the cards",
    provenance=(
        "Products with a title and a picture. Titles are hidden: the published evaluation finds pictures alone. "
        "Queries of kind `title` are products' own titles, whose answers are all products of that title; queries of "
        "kind `category` (Google Shopping only) are the column `query`, whose answers are all products of that value. "
        "The published evaluation asks 4,000 of each that it draws at random; with `--ground-truth` the title queries "
        "are those of its published file, else every one is asked. Grade 1 is the only one. All is test."
    ),
    citation=("Zhu, Clark: Marqo Ecommerce Embeddings, 2024, https://github.com/marqo-ai/marqo-ecommerce-embeddings"),
    hide_title=True,
    pool="all",
)
TITLES = {
    "google-shopping": "Marqo's Google Shopping evaluation set",
    "amazon-products": "Marqo's Amazon products evaluation set",
}


def read(work: Work, source: Path, name: str, ground_truth: Path | None) -> About:
    """Reads the Parquet files of one of the two, and the ground truth of titles if given."""
    categories = ("query",) if name == "google-shopping" else ()
    table = Parquet(shards(source, "data"), ("item_ID", "title", "image", *categories))
    work.each(table, lambda row: _product(work, row, ground_truth is None))
    if ground_truth is not None:
        work.each(JsonMembers(ground_truth), lambda row: _truth(work, row))
    return dataclasses.replace(ABOUT, name=name, title=TITLES[name])


def _product(work: Work, row: Row, ask_titles: bool) -> None:
    identity, title, image = row.name("item_ID"), row.needed("title"), row.picture("image")
    if image is None:
        raise row.wrong("image", "a picture")
    work.product(row, identity, "test", title, image)
    for kind, text in (("title", title if ask_titles else ""), ("category", row.text("query"))):
        if text:
            _ask(work, row, kind, text, [identity])


def _truth(work: Work, row: Row) -> None:
    title = row.text("key").removesuffix(END).strip()
    answers = [row.unicode("key", key) for key in row.values if key != "key"]
    _ask(work, row, "title", title, answers)


def _ask(work: Work, row: Row, kind: str, text: str, answers: list[str]) -> None:
    query = f"{kind}-{digest(text)}"
    if not work.has_query(query):
        work.query(row, query, "test", text, kind=kind)
    for identity in answers:
        work.judge(row, query, identity, 1)
