"""One evaluation: a model and its baselines rank products for the judged queries of a split.

Systems: `random`, `bm25` (over titles), the model by `title` alone, by `image` alone, by both (`joint`), and its main
system with the top results re-ranked by the matching encoder (`joint+rerank`, on request) and fused with BM25
(`joint+bm25`, where validation queries tune its weight). Systems that the model or the catalog does not support are
left out, and a note states so: where the products searched have titles alone, or images alone, the main system is
`title` or `image`. Without a model the main system is `bm25`.
"""

from collections.abc import Sequence
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
from make_jax.evaluation.metrics import Judgements, min_depth, score_ranking
from make_jax.evaluation.search_pool import SearchPool
from make_jax.evaluation.slices import query_slices
from make_jax.evaluation.training_overlap import training_notes
from make_jax.evaluation.tuning import tune, tune_rerank
from make_jax.report_tables import system_name
from make_jax.retrieval.embed import EmbeddingModel, PrecomputedVectors
from make_jax.retrieval.ray_devices import RayDevices
from make_jax.retrieval.rerank import check_can_match
from make_jax.retrieval.top_k import Progress, TopK, no_progress
from make_jax.retrieval.vector_index import VectorIndex

_DISK_VECTORS_NOTE = (
    "Product vectors are float16, kept on disk; query vectors are float32. "
    "Seconds of encoding cover the products whose vectors were missing."
)


@dataclass(frozen=True)
class Evaluation:
    """The ranking of every system for every judged query, and its metrics."""

    split: Split
    pool: Pool  # what the queries searched
    products: Sequence[Product]  # searched, N
    judgements: Judgements  # Q queries
    main: str  # the main system: joint, title or image where the model reads only that, bm25 without a model
    rankings: dict[str, TopK]  # of each system, deep enough for the metrics
    depth: int  # of the rankings in the run files
    values: dict[str, dict[str, Float64[np.ndarray, "Q"]]]  # system -> metric -> value of each query
    slices: dict[str, Bool[np.ndarray, "Q"]]
    embeddings: VectorIndex | None  # of the main system, where it has vectors
    parameters: dict[str, Any]  # the tuned ones, and how they were tuned
    cost: dict[str, float | int]  # of the main system: EvalSplit.cost
    notes: tuple[str, ...]  # caveats of the numbers

    @property
    def fused(self) -> str | None:
        """The name of the main system fused with BM25, if there are titles to search and the weight was tuned."""
        name = f"{self.main}+bm25"
        return name if name in self.rankings else None

    @property
    def reranked(self) -> str | None:
        """The name of the main system with its top results re-ranked, if requested."""
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
    vectors_folder: Path | None = None,
    devices: RayDevices | None = None,
    progress: Progress = no_progress,
) -> Evaluation:
    """Rankings and metrics of every system over the judged queries of `split`.

    BM25's k1 and b and all weights are tuned on the validation split, whichever split is reported.

    Args:
        model: None evaluates BM25 alone.
        split: whose judged queries in `catalog` are reported.
        pool: what they search; None: the catalog's own pool.
        depth: products per query in the run files; rankings, and so the metrics, are at least `min_depth` deep.
        rerank: the top products of each query that the matching encoder re-ranks; 0: none.
        seed: of the random baseline.
        vectors_folder: keeps product vectors on disk, in float16 (docs/embeddings.md); None: in memory.
        devices: of a Ray cluster, which embed the products whose vectors are missing in the folder.
        progress: called as each stage advances.

    Raises:
        InputError: the split has no judged query, the catalog lacks what the model reads, or the model cannot re-rank.
    """
    if rerank:
        check_can_match(model)
    reported, val = _open_splits(model, catalog, split, pool, progress, vectors_folder, devices)
    search_pool = reported.search_pool
    _check_queries(reported, catalog, split, model)
    notes = [*_pool_notes(search_pool), *training_notes(model, catalog, search_pool)]
    parameters = tune(reported, val, notes, progress)
    rankings, main = _baseline_rankings(reported, ranked := max(depth, min_depth()), seed, notes), "bm25"
    if model is not None:
        main = {"both": "joint", "title": "title", "image": "image"}[reported.main or "both"]
        rankings |= _model_rankings(model, main, reported, val, ranked, rerank, parameters, notes, progress)
    notes += [] if vectors_folder is None or model is None else [_DISK_VECTORS_NOTE]
    judgements, products = search_pool.judgements, search_pool.products
    _note_judgements(judgements, catalog, ranked, depth, len(products), notes)
    return Evaluation(
        split=split,
        pool=search_pool.pool,
        products=products,
        judgements=judgements,
        main=main,
        rankings=rankings,
        depth=depth,
        values=_score(rankings, judgements, progress),
        slices=query_slices(judgements.queries, products, catalog.clicks, catalog.info.relevant),
        embeddings=None if model is None else reported.index(),
        parameters=parameters | {"depth": depth, "random_seed": seed},
        cost=reported.cost(),
        notes=tuple(notes),
    )


