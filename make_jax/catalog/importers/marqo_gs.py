"""Marqo-GS-10M: Google Shopping results with their ranks as graded judgements, in four parts.

The layouts are taken from README.md, scripts/eval-vitb32-ckpt.sh, scripts/change_*image_paths.py and
evals/eval_gs_v1.py of github.com/marqo-ai/GCL (query_<0|1>_product_id_<0|1>.csv with query, product_id, score_linear;
corpus_<1|2>.json, {product id: {title, image_local}}; images in a separate folder), and from the card of
huggingface.co/datasets/Marqo/marqo-GS-10M (in_domain, novel_query, novel_document, zero_shot in data/<part>-*.parquet,
images inside).
"""

import dataclasses
from functools import partial
from pathlib import Path, PurePosixPath

from make_jax.catalog.importers.benchmark_info import BenchmarkInfo
from make_jax.catalog.importers.image_folder import ImageFolder
from make_jax.catalog.importers.import_state import ImportState
from make_jax.catalog.importers.rows import Row, short_digest
from make_jax.catalog.importers.tables import Csv, JsonMembers, Parquet, shards
from make_jax.catalog.schema import Split
from make_jax.errors import InputError

COLUMNS = ("query", "product_id", "score_linear")

INFO = BenchmarkInfo(
    name="marqo-gs",
    title="Marqo-GS-10M",
    licence="Apache-2.0, as the card states",
    provenance=(
        "Google Shopping: queries with up to 100 products each; the first has the score 100, the last 1. The score is "
        "the grade and the gain, as in the published evaluation; every listed product counts as relevant. "
        "Products of the first corpus are `train`, of the second `test`, and so are the queries that search them: "
        "evaluate the kinds `in-domain` and `novel-query` with `--split train`, `novel-document` and `zero-shot` with "
        "`--split test`. The clicks are all in-domain pairs, as the benchmark defines training. There is no validation "
        "split. Queries are identified by their text, as in the published evaluation. The published gt_dev, gt_test "
        "and queries files are not read: no source documents their layout."
    ),
    citation="Zhu et al.: Generalized Contrastive Learning for Multi-Modal Retrieval and Ranking, arXiv 2404.08535.",
)


@dataclasses.dataclass(frozen=True)
class Part:
    """One of the four sets of pairs."""

    kind: str
    csv: str
    parquet: str
    corpus: str
    split: Split


PARTS = (
    Part("in-domain", "query_0_product_id_0.csv", "in_domain", "corpus_1.json", "train"),
    Part("novel-query", "query_1_product_id_0.csv", "novel_query", "corpus_1.json", "train"),
    Part("novel-document", "query_0_product_id_1.csv", "novel_document", "corpus_2.json", "test"),
    Part("zero-shot", "query_1_product_id_1.csv", "zero_shot", "corpus_2.json", "test"),
)


def read(state: ImportState, source: Path, images: Path | None) -> BenchmarkInfo:
    """Reads a folder such as marqo_gs_wfash_1m with its images in `images`, or the Hugging Face dataset."""
    if (source / PARTS[0].csv).exists():
        if images is None or not images.is_dir():
            raise InputError(f"{images}: no folder of images, expected images_wfash or the like (option --images)")
        folder = ImageFolder(images)
        for part in PARTS[::2]:
            state.read_table(JsonMembers(source / part.corpus), partial(_document, state, part=part, images=folder))
        for part in PARTS:
            state.read_table(Csv(source / part.csv, COLUMNS), partial(_pair, state, part=part))
        return dataclasses.replace(INFO, name=source.resolve().name)
    for part in PARTS:
        table = Parquet(shards(source, part.parquet), (*COLUMNS, "title", "image"))
        table.name = part.parquet
        state.read_table(table, partial(_result, state, part=part))
    return INFO


def _document(state: ImportState, row: Row, part: Part, images: ImageFolder) -> None:
    """A member of a corpus file. Only the file name of an image path is used: its folders are the publisher's."""
    name = PurePosixPath(row.text("image_local")).name
    data = images.read(name) if name else None
    state.add_product(row, row.id("key"), part.split, row.text("title"), data)


def _result(state: ImportState, row: Row, part: Part) -> None:
    """A row of the Hugging Face dataset, which has one row for each pair of a query and a product."""
    id = row.id("product_id")
    split = state.product_split(id)
    if split not in (None, part.split):
        raise row.error(f"product {id} is in the other corpus too, expected it in one")
    if split is None:
        state.add_product(row, id, part.split, row.text("title"), row.image_bytes("image"))
    _pair(state, row, part)


def _pair(state: ImportState, row: Row, part: Part) -> None:
    text, product, grade = row.required_text("query"), row.id("product_id"), row.non_negative_int("score_linear")
    query = f"{part.kind}-{short_digest(text)}"
    if not state.has_query(query):
        state.add_query(row, query, part.split, text, kind=part.kind, lang="en")
    state.add_judgement(row, query, product, grade)
    if part.kind == "in-domain":
        state.add_click(row, text, product, "en")
