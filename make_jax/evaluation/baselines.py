"""What a model is compared with: BM25 over titles, chance, and the model joined with BM25."""

import logging
import re
import unicodedata
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32

from make_jax.evaluation.metrics import Judgements, score_ranking
from make_jax.retrieval.embed import Progress, no_progress
from make_jax.retrieval.search import (
    CandidateFilter,
    TopK,
    VectorIndex,
    concat_top_k,
    mask_scores,
    no_filter,
    query_chunk_size,
    top_k_of_scores,
)

CHOSEN_BY = "nDCG@10"  # what a parameter is chosen by, on the validation split
K1 = (0.1, 0.2, 0.4, 0.8, 1.2, 2.0)
B = (0.0, 0.25, 0.5, 0.75, 1.0)
WEIGHTS = (0.0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0, 5.0)

# Chinese characters, Japanese kana and Korean syllables: scripts that do not part words by spaces, or not enough.
_CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff"
_WORD = rf"(?:(?![{_CJK}_])\w)+"
_PIECES = re.compile(rf"(?P<cjk>[{_CJK}]+)|{_WORD}(?:-{_WORD})*")


def words(text: str) -> list[str]:
    """The tokens BM25 sees: NFKC, lower case, words without plural s; of Chinese, characters and their pairs.

    "t-shirts" gives t, shirt and tshirt, because sellers and buyers write it either way; "women's" gives women.
    """
    tokens = []
    for piece in _PIECES.finditer(re.sub(r"['\u2019]", "", unicodedata.normalize("NFKC", text).lower())):
        if run := piece["cjk"]:
            tokens += [*run, *(run[i : i + 2] for i in range(len(run) - 1))]
        else:
            parts = piece[0].split("-")
            tokens += [_singular(word) for word in (parts if len(parts) == 1 else [*parts, "".join(parts)])]
    return tokens


def _singular(word: str) -> str:
    """The word without its plural s; words of four letters or more [ours, after the S stemmer of Harman 1991]."""
    if len(word) < 4 or not word.endswith("s") or word.endswith(("ss", "us")):
        return word
    if word.endswith("ies"):
        return word[:-3] + "y"
    return word[:-2] if word.endswith(("sses", "xes", "ches", "shes")) else word[:-1]


class Parameters(NamedTuple):
    """Of BM25; the defaults are those of Lucene."""

    k1: float = 1.2
    b: float = 0.75


class TitleBM25:
    """BM25 over titles [Robertson et al. 1994; Lucene's form, by bm25s]. A title that shares no word scores 0."""

    def __init__(self, titles: Sequence[str]) -> None:
        self.count = len(titles)
        self._titles = [words(title) for title in titles]
        self._index: Any = None
        self.set(Parameters())

    def set(self, parameters: Parameters) -> None:
        """Builds the index again with other parameters."""
        import bm25s  # type: ignore[import-untyped]

        logging.getLogger("bm25s").setLevel(logging.WARNING)  # it tells every index it builds at DEBUG

        if any(self._titles):
            self._index = bm25s.BM25(k1=parameters.k1, b=parameters.b, method="lucene", backend="numpy")
            self._index.index(self._titles, show_progress=False)

    @property
    def size(self) -> int:
        """Bytes of the index's arrays."""
        if self._index is None:
            return 0
        return sum(np.asarray(self._index.scores[name]).nbytes for name in ("data", "indices", "indptr"))

    def scores(self, texts: Sequence[str]) -> Float32[np.ndarray, "q N"]:
        """The score of every query with every title; the caller chunks the queries."""
        out = np.zeros((len(texts), self.count), np.float32)
        for row, text in zip(out, texts, strict=True):
            known = self._index.get_tokens_ids(words(text)) if self._index is not None else []
            if known:
                row[:] = self._index.get_scores_from_ids(known)
        return out

    def search(self, texts: Sequence[str], k: int, allowed: CandidateFilter = no_filter) -> TopK:
        """The best titles of each query, ties by position. A title that shares no word is not found at all.

        Among products that `allowed` names it is found, behind the others: those were given to be ordered.
        """
        parts = []
        at_once = query_chunk_size(self.count)
        for start in range(0, len(texts), at_once):
            rows = slice(start, min(start + at_once, len(texts)))
            scores, given = self.scores(texts[rows]), allowed(rows)
            parts.append(
                top_k_of_scores(np.where(scores > 0 if given is None else given, scores, np.float32(-np.inf)), k)
            )
        return concat_top_k(parts, min(k, self.count))


