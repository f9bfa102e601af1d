"""One split as the systems of an evaluation see it: what is searched, and the vectors, made when they are asked for."""

import functools
import time
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from make_jax.catalog.reader import Catalog
from make_jax.errors import InputError
from make_jax.evaluation.baselines import BM25Fusion, TitleBM25
from make_jax.evaluation.late_fusion import LateFusion, fuse, fuse_on_disk
from make_jax.evaluation.search_pool import SearchPool
from make_jax.retrieval.embed import (
    EmbeddingModel,
    Modality,
    ProductEmbeddings,
    Progress,
    embed_products,
    embed_queries,
)
from make_jax.retrieval.search import TopK, VectorIndex
from make_jax.retrieval.stored import DiskEmbeddings, embed_to_disk


class EvalSplit:
    """What is searched, BM25 over its titles, and the model's vectors, made once, when they are asked for."""

    def __init__(
        self,
        model: EmbeddingModel | None,
        catalog: Catalog,
        searched: SearchPool,
        progress: Progress,
        like: "EvalSplit | None" = None,
        stored: Path | None = None,
    ) -> None:
        """`like` is another side of the same model: where it searches the same products, its vectors serve both.

        Below `stored` lie vectors on disk, a folder for each part of the catalog and modality; None: in memory.
        """
        self.model, self.catalog, self.searched = model, catalog, searched
        self.main = main_modality(model, catalog)
        self.title_weight = model.title_weight if isinstance(model, LateFusion) else None  # of late fusion
        self._progress, self._stored = progress, stored
        self._made: dict[Modality, tuple[VectorIndex, float]] = {}  # with the seconds that it took
        if like is not None and like.searched.products == searched.products:
            self._made = like._made
        self._query_seconds = 0.0
        titles = ["" if catalog.info.hide_title else product.title for product in searched.products]
        self.lexical = any(titles)
        pictured = any(product.image is not None for product in searched.products)
        there: tuple[tuple[Modality, bool], ...] = (("title", self.lexical), ("image", pictured))
        self.present = tuple(modality for modality, some in there if some)  # what products can be read by
        self._titles = titles

    @functools.cached_property
    def bm25(self) -> TitleBM25:
        """BM25 over the titles; nothing is indexed where only vectors are made."""
        return TitleBM25(self._titles)

    @property
    def texts(self) -> list[str]:
        """What is asked."""
        return [query.text for query in self.searched.judgements.queries]

    @functools.cached_property
    def queries(self) -> Float32[np.ndarray, "Q D"]:
        """The vectors of the queries; none are encoded where there is no query."""
        assert self.model is not None
        if not self.texts:
            return np.zeros((0, self.embeddings().width), np.float32)
        begun = time.monotonic()
        vectors = embed_queries(self.model, self.searched.judgements.queries, self._progress)
        self._query_seconds = time.monotonic() - begun
        return vectors

    def embeddings(self, modality: Modality | None = None) -> VectorIndex:
        """The vectors of the products by `modality`, or by that of the main system."""
        assert self.model is not None and self.main is not None
        modality = modality or self.main
        if modality == "both" and self.title_weight is not None:
            alone = [self.embeddings(part) for part in self.present]
            if len(alone) == 1:
                return alone[0]
            title, image = alone
            if isinstance(title, DiskEmbeddings) and isinstance(image, DiskEmbeddings):
                return fuse_on_disk(title, image, self.title_weight, self._progress)
            assert isinstance(title, ProductEmbeddings) and isinstance(image, ProductEmbeddings)
            return fuse(title, image, self.title_weight)
        if modality not in self._made:
            begun = time.monotonic()
            self._made[modality] = self._embed(self.model, modality), time.monotonic() - begun
        return self._made[modality][0]

    def _embed(self, model: EmbeddingModel, modality: Modality) -> VectorIndex:
        """Makes the vectors, or those that are missing on disk."""
        products, part = self.searched.products, self.searched.part
        if self._stored is None:
            return embed_products(model, self.catalog, products, modality, self._progress)
        folder = self._stored / f"{part}-{modality}"
        return embed_to_disk(model, self.catalog, products, folder, part, modality, self._progress)

    def search(self, depth: int, modality: Modality | None = None) -> TopK:
        """What the model finds by `modality`, or by that of the main system."""
        return self.searched.search(self.queries, self.embeddings(modality), depth)

    def fusion(self) -> BM25Fusion:
        """The main system and BM25, to be joined."""
        return BM25Fusion(self.texts, self.queries, self.embeddings(), self.bm25, self.searched.allowed)

    def cost(self) -> dict[str, float | int]:
        """What the main system took: seconds of encoding (compilation included), bytes of a product."""
        if self.model is None or self.main is None:
            return {"bytes": round(self.bm25.index_bytes / max(self.bm25.count, 1))}
        late = self.main == "both" and self.title_weight is not None
        parts: tuple[Modality, ...] = self.present if late else (self.main,)
        return {
            "products": len(self.searched.products),
            "product_seconds": sum(self._made[part][1] for part in parts),
            "queries": len(self.texts),
            "query_seconds": self._query_seconds,
            "bytes": self.embeddings().vector_bytes,
        }


def main_modality(model: EmbeddingModel | None, catalog: Catalog) -> Modality | None:
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
