"""One split of an evaluation: the search pool, BM25 over its titles, and the model's vectors, computed on first use."""

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
from make_jax.retrieval.embed import EmbeddingModel, Modality, PrecomputedVectors, embed_products, embed_queries
from make_jax.retrieval.embed_to_disk import embed_to_disk
from make_jax.retrieval.ray_devices import RayDevices
from make_jax.retrieval.top_k import Progress, TopK
from make_jax.retrieval.vector_index import DiskEmbeddings, ProductEmbeddings, VectorIndex


class EvalSplit:
    """The search pool of a split with every system's inputs, each computed once."""

    def __init__(
        self,
        model: EmbeddingModel | None,
        catalog: Catalog,
        search_pool: SearchPool,
        progress: Progress,
        share_with: "EvalSplit | None" = None,
        vectors_folder: Path | None = None,
        devices: RayDevices | None = None,
    ) -> None:
        """`share_with` is another split of the same model: where both search the same products, they share vectors.

        `vectors_folder` keeps product vectors on disk, in a subfolder per part of the catalog and modality; None: in
        memory. `devices` embed those that are missing there; None: this process does.
        """
        self.model, self.catalog, self.search_pool = model, catalog, search_pool
        self.title_weight = model.title_weight if isinstance(model, LateFusion) else None
        self._progress, self._vectors_folder, self._devices = progress, vectors_folder, devices
        self._indexes: dict[Modality, tuple[VectorIndex, float]] = {}  # with the seconds of embedding
        if share_with is not None and share_with.search_pool.products == search_pool.products:
            self._indexes = share_with._indexes
        self._fused: tuple[float, VectorIndex] | None = None  # the latest late fusion, with its title weight
        self._query_seconds = 0.0
        self._titles = ["" if catalog.info.hide_title else product.title for product in search_pool.products]
        self.has_titles = any(self._titles)
        has_images = any(product.image is not None for product in search_pool.products)
        available: tuple[tuple[Modality, bool], ...] = (("title", self.has_titles), ("image", has_images))
        self.modalities = tuple(modality for modality, exists in available if exists)  # of the products
        self.main = main_modality(model, catalog, self.modalities)

    @functools.cached_property
    def bm25(self) -> TitleBM25:
        """BM25 over the titles, indexed on first use."""
        return TitleBM25(self._titles)

    @property
    def texts(self) -> list[str]:
        """The query texts."""
        return [query.text for query in self.search_pool.judgements.queries]

    @functools.cached_property
    def queries(self) -> Float32[np.ndarray, "Q D"]:
        """The query vectors."""
        assert self.model is not None
        if not self.texts:
            return np.zeros((0, self.index().width), np.float32)
        start = time.monotonic()
        vectors = embed_queries(self.model, self.search_pool.judgements.queries, self._progress)
        self._query_seconds = time.monotonic() - start
        return vectors

    def index(self, modality: Modality | None = None) -> VectorIndex:
        """The product vectors by `modality`; None: by that of the main system."""
        assert self.model is not None and self.main is not None
        modality = modality or self.main
        if modality == "both" and self.title_weight is not None:
            if self._fused is None or self._fused[0] != self.title_weight:
                self._fused = self.title_weight, self._fuse(self.title_weight)
            return self._fused[1]
        if modality not in self._indexes:
            start = time.monotonic()
            self._indexes[modality] = self._embed(self.model, modality), time.monotonic() - start
        return self._indexes[modality][0]

    def set_index(self, index: VectorIndex) -> None:
        """Sets the product vectors by the modality of the main system, which are embedded otherwise."""
        assert self.main is not None
        self._indexes[self.main] = index, 0.0

    def _fuse(self, title_weight: float) -> VectorIndex:
        """The late fusion of titles and images."""
        title, image = self.index("title"), self.index("image")
        if isinstance(title, DiskEmbeddings) and isinstance(image, DiskEmbeddings):
            return fuse_on_disk(title, image, title_weight, self._progress)
        assert isinstance(title, ProductEmbeddings) and isinstance(image, ProductEmbeddings)
        return fuse(title, image, title_weight)

    def _embed(self, model: EmbeddingModel, modality: Modality) -> VectorIndex:
        products, part = self.search_pool.products, self.search_pool.part
        if self._vectors_folder is None:
            return embed_products(model, self.catalog, products, modality, self._progress)
        folder = self._vectors_folder / f"{part}-{modality}"
        return embed_to_disk(
            model, self.catalog, products, folder, part, modality, self._progress, devices=self._devices
        )

    def search(self, k: int, modality: Modality | None = None) -> TopK:
        """The model's top k products of each query by `modality`; None: by that of the main system."""
        return self.index(modality).search(self.queries, k, self.search_pool.candidate_filter)

    def fusion(self) -> BM25Fusion:
        """The inputs of the main system's fusion with BM25."""
        return BM25Fusion(self.texts, self.queries, self.index(), self.bm25, self.search_pool.allowed)

    def cost(self) -> dict[str, float | int]:
        """The main system's seconds of encoding (compilation included) and bytes per product."""
        if self.model is None or self.main is None:
            return {"bytes": round(self.bm25.index_bytes / max(self.bm25.count, 1))}
        late = self.main == "both" and self.title_weight is not None
        parts: tuple[Modality, ...] = ("title", "image") if late else (self.main,)
        return {
            "products": len(self.search_pool.products),
            "product_seconds": sum(self._indexes[part][1] for part in parts),
            "queries": len(self.texts),
            "query_seconds": self._query_seconds,
            "bytes": self.index().vector_bytes,
        }


def main_modality(model: EmbeddingModel | None, catalog: Catalog, available: tuple[Modality, ...]) -> Modality | None:
    """What the main system reads; None for BM25 alone.

    It is what the model reads, without titles that the catalog hides, and the one modality of the products searched if
    they have one alone (`available`). How precomputed vectors were made is fixed.

    Raises InputError when only titles could be read and the catalog hides them.
    """
    modalities = None if model is None else model.modalities
    if catalog.info.hide_title:
        if modalities in ("title", None):
            reader = "BM25" if modalities is None else "this model"
            raise InputError(f"{catalog.path}: its titles are labels (hide_title), and {reader} reads titles only")
        return "image"
    if modalities == "both" and len(available) == 1 and not isinstance(model, PrecomputedVectors):
        return available[0]
    return modalities
