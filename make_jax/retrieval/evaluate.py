"""One evaluation: a model and its baselines search the products of a split for its judged queries.

Systems: `random`, `bm25` (over titles), the model by `title` alone, by `image` alone, by both (`joint`), its main form
with the best re-ranked by the matching encoder (`joint+rerank`, where that is asked), and its main form joined with
BM25 (`joint+bm25`). What a model or a catalog cannot do is left out, and a note says so.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64

from make_jax.catalog.reader import Catalog
from make_jax.catalog.schema import Product, Split
from make_jax.errors import InputError
from make_jax.retrieval.baselines import (
    CHOSEN_BY,
    Fusion,
    Parameters,
    TitleBM25,
    choose_bm25,
    choose_weight,
    random_ranking,
)
from make_jax.retrieval.embed import (
    Embeddings,
    Encoder,
    Modality,
    Progress,
    Searchable,
    embed_products,
    embed_queries,
    silent,
)
from make_jax.retrieval.metrics import Judgements, judge, score_ranking
from make_jax.retrieval.rerank import DEFAULT_WEIGHT as DEFAULT_MATCHING_WEIGHT
from make_jax.retrieval.rerank import Candidates, Matcher, check_can_match, choose_matching_weight, match_candidates
from make_jax.retrieval.search import Ranking
from make_jax.retrieval.slices import query_slices
from make_jax.retrieval.stored import embed_stored

DEFAULT_WEIGHT = 0.2  # of BM25 in the fusion, for a catalog that has no validation queries to choose it by


@dataclass(frozen=True)
class Evaluation:
    """What every system found for every judged query, and what it is worth."""

    split: Split
    products: tuple[Product, ...]  # what was searched, N
    judgements: Judgements  # Q queries
    main: str  # the model's main system: joint, or title or image where there is only that
    rankings: dict[str, Ranking]  # of each system
    values: dict[str, dict[str, Float64[np.ndarray, "Q"]]]  # system -> metric -> value of each query
    slices: dict[str, Bool[np.ndarray, "Q"]]
    embeddings: Searchable  # of the main system
    parameters: dict[str, Any]  # chosen ones, and how
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


@dataclass(frozen=True)
class _Side:
    """A split as the main system and BM25 see it."""

    products: tuple[Product, ...]
    judgements: Judgements
    fusion: Fusion  # also holds the vectors of queries and products

    @property
    def embeddings(self) -> Searchable:
        """The products' vectors and modal weights."""
        return self.fusion.products

    def search(self, depth: int) -> Ranking:
        """What the main system finds."""
        return self.embeddings.search(self.fusion.queries, depth)


