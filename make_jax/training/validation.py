"""Retrieval quality on the validation split, measured during training."""

from collections.abc import Mapping

import numpy as np

from make_jax.errors import InputError
from make_jax.evaluation.metrics import score_ranking
from make_jax.evaluation.search_pool import SearchPool
from make_jax.retrieval.embed import embed_products, embed_queries
from make_jax.retrieval.retriever import Retriever
from make_jax.retrieval.top_k import Progress, no_progress
from make_jax.runs.state import Params
from make_jax.training.eval_context import EvalContext

BEST_METRIC = "val_ndcg@10"  # decides which checkpoint is the best


class Validator:
    """Exact search of the validation queries over the products of the split, by the protocol of `eval.py`.

    Raises InputError if the split has judged queries and no products.
    """

    def __init__(self, context: EvalContext) -> None:
        self._context = context
        self._pool = SearchPool.of(context.catalog, "val")
        if context.catalog.split_queries("val") and not self._pool.products:
            raise InputError(f"{context.catalog.path}: the val split has queries and no products; add products to it")

    @property
    def query_count(self) -> int:
        """Number of scored queries; 0 means there is nothing to measure."""
        return len(self._pool.judgements.queries)

    @property
    def off_message(self) -> str | None:
        """Why there is nothing to measure, for the start of a run; None if there is."""
        if self.query_count:
            return None
        info, count = self._context.catalog.info, len(self._pool.judgements.without_positive)
        reason = (
            f"none of its {count:,} queries has a product of grade {info.relevant} or more among those searched "
            f'("relevant" and "pool" in catalog.json)'
            if count
            else "it has no queries"
        )
        return f"no validation on the val split: {reason}; the best checkpoint is the last one evaluated"

    def measure(self, params: Params, progress: Progress = no_progress) -> Mapping[str, float]:
        """Returns the means over queries, by metric name; `progress` is called after each embedded chunk.

        Of a model whose weights of title and image differ between products, also the title's mean weight in the search
        embeddings of products with both: weights per keyword are 1/2 until the keyword heads are fitted.
        """
        c = self._context
        retriever = Retriever(c.model, params, c.tokenizer, c.keywords, batch_size=c.batch_size, mesh=c.mesh)
        modalities = retriever.modalities
        if c.catalog.info.hide_title and modalities == "both":
            modalities = "image"
        products = embed_products(retriever, c.catalog, self._pool.products, modalities, progress)
        queries = embed_queries(retriever, self._pool.judgements.queries, progress)
        ranking = products.search(queries, 100, self._pool.candidate_filter)
        values = score_ranking(ranking, self._pool.judgements, ["nDCG@10", "recall@100"])
        metrics = {BEST_METRIC: float(values["nDCG@10"].mean()), "val_recall@100": float(values["recall@100"].mean())}
        fused = products.weights[(products.weights > 0).all(axis=1), 0]
        if c.model.has_title_weight and len(fused):
            metrics["val_title_weight"] = float(fused.mean(dtype=np.float64))
        return metrics
