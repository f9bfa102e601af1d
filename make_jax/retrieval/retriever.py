"""A trained model that answers: texts and products in, vectors and results out."""

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float32, Int32

from make_jax.catalog.keywords import Keyword, KeywordVocabulary
from make_jax.catalog.reader import Catalog
from make_jax.catalog.schema import Product, Split
from make_jax.config import from_json
from make_jax.errors import InputError
from make_jax.inputs.batch import PRODUCT_INPUTS, Batch
from make_jax.inputs.eval_pipeline import product_batches, query_batches
from make_jax.inputs.tokenizer import Tokenizer
from make_jax.model.make import Make
from make_jax.model.modal_adaptation import ProductStates
from make_jax.retrieval.embed import Modality, embed_products
from make_jax.retrieval.embed_to_disk import embed_to_disk
from make_jax.retrieval.rerank import DEFAULT_WEIGHT, check_can_match, match_candidates
from make_jax.retrieval.top_k import Progress, no_progress
from make_jax.retrieval.vector_index import ProductEmbeddings, VectorIndex
from make_jax.runs.mesh import make_mesh, replicate, replicated_sharding, shard_rows, to_host
from make_jax.runs.run_folder import CONFIG, TOKENIZER, read_checkpoint, read_keywords
from make_jax.runs.state import Params


class Hit(NamedTuple):
    """A product that a query found."""

    product: Product
    score: float  # cosine of query and product, whatever it was ordered by
    title_weight: float  # share of the title in the product's vector
    image_weight: float  # share of the image; the two sum to 1
    matching_logit: float | None = None  # logit of the matching encoder, of products that it re-ranked


class QueryExpansion(NamedTuple):
    """What Keyword Enhancement adds to a query."""

    keywords: list[tuple[Keyword, float]]  # with the probability that an answer has it, most probable first
    gate: float  # how much of their expected embedding the query took, 0 to 1