def embed_all(
    model: EmbeddingModel,
    catalog: Catalog,
    split: Split,
    vectors_folder: Path,
    *,
    pool: Pool | None = None,
    devices: RayDevices | None = None,
    progress: Progress = no_progress,
) -> None:
    """Embeds below `vectors_folder` all vectors that `evaluate` of the split and its tuning on validation read."""
    reported, val = _open_splits(model, catalog, split, pool, progress, vectors_folder, devices)
    reported.index()
    if reported.main == "both":
        for modality in reported.modalities:
            reported.index(modality)
    if val.search_pool.judgements.queries:
        val.index()


def _open_splits(
    model: EmbeddingModel | None,
    catalog: Catalog,
    split: Split,
    pool: Pool | None,
    progress: Progress,
    vectors_folder: Path | None,
    devices: RayDevices | None,
) -> tuple[EvalSplit, EvalSplit]:
    """The split that is reported and the validation split: the same object where that is reported."""
    searched = SearchPool.of(catalog, split, pool)
    reported = EvalSplit(model, catalog, searched, progress, None, vectors_folder, devices)
    if split == "val":
        return reported, reported
    search_pool = SearchPool.of(catalog, "val", pool)
    return reported, EvalSplit(model, catalog, search_pool, progress, reported, vectors_folder, devices)


def _check_queries(reported: EvalSplit, catalog: Catalog, split: Split, model: EmbeddingModel | None) -> None:
    """Raises InputError when there is no query to evaluate, or BM25 alone has no titles."""
    if not catalog.queries:
        instead = "write some to queries.jsonl, or search with make_jax.Retriever"
        raise InputError(f"{catalog.path}: no judged queries, expected some to evaluate on; {instead}")
    if not reported.search_pool.judgements.queries:
        raise InputError(
            f"{catalog.path}: split {split!r} has no query with a relevant product (grade {catalog.info.relevant} or "
            "more) among the products searched; judge some in queries.jsonl or choose another --split or --pool"
        )
    if model is None and not reported.has_titles:
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


def _baseline_rankings(reported: EvalSplit, depth: int, seed: int, notes: list[str]) -> dict[str, TopK]:
    """The rankings of chance and of BM25."""
    allowed, products = reported.search_pool.allowed, len(reported.search_pool.products)
    rankings = {"random": random_ranking(len(reported.texts), products, depth, seed, allowed)}
    if reported.has_titles:
        rankings["bm25"] = reported.bm25.search(reported.texts, depth, allowed)
    else:
        notes.append("No BM25 and no title search: the catalog has no titles or hides them, because they are labels.")
    if "image" not in reported.modalities:
        notes.append("No image search: the products searched have no pictures.")
    return rankings


