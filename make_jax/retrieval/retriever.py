"""`Retriever`: encodes texts and products with a trained model and searches a catalog."""

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Sequence
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
from make_jax.catalog.text import strip_text
from make_jax.errors import InputError, check_lists
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
from make_jax.runs.mesh import local_rows, make_mesh, replicate, replicated_sharding, shard_rows, to_host
from make_jax.runs.run_folder import TrainedModel, load_trained_model
from make_jax.runs.state import Params
from make_jax.runs.training_data import TrainingData

MIN_TRIMMED_LENGTH = 16  # tokens of a query; the largest max_query_tokens of the recipes for one machine is 12


class Hit(NamedTuple):
    """One search result."""

    product: Product
    score: float  # cosine of query and product, also where re-ranking ordered by another score
    title_weight: float  # weight of the title in the product's vector
    image_weight: float  # weight of the image; the two sum to 1
    matching_logit: float | None = None  # of the matching encoder, for re-ranked products


class QueryExpansion(NamedTuple):
    """The keywords that Keyword Enhancement predicts for a query."""

    keywords: list[tuple[Keyword, float]]  # with the probability that a relevant product has it, descending
    gate: float  # share of the expected keyword embedding added to the query, 0 to 1


class Retriever:
    """Searches products by text: `load` a run, `index` a catalog, `search`.

    >>> from make_jax import Retriever
    >>> retriever = Retriever.load(run)  # a folder that train.py wrote
    >>> retriever.index()  # embeds the products; without arguments those of the run's catalog
    >>> hits = retriever.search(["red apple", "old clock"], k=3)
    >>> [len(result) for result in hits]
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
        default_catalog: str = "",
        training_data: TrainingData | None = None,
    ) -> None:
        """`batch_size` is the most rows encoded at once; the rows are split over the devices of `mesh`.

        `trained_matching`: the model's matching encoder has been trained by QIM and may re-rank. `default_catalog` is
        what `index` embeds without arguments; "" is the packaged catalog. `training_data`: for notes of evaluation.
        """
        self.model = model
        self.tokenizer = tokenizer
        self.keywords = keywords
        self.training_data = training_data
        self._mesh = make_mesh(devices=jax.local_devices()) if mesh is None else mesh
        self._params = replicate(params, self._mesh)
        self._batch_size = batch_size
        self._trained_matching = trained_matching
        self._default_catalog = default_catalog
        self._catalog: Catalog | None = None
        self._products: Sequence[Product] = []
        self._index: VectorIndex | None = None

    @classmethod
    def load(cls, run: str | Path, checkpoint: Literal["best", "last"] = "best") -> "Retriever":
        """The model of a run's checkpoint, with the preprocessing saved there; executes no code of the run.

        Raises InputError when the folder is not a run or has no intact checkpoint.
        """
        return cls.from_trained_model(load_trained_model(run, checkpoint))

    @classmethod
    def from_trained_model(cls, trained: TrainedModel) -> "Retriever":
        """The model that `load_trained_model` returned."""
        config, tokenizer, keywords = trained.config, trained.tokenizer, trained.keywords
        model = Make(config.model, config.inputs, tokenizer.vocab_size, len(keywords), keywords.exclusion_groups)
        size, has_matching = config.train.eval_batch_size, config.objectives.qim > 0
        return cls(
            model,
            trained.params,
            tokenizer,
            keywords,
            batch_size=size,
            trained_matching=has_matching,
            default_catalog=config.data.catalog,
            training_data=trained.training_data,
        )

    @property
    def modalities(self) -> Modality:
        """What the product encoder reads."""
        return self.model.config.adaptation.modalities

    @cached_property
    def digest(self) -> str:
        """SHA-256, in hex, of parameters and preprocessing, which determine the vectors."""
        sha = hashlib.sha256()
        settings = {"model": dataclasses.asdict(self.model.config), "inputs": dataclasses.asdict(self.model.inputs)}
        for text in (json.dumps(settings, sort_keys=True), self.tokenizer.definition, self.keywords.to_json()):
            sha.update(text.encode())
        for path, leaf in jax.tree_util.tree_leaves_with_path(self._params):
            array = np.ascontiguousarray(jax.device_get(leaf))
            sha.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}".encode())
            sha.update(array.view(np.uint8).reshape(-1).data)
        return sha.hexdigest()

    def encode_queries(self, texts: Sequence[str], *, trim: bool = False) -> Float32[np.ndarray, "n E"]:
        """Unit query vectors, one per text.

        `trim` computes no more token positions than the least of 16, 32, 64, ... that holds the texts: faster for a
        model with a larger inputs.max_query_tokens, and equal up to float32 rounding; equal bits for others.
        """
        check_lists(texts=texts)
        size = self._batch_rows(len(texts))
        rows = [np.zeros((0, self.model.search_dim), np.float32)]
        for batch in query_batches(texts, self.tokenizer, self.keywords, self.model.inputs, batch_size=size):
            arrays = {name: batch[name] for name in ("query_tokens", "query_mask", "query_keywords")}
            placed = self._shard(_trim(arrays) if trim else arrays)
            rows.append(to_host(_query_embedding(self.model, self._params, **placed), self._mesh))
        return np.concatenate(rows)[: len(texts)]

    def expand_query(self, query: str, min_probability: float = 0.05) -> QueryExpansion:
        """As `expand_queries`, for one query."""
        (expansion,) = self.expand_queries([query], min_probability)
        return expansion

    def expand_queries(self, queries: Sequence[str], min_probability: float = 0.05) -> list[QueryExpansion]:
        """The keywords predicted for the relevant products of each query, with at least `min_probability`.

        Raises InputError when the model predicts no keywords.
        """
        check_lists(queries=queries)
        if not self.model.has_enrichment:
            reason = "model.enrichment is false" if len(self.keywords) else "its catalog gave no keywords"
            raise InputError(f"this model does not enrich queries: {reason}; train one that does")
        expansions = []
        size = self._batch_rows(len(queries))
        for batch in query_batches(queries, self.tokenizer, self.keywords, self.model.inputs, batch_size=size):
            placed = self._shard({name: batch[name] for name in ("query_tokens", "query_mask")})
            outputs = _query_outputs(self.model, self._params, **placed)
            logits, gates = to_host((outputs.logits, outputs.gate), self._mesh)
            expansions += [self._expansion(*row, min_probability) for row in zip(logits, gates, strict=True)]
        return expansions[: len(queries)]

    def _expansion(self, logits: Float32[np.ndarray, " V"], gate: np.float32, min_probability: float) -> QueryExpansion:
        probabilities = 1.0 / (1.0 + np.exp(-logits.astype(np.float64)))
        likely = np.flatnonzero(probabilities >= min_probability)
        order = likely[np.argsort(-probabilities[likely], kind="stable")].tolist()
        return QueryExpansion([(self.keywords.keywords[k], float(probabilities[k])) for k in order], float(gate))

    def encode_products(
        self, titles: Sequence[str], images: Sequence[bytes | None], names: Sequence[str] | None = None
    ) -> ProductEmbeddings:
        """Unit product vectors and the weights of title and image in each.

        `images` are the bytes of JPEG, PNG or WebP files; "" is a missing title, None a missing image. Raises
        InputError for a product that lacks both, or whose image is unreadable, and calls it by `names`.
        """
        check_lists(titles=titles, images=images)
        for i, (title, image) in enumerate(zip(titles, images, strict=True)):
            if not strip_text(title) and not image:
                name = repr(names[i]) if names is not None else f"number {i}"
                raise InputError(f"product {name} has neither title nor image; give one of them")
        width, size = self.model.search_dim, self._batch_rows(len(titles))
        vectors, weights = [np.zeros((0, width), np.float32)], [np.zeros((0, 2), np.float32)]
        own, inputs = local_rows(size, self._mesh), self.model.inputs
        for batch in product_batches(
            titles, images, self.tokenizer, inputs, batch_size=size, names=names, decoded_rows=own
        ):
            placed = self._shard({name: batch[name] for name in PRODUCT_INPUTS})
            fused = to_host(_product_embedding(self.model, self._params, **placed), self._mesh)
            vectors.append(fused.vectors)
            weights.append(fused.weights)
        return ProductEmbeddings(np.concatenate(vectors)[: len(titles)], np.concatenate(weights)[: len(titles)])

    def index(
        self,
        catalog: Catalog | str | Path | None = None,
        split: Split | None = None,
        progress: Progress = no_progress,
        *,
        embeddings: str | Path = "",
    ) -> None:
        """Embeds the products of a catalog, or of one split, for `search`; replaces the previous index.

        `catalog` None is the catalog that the run was trained on; "" is the packaged one.
        `embeddings` is a folder that keeps the vectors on disk in float16; only missing ones are embedded
        (docs/embeddings.md). Raises InputError when the folder holds vectors of another model or catalog.
        """
        if not isinstance(catalog, Catalog):
            catalog = Catalog.load(self._default_catalog if catalog is None else catalog)
        products = catalog.products if split is None else catalog.split_products(split)
        modality, part = self.modalities, split or "all"
        if embeddings:
            folder = Path(embeddings) / f"{part}-{modality}"
            self._index = embed_to_disk(self, catalog, products, folder, part, modality, progress)
        else:
            self._index = embed_products(self, catalog, products, modality, progress)
        self._catalog, self._products = catalog, products

    def search(
        self, queries: Sequence[str], k: int = 10, rerank: int = 0, weight: float = DEFAULT_WEIGHT
    ) -> list[list[Hit]]:
        """The top `k` indexed products of each query, best first; ties in catalog order.

        `rerank` > 0 orders the first `rerank` products by logit_scale * cosine + `weight` * `Hit.matching_logit` and
        keeps the order of the rest (`retrieval/rerank.py`); a report of `eval.py` states the weight that was best on
        validation queries. Raises InputError without an index, and when the model cannot re-rank.
        """
        check_lists(queries=queries)
        if self._index is None or self._catalog is None:
            raise InputError("nothing to search: call index() with a catalog first")
        if rerank < 0:
            raise InputError(f"rerank is {rerank}, expected at least 0")
        vectors = self.encode_queries(queries)
        ranking = self._index.search(vectors, max(k, rerank))
        scores, indices = ranking
        logits = np.full(scores.shape, np.nan, np.float32)
        if rerank:
            matcher = check_can_match(self)
            candidates = match_candidates(
                matcher, self._catalog, self._products, queries, ranking, rerank, self.modalities
            )
            order, first = candidates.order(weight), slice(0, rerank)
            logits[:, first] = candidates.logits
            for array in (scores, indices, logits):
                array[:, first] = np.take_along_axis(array[:, first], order, axis=1)
        return [list(self._hits(*row)) for row in zip(scores[:, :k], indices[:, :k], logits[:, :k], strict=True)]

    def _hits(self, scores: np.ndarray, indices: np.ndarray, logits: np.ndarray) -> Iterator[Hit]:
        assert self._index is not None
        for score, i, logit in zip(scores.tolist(), indices.tolist(), logits.tolist(), strict=True):
            if i >= 0:
                title, image = self._index.weights[i].tolist()
                yield Hit(self._products[i], score, title, image, None if np.isnan(logit) else logit)

    @property
    def can_match(self) -> bool:
        """Whether the model has a trained matching encoder."""
        return self.model.config.matching.layers > 0 and self._trained_matching

    @property
    def logit_scale(self) -> float:
        """The factor of cosines in the contrastive loss."""
        return float(np.exp(np.asarray(self._params["log_logit_scale"])))

    def matching_logits(
        self,
        texts: Sequence[str],
        titles: Sequence[str],
        images: Sequence[bytes | None],
        pairs: Int32[np.ndarray, "n 2"],
    ) -> Float32[np.ndarray, "n"]:
        """The matching logit of each pair (position of a text, position of a product); see `encode_products`.

        Memory: the token states of all texts, and those of `batch_size` products and pairs.
        """
        check_lists(texts=texts, titles=titles, images=images)
        check_can_match(self)
        if not len(pairs):
            return np.zeros(0, np.float32)
        inputs, rows, size = self.model.inputs, self._batch_rows(len(titles)), self._batch_rows(len(pairs))
        states, masks = [], []
        for batch in query_batches(
            texts, self.tokenizer, self.keywords, inputs, batch_size=self._batch_rows(len(texts))
        ):
            placed = self._shard({name: batch[name] for name in ("query_tokens", "query_mask")})
            states.append(np.asarray(_query_outputs(self.model, self._params, **placed).states))
            masks.append(batch["query_mask"])
        query_states, query_masks = np.concatenate(states), np.concatenate(masks)
        logits = np.zeros(len(pairs), np.float32)
        for start, batch in enumerate(product_batches(titles, images, self.tokenizer, inputs, batch_size=rows)):
            placed = self._shard({name: batch[name] for name in PRODUCT_INPUTS})
            product = jax.device_put(_product_states(self.model, self._params, placed), replicated_sharding(self._mesh))
            in_batch = np.flatnonzero(pairs[:, 1] // rows == start)
            for first in range(0, len(in_batch), size):
                chosen = in_batch[first : first + size]
                query, position = np.resize(pairs[chosen], (size, 2)).T  # repeats pairs to fill the last chunk
                placed = self._shard(
                    {"states": query_states[query], "mask": query_masks[query], "at": position - start * rows}
                )
                computed = _matching_logits(self.model, self._params, product, **placed)
                logits[chosen] = np.asarray(computed)[: len(chosen)]
        return logits

    def _batch_rows(self, n: int) -> int:
        """The batch size for `n` rows: a power of two, to compile few programs, and a multiple of the devices."""
        rows = 1 << max(n - 1, 0).bit_length()
        devices = self._mesh.size
        return -(-min(rows, self._batch_size) // devices) * devices

    def _shard(self, batch: Batch) -> dict[str, jax.Array]:
        return shard_rows(batch, self._mesh)


def _trim(arrays: Batch) -> Batch:
    """The arrays of queries with the columns of padding cut to the least of few lengths."""
    longest = int(arrays["query_mask"].sum(axis=1).max(initial=0))
    length = max(MIN_TRIMMED_LENGTH, 1 << max(longest - 1, 0).bit_length())
    return {name: array if name == "query_keywords" else array[:, :length] for name, array in arrays.items()}


@partial(jax.jit, static_argnums=0)
def _query_embedding(
    model: Make, params: Params, query_tokens: jax.Array, query_mask: jax.Array, query_keywords: jax.Array
) -> Any:
    return model.apply({"params": params}, query_tokens, query_mask, query_keywords, method=Make.query_embedding)


@partial(jax.jit, static_argnums=0)
def _query_outputs(model: Make, params: Params, query_tokens: jax.Array, query_mask: jax.Array) -> Any:
    return model.apply({"params": params}, query_tokens, query_mask, method=Make.query_outputs)


@partial(jax.jit, static_argnums=0)
def _product_embedding(
    model: Make,
    params: Params,
    title_tokens: jax.Array,
    title_mask: jax.Array,
    image: jax.Array,
    has_title: jax.Array,
    has_image: jax.Array,
) -> Any:
    rows = (title_tokens, title_mask, image, has_title, has_image)
    fused: Any = model.apply({"params": params}, *rows, method=Make.product_embedding)
    return fused._replace(title=None, image=None)  # unused here, so not computed


@partial(jax.jit, static_argnums=0)
def _product_states(model: Make, params: Params, batch: dict[str, jax.Array]) -> Any:
    return model.apply({"params": params}, *(batch[name] for name in PRODUCT_INPUTS), method=Make.product_outputs)[1]


@partial(jax.jit, static_argnums=0)
def _matching_logits(
    model: Make, params: Params, product: ProductStates, states: jax.Array, mask: jax.Array, at: jax.Array
) -> Any:
    """Logits of queries with the products at positions `at`."""
    chosen = jax.tree.map(lambda x: x[at], product)
    return model.apply({"params": params}, states, mask, chosen, "item", method=Make.match)