def evaluate(
    encoder: Encoder,
    catalog: Catalog,
    split: Split = "test",
    *,
    depth: int = 1000,
    rerank: int = 0,
    seed: int = 0,
    stored: Path | None = None,
    progress: Progress = silent,
) -> Evaluation:
    """Every system's rankings, `depth` deep, and metrics over the judged queries of `split`, searching its products.

    The best `rerank` products of each query are also re-ranked. BM25's k1 and b, the fusion weight and that of the
    matching encoder are chosen on the validation split, whichever split is reported. Raises InputError for a split
    without judged queries, a catalog without what the model reads, and a model that cannot re-rank when it is asked to.

    With `stored` the vectors of products lie below that folder, in float16, where those that are missing are made: they
    need not fit into memory (docs/embeddings.md).
    """
    matcher = check_can_match(encoder) if rerank else None
    main = _main_modality(encoder, catalog)
    side = _side(encoder, catalog, split, main, stored, progress)
    if not side.judgements.queries:
        raise InputError(
            f"{catalog.path}: split {split!r} has no query with a relevant product (grade {catalog.info.relevant} or "
            "more) among its products; judge some in queries.jsonl or choose another --split"
        )
    notes: list[str] = []
    tuned = split != "val" and (matcher is not None or not catalog.info.hide_title)
    val = _side(encoder, catalog, "val", main, stored, progress) if tuned else side
    parameters = _choose(catalog, val, split, notes, progress)
    rankings = {"random": random_ranking(len(side.judgements.queries), len(side.products), depth, seed)}
    lexical = _has_titles(catalog, side.products)
    if lexical:
        side.fusion.bm25.set(Parameters(parameters["bm25"]["k1"], parameters["bm25"]["b"]))
        rankings["bm25"] = side.fusion.bm25.search(list(side.fusion.texts), depth)
    else:
        notes.append("No BM25 and no title search: the catalog has no titles or hides them, because they are labels.")
    if main == "both":
        for modality in _alone(lexical):
            alone = embed(encoder, catalog, split, modality, stored, progress)
            rankings[modality] = alone.search(side.fusion.queries, depth)
            _note_absent(alone, f"by {modality} alone", notes)
    name = "joint" if main == "both" else main
    rankings[name] = side.search(depth)
    _note_absent(side.embeddings, name, notes)
    if matcher is not None:
        reranked, parameters["rerank"] = _rerank(matcher, catalog, side, val, rankings[name], rerank, main, progress)
        rankings[f"{name}+rerank"] = reranked
        _note_rerank(parameters["rerank"], val is side, notes)
    if lexical:
        rankings[f"{name}+bm25"] = side.fusion.rankings([parameters["fusion"]["weight"]], depth, progress)[0]
    if stored is not None:
        notes.append("Vectors of products are float16, kept on disk; of queries float32.")
    _note_judgements(side.judgements, catalog, depth, len(side.products), notes)
    values = {}
    for done, (system, ranking) in enumerate(rankings.items(), start=1):
        values[system] = score_ranking(ranking, side.judgements)
        progress("metrics", done, len(rankings))
    return Evaluation(
        split=split,
        products=side.products,
        judgements=side.judgements,
        main=name,
        rankings=rankings,
        values=values,
        slices=query_slices(side.judgements.queries, {p.id: p for p in side.products}, catalog.info.relevant),
        embeddings=side.embeddings,
        parameters=parameters | {"depth": depth, "random_seed": seed},
        notes=tuple(notes),
    )


def embed(
    encoder: Encoder, catalog: Catalog, split: Split, modality: Modality, stored: Path | None, progress: Progress
) -> Searchable:
    """The vectors of a split's products: in memory, or in a folder of that split and modality below `stored`."""
    products = catalog.split_products(split)
    if stored is None:
        return embed_products(encoder, catalog, products, modality, progress)
    return embed_stored(encoder, catalog, products, stored / f"{split}-{modality}", split, modality, progress)


def embed_all(encoder: Encoder, catalog: Catalog, split: Split, stored: Path, progress: Progress = silent) -> None:
    """Makes all vectors below `stored` that `evaluate` of the split reads, re-ranking included."""
    main = _main_modality(encoder, catalog)
    parts = [(split, main)]
    if split != "val" and _judged(catalog, "val")[1].queries:
        parts.append(("val", main))
    if main == "both":
        parts += [(split, modality) for modality in _alone(_has_titles(catalog, catalog.split_products(split)))]
    for part, modality in parts:
        embed(encoder, catalog, part, modality, stored, progress)


def _alone(titles: bool) -> tuple[Modality, ...]:
    """The modalities that a model of both is also asked for one by one."""
    return ("title", "image") if titles else ("image",)


def _has_titles(catalog: Catalog, products: Sequence[Product]) -> bool:
    """Whether there are titles to search."""
    return not catalog.info.hide_title and any(product.title for product in products)


def _main_modality(encoder: Encoder, catalog: Catalog) -> Modality:
    """What the main system reads: what the model has, without titles that the catalog hides."""
    if not catalog.info.hide_title:
        return encoder.modalities
    if encoder.modalities == "title":
        raise InputError(f"{catalog.path}: its titles are labels (hide_title), and this model reads titles only")
    return "image"


def _side(
    encoder: Encoder, catalog: Catalog, split: Split, main: Modality, stored: Path | None, progress: Progress
) -> _Side:
    """The split, embedded; when it has no query with a positive, nothing is encoded and all arrays are empty."""
    products, judgements = _judged(catalog, split)
    texts = [query.text for query in judgements.queries]
    embeddings: Searchable
    if texts:
        embeddings = embed(encoder, catalog, split, main, stored, progress)
        queries = embed_queries(encoder, texts, progress)
    else:
        embeddings = Embeddings(np.zeros((0, 1), np.float32), np.zeros((0, 2), np.float32))
        queries = np.zeros((0, 1), np.float32)
    titles = ["" if catalog.info.hide_title else product.title for product in products]
    return _Side(products, judgements, Fusion(texts, queries, embeddings, TitleBM25(titles)))


