"""One split as the systems of an evaluation see it: what is searched, and the vectors, made when they are asked for."""

import functools
import time

import numpy as np
from jaxtyping import Float32

from make_jax.catalog.reader import Catalog
from make_jax.errors import InputError
from make_jax.retrieval.baselines import Fusion, TitleBM25
from make_jax.retrieval.embed import Embeddings, Modality, Model, Progress, embed_products, embed_queries
from make_jax.retrieval.late_fusion import LateFusion, fuse
from make_jax.retrieval.pools import Searched
from make_jax.retrieval.search import Ranking


class Side:
    """What is searched, BM25 over its titles, and the model's vectors, made once, when they are asked for."""

    def __init__(
        self, model: Model | None, catalog: Catalog, searched: Searched, progress: Progress, like: "Side | None" = None
    ) -> None:
        """`like` is another side of the same model: where it searches the same products, its vectors serve both."""
        self.model, self.catalog, self.searched = model, catalog, searched
        self.main = main_modality(model, catalog)
        self.title_weight = model.title_weight if isinstance(model, LateFusion) else None  # of late fusion
        self._progress = progress
        self._made: dict[Modality, tuple[Embeddings, float]] = {}  # with the seconds that it took
        if like is not None and like.searched.products == searched.products:
            self._made = like._made
        self._query_seconds = 0.0
        titles = ["" if catalog.info.hide_title else product.title for product in searched.products]
        self.lexical = any(titles)
        pictured = any(product.image is not None for product in searched.products)
        there: tuple[tuple[Modality, bool], ...] = (("title", self.lexical), ("image", pictured))
        self.present = tuple(modality for modality, some in there if some)  # what products can be read by
        self.bm25 = TitleBM25(titles)

    @property
    def texts(self) -> list[str]:
        """What is asked."""
        return [query.text for query in self.searched.judgements.queries]

    @functools.cached_property
    def queries(self) -> Float32[np.ndarray, "Q D"]:
        """The vectors of the queries; none are encoded where there is no query."""
        assert self.model is not None
        if not self.texts:
            return np.zeros((0, self.embeddings().vectors.shape[1]), np.float32)
        begun = time.monotonic()
        vectors = embed_queries(self.model, self.searched.judgements.queries, self._progress)
        self._query_seconds = time.monotonic() - begun
        return vectors

    def embeddings(self, modality: Modality | None = None) -> Embeddings:
        """The vectors of the products by `modality`, or by that of the main system."""
        assert self.model is not None and self.main is not None
        modality = modality or self.main
        if modality == "both" and self.title_weight is not None:
            alone = [self.embeddings(part) for part in self.present]
            return fuse(alone[0], alone[1], self.title_weight) if len(alone) == 2 else alone[0]
        if modality not in self._made:
            begun = time.monotonic()
            made = embed_products(self.model, self.catalog, self.searched.products, modality, self._progress)
            self._made[modality] = made, time.monotonic() - begun
        return self._made[modality][0]

    def search(self, depth: int, modality: Modality | None = None) -> Ranking:
        """What the model finds by `modality`, or by that of the main system."""
        found = self.embeddings(modality)
        return self.searched.search(self.queries, found.vectors, depth, found.absent)

    def fusion(self) -> Fusion:
        """The main system and BM25, to be joined."""
        found = self.embeddings()
        return Fusion(self.texts, self.queries, found.vectors, found.absent, self.bm25, self.searched.allowed)

    def cost(self) -> dict[str, float | int]:
        """What the main system took: seconds of encoding (compilation included), bytes of a product."""
        if self.model is None or self.main is None:
            return {"bytes": round(self.bm25.size / max(self.bm25.count, 1))}
        late = self.main == "both" and self.title_weight is not None
        parts: tuple[Modality, ...] = self.present if late else (self.main,)
        return {
            "products": len(self.searched.products),
            "product_seconds": sum(self._made[part][1] for part in parts),
            "queries": len(self.texts),
            "query_seconds": self._query_seconds,
            "bytes": 4 * self.embeddings().vectors.shape[1],
        }


def main_modality(model: Model | None, catalog: Catalog) -> Modality | None:
    """What the main system reads: what the model has, without titles that the catalog hides; None for BM25 alone.

    Raises InputError when titles are all that could be read and the catalog hides them.
    """
    modalities = None if model is None else model.modalities
    if not catalog.info.hide_title:
        return modalities
    if modalities in ("title", None):
        what = "BM25" if modalities is None else "this model"
        raise InputError(f"{catalog.path}: its titles are labels (hide_title), and {what} reads titles only")
    return "image"
