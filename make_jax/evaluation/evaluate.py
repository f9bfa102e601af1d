"""One evaluation: a model and its baselines search for the judged queries of a split.

Systems: `random`, `bm25` (over titles), the model by `title` alone, by `image` alone, by both (`joint`), its main form
with the best re-ranked by the matching encoder (`joint+rerank`, where that is asked), and its main form joined with
BM25 (`joint+bm25`). What a model or a catalog cannot do is left out, and a note says so. Without a model the main
system is `bm25`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64

from make_jax.catalog.reader import Catalog
from make_jax.catalog.schema import Pool, Product, Split
from make_jax.errors import InputError
from make_jax.evaluation.baselines import random_ranking
from make_jax.evaluation.eval_split import EvalSplit
from make_jax.evaluation.metrics import Judgements, score_ranking
from make_jax.evaluation.search_pool import SearchPool
from make_jax.evaluation.slices import query_slices
from make_jax.evaluation.tuning import choose, choose_rerank
from make_jax.retrieval.embed import EmbeddingModel, PrecomputedVectors, Progress, no_progress
from make_jax.retrieval.rerank import check_can_match
from make_jax.retrieval.search import TopK, VectorIndex

_OF_STORED = (
    "Vectors of products are float16, kept on disk; of queries float32. "
    "Seconds of encoding are of those products whose vectors were missing."
)


@dataclass(frozen=True)
class Evaluation:
    """What every system found for every judged query, and what it is worth."""

    split: Split
    pool: Pool  # what the queries searched
    products: tuple[Product, ...]  # what was searched, N
    judgements: Judgements  # Q queries
    main: str  # the main system: joint, title or image where the model reads only that, bm25 where there is no model
    rankings: dict[str, TopK]  # of each system
    values: dict[str, dict[str, Float64[np.ndarray, "Q"]]]  # system -> metric -> value of each query
    slices: dict[str, Bool[np.ndarray, "Q"]]
    embeddings: VectorIndex | None  # of the main system, where it has vectors
    parameters: dict[str, Any]  # chosen ones, and how
    cost: dict[str, float | int]  # of the main system: EvalSplit.cost
    notes: tuple[str, ...]  # what a reader of the numbers must know

    @property
    def fused(self) -> str | None:
        """The name of the main system joined with BM25, if the catalog has titles to search."""
        name = f"{self.main}+bm25"
        return name if name in self.rankings else None

    @property
    def reranked(self) -> str | None:
        """The name of the main system with its best results re-ranked, if that was asked."""
        name = f"{self.main}+rerank"
        return name if name in self.rankings else None


def evaluate(
    model: EmbeddingModel | None,
    catalog: Catalog,
    split: Split = "test",
    *,
    pool: Pool | None = None,
    depth: int = 1000,
    rerank: int = 0,
    seed: int = 0,
    stored: Path | None = None,
    progress: Progress = no_progress,
) -> Evaluation:
    """Every system's rankings, `depth` deep, and metrics over the judged queries of `split`, searching `pool`.

    The pool is the catalog's own where it is None; without a model BM25 is evaluated alone. The best `rerank` products
    of each query are also re-ranked. BM25's k1 and b and all weights are chosen on the validation split, whichever
    split is reported. Raises InputError for a split without judged queries, a catalog without what the model reads, and
    a model that cannot re-rank when it is asked to.

    With `stored` the vectors of products lie below that folder, in float16, where those that are missing are made: they
    need not fit into memory (docs/embeddings.md).
    """
    matcher = check_can_match(model) if rerank else None
    side = EvalSplit(model, catalog, SearchPool.of(catalog, split, pool), progress, stored=stored)
    judgements, products = side.searched.judgements, side.searched.products
    _expect_queries(side, catalog, split, model)
    notes = _notes_of_pool(side.searched, catalog)
    val = side
    if split != "val":
        val = EvalSplit(model, catalog, SearchPool.of(catalog, "val", pool), progress, like=side, stored=stored)
    parameters = choose(side, val, notes, progress)
    rankings = {"random": random_ranking(len(side.texts), len(products), depth, seed, side.searched.allowed)}
    if side.lexical:
        rankings["bm25"] = side.bm25.search(side.texts, depth, side.searched.allowed)
    else:
        notes.append("No BM25 and no title search: the catalog has no titles or hides them, because they are labels.")
    if "image" not in side.present:
        notes.append("No image search: the catalog has no pictures.")
    name = "bm25"
    if model is not None:
        name = {"both": "joint", "title": "title", "image": "image"}[side.main or "both"]
        rankings |= _by_one_modality(model, side, depth, notes)
        rankings[name] = side.search(depth)
        _note_absent(side.embeddings(), name, notes)
        if matcher is not None:
            reranked, how = choose_rerank(matcher, side, val, rankings[name], rerank, notes, progress)
            rankings[f"{name}+rerank"], parameters["rerank"] = reranked, how
        if side.lexical:
            weight = parameters["fusion"]["weight"]
            rankings[f"{name}+bm25"] = side.fusion().rankings([weight], depth, progress)[0]
    if stored is not None and model is not None:
        notes.append(_OF_STORED)
    _note_judgements(judgements, catalog, depth, len(products), notes)
    values = _score(rankings, judgements, progress)
    return Evaluation(
        split=split,
        pool=side.searched.pool,
        products=products,
        judgements=judgements,
        main=name,
        rankings=rankings,
        values=values,
        slices=query_slices(judgements.queries, products, catalog.clicks, catalog.info.relevant),
        embeddings=None if model is None else side.embeddings(),
        parameters=parameters | {"depth": depth, "random_seed": seed},
        cost=side.cost(),
        notes=tuple(notes),
    )


def _expect_queries(side: EvalSplit, catalog: Catalog, split: Split, model: EmbeddingModel | None) -> None:
    """InputError when there is nothing to evaluate, or nothing to evaluate it by."""
    if not side.searched.judgements.queries:
        raise InputError(
            f"{catalog.path}: split {split!r} has no query with a relevant product (grade {catalog.info.relevant} or "
            "more) among the products searched; judge some in queries.jsonl or choose another --split or --pool"
        )
    if model is None and not side.lexical:
        raise InputError(f"{catalog.path}: its products have no titles, which is all that BM25 reads")


def _score(
    rankings: dict[str, TopK], judgements: Judgements, progress: Progress
) -> dict[str, dict[str, Float64[np.ndarray, "Q"]]]:
    """The metrics of each system, by query."""
    values = {}
    for done, (system, ranking) in enumerate(rankings.items(), start=1):
        values[system] = score_ranking(ranking, judgements)
        progress("metrics", done, len(rankings))
    return values


def embed_all(
    model: EmbeddingModel,
    catalog: Catalog,
    split: Split,
    stored: Path,
    *,
    pool: Pool | None = None,
    progress: Progress = no_progress,
) -> None:
    """Makes all vectors below `stored` that `evaluate` of the split reads, and of validation where it has queries."""
    side = EvalSplit(model, catalog, SearchPool.of(catalog, split, pool), progress, stored=stored)
    side.embeddings()
    if side.main == "both":
        for modality in side.present:
            side.embeddings(modality)
    val = EvalSplit(model, catalog, SearchPool.of(catalog, "val", pool), progress, like=side, stored=stored)
    if val.searched.judgements.queries:
        val.embeddings()


def _by_one_modality(model: EmbeddingModel, side: EvalSplit, depth: int, notes: list[str]) -> dict[str, TopK]:
    """What the same model finds by titles alone and by pictures alone, where it reads both."""
    rankings: dict[str, TopK] = {}
    if side.main != "both" or isinstance(model, PrecomputedVectors):
        return rankings
    for modality in side.present:
        rankings[modality] = side.search(depth, modality)
        _note_absent(side.embeddings(modality), f"by {modality} alone", notes)
    return rankings


def _notes_of_pool(searched: SearchPool, catalog: Catalog) -> list[str]:
    """Says what is searched where it is not the split."""
    if searched.pool == "all":
        trained = sum(product.split == "train" for product in searched.products)
        also = f"; {trained:,} of them are of the split train, so a model may have learnt from them" if trained else ""
        return [f"Queries search all {len(searched.products):,} products of the catalog{also}."]
    if searched.pool == "judged":
        judged = [len(rel) for rel in searched.judgements.qrels.values()]
        mean = sum(judged) / max(len(judged), 1)
        return [f"Each query orders only the products that it judges, {mean:.1f} on average: no search of a catalog."]
    return []


def _note_absent(embeddings: VectorIndex, how: str, notes: list[str]) -> None:
    """Says how many products a system cannot find."""
    if n := int(embeddings.absent.sum()):
        notes.append(f"{n} of {len(embeddings.weights)} products cannot be found {how}: they lack it.")


def _note_judgements(judgements: Judgements, catalog: Catalog, depth: int, products: int, notes: list[str]) -> None:
    """Says what was left out of the metrics and where they stop."""
    if n := len(judgements.without_positive):
        notes.append(
            f"{n} queries have no product of grade {catalog.info.relevant} or more to find; "
            "they are left out of all metrics."
        )
    if judgements.outside:
        notes.append(f"{judgements.outside} judgements are of products that are not searched; they are left out.")
    if depth < products:
        notes.append(f"Rankings are {depth} deep: MAP counts what lies deeper as not found.")