def _judged(catalog: Catalog, split: Split) -> tuple[tuple[Product, ...], Judgements]:
    """The products of a split and what is judged of them."""
    products = tuple(catalog.split_products(split))
    return products, judge(catalog.split_queries(split), [product.id for product in products], catalog.info)


def _choose(catalog: Catalog, val: _Side, split: Split, notes: list[str], progress: Progress) -> dict[str, Any]:
    """BM25's parameters and the fusion weight, by nDCG@10 on the validation split, or defaults without one."""
    chosen: dict[str, Any] = {
        "bm25": Parameters()._asdict(),
        "fusion": {"weight": DEFAULT_WEIGHT},
        "chosen_on": None,
    }
    if catalog.info.hide_title:
        return chosen
    n = len(val.judgements.queries)
    if n == 0:
        notes.append(
            "The validation split has no judged query, so nothing was tuned: BM25 has Lucene's k1 and b, the fusion "
            f"its default weight {DEFAULT_WEIGHT}."
        )
        return chosen
    chosen["bm25"] = choose_bm25(val.fusion.bm25, val.judgements, progress)._asdict()
    by_weight = choose_weight(val.fusion, val.judgements, progress)
    chosen["fusion"] = {
        "weight": _best(by_weight),
        f"validation {CHOSEN_BY} by weight": {f"{weight:g}": value for weight, value in by_weight.items()},
    }
    chosen["chosen_on"] = {"split": "val", "queries": n, "by": CHOSEN_BY}
    if split == "val":
        notes.append(
            "k1 and b of BM25 and the fusion weight were chosen on the very queries reported here, "
            "which flatters bm25 and the fusion."
        )
    return chosen


def _rerank(
    matcher: Matcher,
    catalog: Catalog,
    side: _Side,
    val: _Side,
    ranking: Ranking,
    depth: int,
    main: Modality,
    progress: Progress,
) -> tuple[Ranking, dict[str, Any]]:
    """`ranking` of `side` with its first `depth` re-ranked, and by what: the weight that is best on `val`."""

    def match(of: _Side, found: Ranking, what: str) -> Candidates:
        def told(_: str, done: int, total: int) -> None:
            progress(what, done, total)

        return match_candidates(matcher, catalog, of.products, of.fusion.texts, found, depth, main, told)

    candidates = match(side, ranking, "re-ranking")
    chosen: dict[str, Any] = {"depth": depth, "weight": DEFAULT_MATCHING_WEIGHT, "chosen_on": None}
    if n := len(val.judgements.queries):
        own = candidates if val is side else match(val, val.search(max(depth, 10)), "re-ranking validation queries")
        by_weight = choose_matching_weight(own, val.judgements)
        chosen = {
            "depth": depth,
            "weight": _best(by_weight),
            f"validation {CHOSEN_BY} by weight": {f"{weight:g}": value for weight, value in by_weight.items()},
            "chosen_on": {"split": "val", "queries": n, "by": CHOSEN_BY},
        }
    return candidates.reranked(chosen["weight"]), chosen


def _best(by_weight: dict[float, float]) -> float:
    """The weight with the highest value; of equals the smallest."""
    return max(by_weight, key=lambda weight: (by_weight[weight], -weight))


def _note_rerank(chosen: dict[str, Any], flatters: bool, notes: list[str]) -> None:
    """Says what was re-ranked, and by which weight."""
    on = chosen["chosen_on"]
    how = f"chosen by {on['by']} on {on['queries']:,} queries of the validation split" if on else "the default"
    notes.append(
        f"Re-ranked are the best {chosen['depth']} of each query, by scale * cosine + weight * matching logit with "
        f"weight {chosen['weight']:g}, {how}"
        + ("; these are the queries reported, which flatters it." if flatters and on else ".")
    )


def _note_absent(embeddings: Searchable, how: str, notes: list[str]) -> None:
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
        notes.append(f"{judgements.outside} judgements are of products outside the split searched; they are left out.")
    if depth < products:
        notes.append(f"Rankings are {depth} deep: MAP counts what lies deeper as not found.")