def choose_bm25(
    bm25: TitleBM25, judgements: Judgements, progress: Progress = no_progress, allowed: CandidateFilter = no_filter
) -> Parameters:
    """The parameters of the grid K1 x B with the best mean nDCG@10 over the queries; of equals, the first."""
    texts = [query.text for query in judgements.queries]
    grid = [Parameters(k1, b) for k1 in K1 for b in B]
    values = []
    for done, parameters in enumerate(grid, start=1):
        bm25.set(parameters)
        ranking = bm25.search(texts, 10, allowed)
        values.append(float(score_ranking(ranking, judgements, [CHOSEN_BY])[CHOSEN_BY].mean()))
        progress("BM25 parameters", done, len(grid))
    best = grid[int(np.argmax(values))]
    bm25.set(best)
    return best


def random_ranking(queries: int, products: int, k: int, seed: int, allowed: CandidateFilter = no_filter) -> TopK:
    """Products in an order drawn anew for each query: what chance finds."""
    rng = np.random.default_rng(seed)
    parts = []
    at_once = query_chunk_size(products)
    for start in range(0, queries, at_once):
        rows = slice(start, min(start + at_once, queries))
        drawn = rng.random((rows.stop - rows.start, products), np.float32)
        parts.append(top_k_of_scores(mask_scores(drawn, allowed(rows)), k))
    return concat_top_k(parts, min(k, products))


def fused(
    model: Float32[np.ndarray, "q N"], bm25: Float32[np.ndarray, "q N"], weight: float
) -> Float32[np.ndarray, "q N"]:
    """Model score + weight * BM25 score as a share of the query's best BM25 score (0 when no title matches) [ours]."""
    best = bm25.max(axis=1, keepdims=True)
    share = np.divide(bm25, best, out=np.zeros_like(bm25), where=best > 0)
    return model + np.float32(weight) * share


class Fusion(NamedTuple):
    """What `fuse` needs of one split: queries, products, both ways to score them."""

    texts: Sequence[str]
    queries: Float32[np.ndarray, "Q D"]
    products: VectorIndex  # absent ones have their BM25 score alone
    bm25: TitleBM25
    allowed: CandidateFilter = no_filter

    def rankings(self, weights: Sequence[float], k: int, progress: Progress = no_progress) -> list[TopK]:
        """The ranking of every query by `fused`, for each weight, in chunks of queries."""
        parts: list[list[TopK]] = [[] for _ in weights]
        absent = self.products.absent
        at_once = query_chunk_size(len(absent))
        for start in range(0, len(self.texts), at_once):
            rows = slice(start, min(start + at_once, len(self.texts)))
            given = self.allowed(rows)
            model = np.where(absent, np.float32(0), self.products.scores(self.queries[rows]))
            words_of = self.bm25.scores(self.texts[rows])
            if given is not None:
                words_of = np.where(given, words_of, np.float32(0))  # the best word score is that of what may be found
            for weight, part in zip(weights, parts, strict=True):
                part.append(top_k_of_scores(mask_scores(fused(model, words_of, weight), given), k))
            progress("fusion with BM25", rows.stop, len(self.texts))
        return [concat_top_k(part, min(k, len(absent))) for part in parts]


def choose_weight(fusion: Fusion, judgements: Judgements, progress: Progress = no_progress) -> dict[float, float]:
    """Mean nDCG@10 of each weight of the grid WEIGHTS; the best (of equals the smallest) is the one to use."""
    rankings = fusion.rankings(WEIGHTS, 10, progress)
    return {
        weight: float(score_ranking(ranking, judgements, [CHOSEN_BY])[CHOSEN_BY].mean())
        for weight, ranking in zip(WEIGHTS, rankings, strict=True)
    }
