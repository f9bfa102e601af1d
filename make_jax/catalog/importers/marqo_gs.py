"""Marqo-GS-10M: Google Shopping results with their ranks as graded judgements, in four parts.

Layouts read in README.md, scripts/eval-vitb32-ckpt.sh, scripts/change_*image_paths.py and evals/eval_gs_v1.py of
github.com/marqo-ai/GCL (query_<0|1>_product_id_<0|1>.csv with query, product_id, score_linear; corpus_<1|2>.json,
{product id: {title, image_local}}; pictures in a folder of their own), and on the card of
huggingface.co/datasets/Marqo/marqo-GS-10M (in_domain, novel_query, novel_document, zero_shot in data/<part>-*.parquet,
pictures inside).
"""

import dataclasses
from functools import partial
from pathlib import Path, PurePosixPath

from make_jax.catalog.importers.chance import digest
from make_jax.catalog.importers.import_state import About, Work
from make_jax.catalog.importers.rows import Row
from make_jax.catalog.importers.tables import Csv, JsonMembers, Parquet, shards
from make_jax.catalog.schema import Split
from make_jax.errors import InputError

COLUMNS = ("query", "product_id", "score_linear")

ABOUT = About(
    name="marqo-gs",
    title="Marqo-GS-10M",
    licence="Apache-2.0, as the card states",
    provenance=(
        "Google Shopping: queries with up to 100 products each; the first has the score 100, the last 1. The score is "
        "the grade and gains itself, as in the published evaluation; any product that was shown counts as relevant. "
        "Products of the first corpus are `train`, of the second `test`, and so are the queries that search them: "
        "kinds `in-domain` and `novel-query` are asked with `--split train`, `novel-document` and `zero-shot` with "
        "`--split test`. All in-domain pairs are the clicks, as the benchmark defines training. There is no validation "
        "split. A query is told by its text, as in the published evaluation. The published gt_dev, gt_test and queries "
        "files are not read: their layout could not be read in any source."
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


def read(work: Work, source: Path, images: Path | None) -> About:
    """Reads a folder such as marqo_gs_wfash_1m with its pictures in `images`, or the Hugging Face data set."""
    if (source / PARTS[0].csv).exists():
        if images is None or not images.is_dir():
            raise InputError(f"{images}: no folder of pictures, expected images_wfash or the like (option --images)")
        for part in PARTS[::2]:
            work.each(JsonMembers(source / part.corpus), partial(_document, work, part=part, images=images))
        for part in PARTS:
            work.each(Csv(source / part.csv, COLUMNS), partial(_pair, work, part=part))
        return dataclasses.replace(ABOUT, name=source.resolve().name)
    for part in PARTS:
        table = Parquet(shards(source, part.parquet), (*COLUMNS, "title", "image"))
        table.name = part.parquet
        work.each(table, partial(_result, work, part=part))
    return ABOUT


def _document(work: Work, row: Row, part: Part, images: Path) -> None:
    """A member of a corpus file. Paths of pictures begin as the publishers' did: only the file's name counts."""
    name = PurePosixPath(row.text("image_local")).name
    image = images / name
    data = image.read_bytes() if name and image.is_file() else None
    work.product(row, row.name("key"), part.split, row.text("title"), data)


def _result(work: Work, row: Row, part: Part) -> None:
    """A row of the Hugging Face data set, where a product stands once for each query that shows it."""
    identity = row.name("product_id")
    split = work.split_of(identity)
    if split not in (None, part.split):
        raise row.bad(f"product {identity} is of the other corpus too, expected it in one")
    if split is None:
        work.product(row, identity, part.split, row.text("title"), row.picture("image"))
    _pair(work, row, part)


def _pair(work: Work, row: Row, part: Part) -> None:
    text, product, grade = row.needed("query"), row.name("product_id"), row.integer("score_linear")
    query = f"{part.kind}-{digest(text)}"
    if not work.has_query(query):
        work.query(row, query, part.split, text, kind=part.kind, lang="en")
    work.judge(row, query, product, grade)
    if part.kind == "in-domain":
        work.click(row, text, product, "en")