class Retriever:
    """Text queries find products: `load`, `index` a catalog, `search`.

    >>> from make_jax import Retriever
    >>> retriever = Retriever.load(run)  # a folder that train.py wrote
    >>> retriever.index()  # embeds the products; without arguments those of the catalog in the package
    >>> hits = retriever.search(["red apple", "old clock"], k=3)
    >>> [len(found) for found in hits]
    [3, 3]
    >>> best = hits[0][0]
    >>> round(best.title_weight + best.image_weight, 3)
    1.0
    >>> retriever.encode_queries(["red apple"]).shape[0]
    1
    """

    def __init__(
        self,
        model: Make,
        params: Params,
        tokenizer: Tokenizer,
        keywords: KeywordVocabulary,
        *,
        batch_size: int = 256,
        mesh: Mesh | None = None,
        trained_matching: bool = False,
    ) -> None:
        """`batch_size` is the most rows encoded at once; the rows are split over the devices of `mesh`.

        `trained_matching`: the model's matching encoder has been trained by QIM and may re-rank.
        """
        self.model = model
        self.tokenizer = tokenizer
        self.keywords = keywords
        self._mesh = make_mesh(devices=jax.local_devices()) if mesh is None else mesh
        self._params = replicate(params, self._mesh)
        self._batch_size = batch_size
        self._trained_matching = trained_matching
        self._catalog: Catalog | None = None
        self._products: list[Product] = []
        self._embeddings: VectorIndex | None = None

    @classmethod
    def load(cls, run: str | Path, checkpoint: Literal["best", "last"] = "best") -> "Retriever":
        """The model of a run's checkpoint, with the preprocessing saved there; executes nothing from the run.

        Raises InputError when the folder is no run or no checkpoint in it is intact.
        """
        params, _, files = read_checkpoint(run, checkpoint)
        return cls.from_checkpoint(run, params, files)

    @classmethod
    def from_checkpoint(cls, run: str | Path, params: Params, files: Mapping[str, str]) -> "Retriever":
        """The model of a checkpoint that `read_checkpoint(run)` has read."""
        config = from_json(files[CONFIG], f"{run}/{CONFIG}")
        tokenizer = Tokenizer(files[TOKENIZER])
        keywords = read_keywords(files, Path(run))
        model = Make(config.model, config.inputs, tokenizer.vocab_size, len(keywords), keywords.exclusion_groups)
        size, trained = config.train.eval_batch_size, config.objectives.qim > 0
        return cls(model, params, tokenizer, keywords, batch_size=size, trained_matching=trained)

    @property
    def modalities(self) -> Modality:
        """Which encoders the model has on the product side."""
        return self.model.config.adaptation.modalities

    @cached_property
    def digest(self) -> str:
        """SHA-256, in hex, of all that decides what vectors the model gives: parameters and preprocessing."""
        sha = hashlib.sha256()
        said = {"model": dataclasses.asdict(self.model.config), "inputs": dataclasses.asdict(self.model.inputs)}
        for text in (json.dumps(said, sort_keys=True), self.tokenizer.definition, self.keywords.to_json()):
            sha.update(text.encode())
        for path, leaf in jax.tree_util.tree_leaves_with_path(self._params):
            array = np.ascontiguousarray(jax.device_get(leaf))
            sha.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}".encode())
            sha.update(array.view(np.uint8).reshape(-1).data)
        return sha.hexdigest()

    def encode_queries(self, texts: Sequence[str]) -> Float32[np.ndarray, "n E"]:
        """Unit query vectors, one a text."""
        width = self.model.search_dim
        size = self._rows(len(texts))
        rows = [np.zeros((0, width), np.float32)]
        for batch in query_batches(texts, self.tokenizer, self.keywords, self.model.inputs, batch_size=size):
            placed = self._place({name: batch[name] for name in ("query_tokens", "query_mask", "query_keywords")})
            rows.append(to_host(_encode_query(self.model, self._params, **placed), self._mesh))
        return np.concatenate(rows)[: len(texts)]

    def expand_query(self, query: str, least: float = 0.05) -> QueryExpansion:
        """The keywords that products which answer the query are expected to have: a query expansion to read.

        `least` is the smallest probability that is worth telling. Raises InputError when the model predicts none.
        """
        if not self.model.has_enrichment:
            why = "model.enrichment is false" if len(self.keywords) else "its catalog gave no keywords"
            raise InputError(f"this model does not enrich queries: {why}; train one that does")
        (batch,) = query_batches([query], self.tokenizer, self.keywords, self.model.inputs, batch_size=self._rows(1))
        placed = self._place({name: batch[name] for name in ("query_tokens", "query_mask")})
        read = _read_query(self.model, self._params, **placed)
        likely = 1.0 / (1.0 + np.exp(-np.asarray(read.logits[0], np.float64)))
        order = np.argsort(-likely, kind="stable")
        found = [(self.keywords.keywords[k], float(likely[k])) for k in order.tolist() if likely[k] >= least]
        return QueryExpansion(found, float(read.gate[0]))

    def encode_products(
        self, titles: Sequence[str], images: Sequence[bytes | None], names: Sequence[str] | None = None
    ) -> ProductEmbeddings:
        """Unit product vectors and the weights of title and image in each; `images` are JPEG, PNG or WebP files' bytes.

        "" is no title and None no image. Raises InputError for a product that lacks both, or whose image is unreadable;
        `names` is what such an error calls the products.
        """
        for i, (title, image) in enumerate(zip(titles, images, strict=True)):
            if not title.strip() and not image:
                name = repr(names[i]) if names is not None else f"number {i}"
                raise InputError(f"product {name} has neither title nor image; give one of them")
        width, size = self.model.search_dim, self._rows(len(titles))
        vectors, weights = [np.zeros((0, width), np.float32)], [np.zeros((0, 2), np.float32)]
        for batch in product_batches(titles, images, self.tokenizer, self.model.inputs, batch_size=size, names=names):
            placed = self._place({name: batch[name] for name in PRODUCT_INPUTS})
            adapted = to_host(_encode_product(self.model, self._params, **placed), self._mesh)
            vectors.append(adapted.vectors)
            weights.append(adapted.weights)
        return ProductEmbeddings(np.concatenate(vectors)[: len(titles)], np.concatenate(weights)[: len(titles)])

    def index(
        self,
        catalog: Catalog | str | Path = "",
        split: Split | None = None,
        progress: Progress = no_progress,
        *,
        embeddings: str | Path = "",
    ) -> None:
        """Embeds the products of a catalog (or of one split of it) for `search`; replaces what was indexed before.

        With `embeddings` the vectors lie below that folder, in float16: those that are there are searched as they are,
        those that are missing are made (docs/embeddings.md). Raises InputError when they are of another model or
        catalog.
        """
        catalog = catalog if isinstance(catalog, Catalog) else Catalog.load(catalog)
        products = list(catalog.products) if split is None else catalog.split_products(split)
        modality, part = self.modalities, split or "all"
        if embeddings:
            folder = Path(embeddings) / f"{part}-{modality}"
            self._embeddings = embed_to_disk(self, catalog, products, folder, part, modality, progress)
        else:
            self._embeddings = embed_products(self, catalog, products, modality, progress)
        self._catalog, self._products = catalog, products

    def search(
        self, queries: Sequence[str], k: int = 10, rerank: int = 0, weight: float = DEFAULT_WEIGHT
    ) -> list[list[Hit]]:
        """The `k` best indexed products of each query, best first; ties by the order of the catalog.

        `rerank` > 0 orders the first `rerank` products by logit_scale * cosine + `weight` * `Hit.matching_logit` and
        keeps the order of the rest (`retrieval/rerank.py`); a report of `eval.py` states the weight that was best on
        validation queries. Raises InputError when nothing was indexed, or when the model cannot re-rank.
        """
        if self._embeddings is None or self._catalog is None:
            raise InputError("nothing to search: call index() with a catalog first")
        if rerank < 0:
            raise InputError(f"rerank is {rerank}, expected at least 0")
        vectors = self.encode_queries(queries)
        found = self._embeddings.search(vectors, max(k, rerank))
        scores, indices = found
        matches = np.full(scores.shape, np.nan, np.float32)
        if rerank:
            matcher = check_can_match(self)
            candidates = match_candidates(
                matcher, self._catalog, self._products, queries, found, rerank, self.modalities
            )
            order, first = candidates.order(weight), slice(0, rerank)
            matches[:, first] = candidates.logits
            for array in (scores, indices, matches):
                array[:, first] = np.take_along_axis(array[:, first], order, axis=1)
        return [list(self._hits(*row)) for row in zip(scores[:, :k], indices[:, :k], matches[:, :k], strict=True)]

    def _hits(self, scores: np.ndarray, indices: np.ndarray, matches: np.ndarray) -> Iterator[Hit]:
        assert self._embeddings is not None
        for score, i, match in zip(scores.tolist(), indices.tolist(), matches.tolist(), strict=True):
            if i >= 0:
                title, image = self._embeddings.weights[i].tolist()
                yield Hit(self._products[i], score, title, image, None if np.isnan(match) else match)

    @property
    def can_match(self) -> bool:
        """Whether the model has a matching encoder that was trained."""
        return self.model.config.matching.layers > 0 and self._trained_matching

    @property
    def logit_scale(self) -> float:
        """What a cosine is multiplied with in the model's contrast."""
        return float(np.exp(np.asarray(self._params["log_logit_scale"])))

    def matching_logits(
        self,
        texts: Sequence[str],
        titles: Sequence[str],
        images: Sequence[bytes | None],
        pairs: Int32[np.ndarray, "n 2"],
    ) -> Float32[np.ndarray, "n"]:
        """The matching logit of each pair (position of a text, position of a product); see `encode_products`.

        In memory at once: the states of all texts, and those of `batch_size` products and pairs.
        """
        check_can_match(self)
        if not len(pairs):
            return np.zeros(0, np.float32)
        i, rows, size = self.model.inputs, self._rows(len(titles)), self._rows(len(pairs))
        states, masks = [], []
        for batch in query_batches(texts, self.tokenizer, self.keywords, i, batch_size=self._rows(len(texts))):
            placed = self._place({name: batch[name] for name in ("query_tokens", "query_mask")})
            states.append(np.asarray(_read_query(self.model, self._params, **placed).states))
            masks.append(batch["query_mask"])
        asked = np.concatenate(states), np.concatenate(masks)
        logits = np.zeros(len(pairs), np.float32)
        for start, batch in enumerate(product_batches(titles, images, self.tokenizer, i, batch_size=rows)):
            placed = self._place({name: batch[name] for name in PRODUCT_INPUTS})
            product = jax.device_put(_read_product(self.model, self._params, placed), replicated_sharding(self._mesh))
            mine = np.flatnonzero(pairs[:, 1] // rows == start)
            for first in range(0, len(mine), size):
                chosen = mine[first : first + size]
                query, at = np.resize(pairs[chosen], (size, 2)).T  # the last is filled up with pairs that it has
                placed = self._place({"states": asked[0][query], "mask": asked[1][query], "at": at - start * rows})
                found = _match(self.model, self._params, product, **placed)
                logits[chosen] = np.asarray(found)[: len(chosen)]
        return logits

    def _rows(self, n: int) -> int:
        """Rows of a batch: a power of two, so that few programs are compiled, and a multiple of the devices."""
        rows = 1 << max(n - 1, 0).bit_length()
        devices = self._mesh.size
        return -(-min(rows, self._batch_size) // devices) * devices

    def _place(self, batch: Batch) -> dict[str, jax.Array]:
        return shard_rows(batch, self._mesh)


@partial(jax.jit, static_argnums=0)
def _encode_query(
    model: Make, params: Params, query_tokens: jax.Array, query_mask: jax.Array, query_keywords: jax.Array
) -> Any:
    return model.apply({"params": params}, query_tokens, query_mask, query_keywords, method=Make.query_embedding)


@partial(jax.jit, static_argnums=0)
def _read_query(model: Make, params: Params, query_tokens: jax.Array, query_mask: jax.Array) -> Any:
    return model.apply({"params": params}, query_tokens, query_mask, method=Make.query_outputs)


@partial(jax.jit, static_argnums=0)
def _encode_product(
    model: Make,
    params: Params,
    title_tokens: jax.Array,
    title_mask: jax.Array,
    image: jax.Array,
    has_title: jax.Array,
    has_image: jax.Array,
) -> Any:
    rows = (title_tokens, title_mask, image, has_title, has_image)
    adapted: Any = model.apply({"params": params}, *rows, method=Make.product_embedding)
    return adapted._replace(title=None, image=None)  # nobody reads them here


@partial(jax.jit, static_argnums=0)
def _read_product(model: Make, params: Params, batch: dict[str, jax.Array]) -> Any:
    return model.apply({"params": params}, *(batch[name] for name in PRODUCT_INPUTS), method=Make.product_outputs)[1]


@partial(jax.jit, static_argnums=0)
def _match(
    model: Make, params: Params, product: ProductStates, states: jax.Array, mask: jax.Array, at: jax.Array
) -> Any:
    """Logits of queries with the products at positions `at`."""
    chosen = jax.tree.map(lambda x: x[at], product)
    return model.apply({"params": params}, states, mask, chosen, "item", method=Make.match)