def _note_single_modality(model: EmbeddingModel, main: str, catalog: Catalog, notes: list[str]) -> None:
    """Notes why a model of titles and images has one row instead of three."""
    if model.modalities == "both" and main != "joint":
        lack = "have no images" if main == "title" else "have no titles"
        lack = "have hidden titles" if catalog.info.hide_title else lack
        notes.append(
            f"The model reads titles and images, and the products searched {lack}: its search by both is that by "
            f"{main} alone, shown once, as {system_name(main)}."
        )


def _model_rankings(
    model: EmbeddingModel,
    main: str,
    reported: EvalSplit,
    val: EvalSplit,
    depth: int,
    rerank: int,
    parameters: dict[str, Any],
    notes: list[str],
    progress: Progress,
) -> dict[str, TopK]:
    """The rankings of the model's systems; `main` names the main one. Adds the tuning of re-ranking to `parameters`."""
    _note_single_modality(model, main, reported.catalog, notes)
    rankings = _single_modality_rankings(model, reported, depth, notes)
    rankings[main] = reported.search(depth)
    _note_absent(reported.index(), main, notes)
    if rerank:
        matcher = check_can_match(model)
        reranked, tuned = tune_rerank(matcher, reported, val, rankings[main], rerank, notes, progress)
        rankings[f"{main}+rerank"], parameters["rerank"] = reranked, tuned
    if "fusion" in parameters:
        weight = parameters["fusion"]["weight"]
        rankings[f"{main}+bm25"] = reported.fusion().rankings([weight], depth, progress)[0]
    return rankings


def _single_modality_rankings(
    model: EmbeddingModel, reported: EvalSplit, depth: int, notes: list[str]
) -> dict[str, TopK]:
    """The rankings of a model of both modalities by titles alone and by images alone."""
    rankings: dict[str, TopK] = {}
    if reported.main != "both" or isinstance(model, PrecomputedVectors):
        return rankings
    for modality in reported.modalities:
        rankings[modality] = reported.search(depth, modality)
        _note_absent(reported.index(modality), f"by {modality} alone", notes)
    return rankings


def _pool_notes(search_pool: SearchPool) -> list[str]:
    """Notes on a pool other than the split's products."""
    if search_pool.pool == "all":
        return [f"Queries search all {len(search_pool.products):,} products of the catalog."]
    if search_pool.pool == "judged":
        judged = [len(rel) for rel in search_pool.judgements.qrels.values()]
        mean = sum(judged) / max(len(judged), 1)
        return [f"Each query orders only the products that it judges, {mean:.1f} on average: no search of a catalog."]
    return []


def _note_absent(index: VectorIndex, how: str, notes: list[str]) -> None:
    """Notes how many products a system cannot find."""
    if n := int(index.absent.sum()):
        notes.append(f"{n} of {len(index.weights)} products cannot be found {how}: they lack it.")


def _note_judgements(
    judgements: Judgements, catalog: Catalog, depth: int, run_depth: int, products: int, notes: list[str]
) -> None:
    """Notes what the metrics leave out, and what the run files do."""
    relevant, left_out = catalog.info.relevant, set(judgements.without_positive)
    if left_out:
        judged = [query for query in catalog.queries if query.id in left_out]
        elsewhere = sum(any(grade >= relevant for grade in query.rel.values()) for query in judged)
        more = f"; {elsewhere:,} of them have one among products that are not searched" if elsewhere else ""
        notes.append(
            f"{len(left_out):,} queries have no product of grade {relevant} or more to find{more}; "
            "they are left out of all metrics."
        )
    if judgements.outside:
        note = f"{judgements.outside:,} judgements are of products that are not searched; they are left out"
        notes.append(f'{note} (--pool all, or "pool": "all" in catalog.json, searches all products).')
    if judgements.exact_gains is not None:
        notes.append("trec_eval has no gains like those of catalog.json: nDCG is not part of re-scoring.")
    if depth < products:
        notes.append(f"Rankings are {depth} deep: MAP counts deeper products as not found.")
    if run_depth < min(depth, products):
        notes.append(f"Run files have the first {run_depth} products of each query; the metrics read {depth}.")
