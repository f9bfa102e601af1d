"""How good the model is on the validation split, measured while it trains."""

from collections.abc import Mapping

from jax.sharding import Mesh

from make_jax.catalog.keywords import KeywordVocabulary
from make_jax.catalog.reader import Catalog
from make_jax.errors import InputError
from make_jax.evaluation.metrics import score_ranking
from make_jax.evaluation.search_pool import SearchPool
from make_jax.inputs.tokenizer import Tokenizer
from make_jax.model.make import Make
from make_jax.retrieval.embed import embed_products, embed_queries
from make_jax.retrieval.retriever import Retriever
from make_jax.retrieval.top_k import Progress, no_progress
from make_jax.runs.state import Params

BEST_METRIC = "val_ndcg@10"  # the best checkpoint is the one with the highest of this


class Validator:
    """Validation queries against the products that the catalog says they search, exact, as evaluation does it."""

    def __init__(
        self,
        catalog: Catalog,
        model: Make,
        tokenizer: Tokenizer,
        keywords: KeywordVocabulary,
        mesh: Mesh,
        batch_size: int,
    ) -> None:
        """Raises InputError when the split has judged queries but no product of its own to search."""
        self._catalog, self._model, self._tokenizer, self._keywords = catalog, model, tokenizer, keywords
        self._mesh, self._batch_size = mesh, batch_size
        self._searched = SearchPool.of(catalog, "val")
        if catalog.split_queries("val") and not self._searched.products:
            raise InputError(f"{catalog.path}: the val split has queries and no product; give it some")

    @property
    def queries(self) -> int:
        """How many queries are scored; 0 means that there is nothing to measure."""
        return len(self._searched.judgements.queries)

    def measure(self, params: Params, progress: Progress = no_progress) -> Mapping[str, float]:
        """Metric names and values, means over queries; `progress` is told of each chunk that is embedded."""
        retriever = Retriever(
            self._model, params, self._tokenizer, self._keywords, batch_size=self._batch_size, mesh=self._mesh
        )
        modalities = retriever.modalities
        if self._catalog.info.hide_title and modalities == "both":
            modalities = "image"
        products = embed_products(retriever, self._catalog, self._searched.products, modalities, progress)
        queries = embed_queries(retriever, self._searched.judgements.queries, progress)
        ranking = products.search(queries, 100, self._searched.candidate_filter)
        values = score_ranking(ranking, self._searched.judgements, ["nDCG@10", "recall@100"])
        return {BEST_METRIC: float(values["nDCG@10"].mean()), "val_recall@100": float(values["recall@100"].mean())}
