"""Fits the keyword heads (`model/keyword_evidence.py`) to the encoders of one step of training [ours].

    minimize  sum_i sum_k BCE(head_m(e_mi)_k, y_ik)        y_ik = 1 where K(p_i), of title and attributes, has keyword k

over training products i, with fixed embeddings e_mi of modality m. Heads trained together with the encoders lag behind
embeddings that keep moving and end up far worse (docs/study.md). Fitted to the encoders of each evaluated step, they
cost one pass over the products and seconds per head, and change nothing that the encoders learn.
"""

from collections.abc import Callable, Collection, Sequence
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from jaxtyping import Bool, Float32, UInt32

from make_jax.catalog.schema import Product
from make_jax.errors import InputError
from make_jax.inputs.batch import PRODUCT_INPUTS
from make_jax.inputs.eval_pipeline import product_batches
from make_jax.model.keyword_evidence import KeywordHead
from make_jax.model.make import Make
from make_jax.objectives.keywords import keyword_loss
from make_jax.retrieval.embed import read_products
from make_jax.runs.mesh import local_rows, replicate, replicated_sharding, shard_rows
from make_jax.runs.processes import in_any_process
from make_jax.runs.state import Params
from make_jax.training.eval_context import EvalContext

MAX_PRODUCTS = 100_000  # a random sample of larger catalogs
STEPS, BATCH_SIZE, LEARNING_RATE, WEIGHT_DECAY = 2000, 256, 2e-3, 1e-2  # chosen on validation, fashion-sparse-mini
STEPS_PER_POLL = 200  # between two polls of `raise_if_stopping`
SMOOTHING = 1e-4  # added to keyword frequencies, for finite logits


class Embeddings(NamedTuple):
    """Embeddings of one modality, as NumPy arrays."""

    vectors: Float32[np.ndarray, "n E"]
    present: Bool[np.ndarray, " n"]  # whether the product has the modality


def fit_keyword_heads(
    context: EvalContext,
    params: Params,
    *,
    seed: int,
    message: Callable[[str], None],
    raise_if_stopping: Callable[[], None] = lambda: None,
) -> Params:
    """Returns the parameters `keyword_evidence` of a model whose other parameters are `params`; a function of `seed`.

    Each process decodes the images of its devices' rows. A batch with an unreadable image is left out with a `message`
    and does not end the run. `raise_if_stopping` is polled regularly and may end the fit by an exception.
    """
    c = context
    params = jax.device_put(params, replicated_sharding(c.mesh))  # once, not for every batch
    products = c.catalog.split_products("train")
    sample = np.random.default_rng(seed).permutation(len(products))[:MAX_PRODUCTS]
    products = products.select(np.sort(sample))
    keyword_sets = [c.keywords.tag(p.title) | c.keywords.attribute_keywords(p.attributes) for p in products]
    prior = prior_logits(keyword_sets, c.model.keyword_dims)
    heads: dict[str, Any] = {"known": prior}
    names = sorted(params["keyword_evidence"].keys() - {"known"})
    embeddings, rows = _embed(context, params, products, names, message, raise_if_stopping)
    targets = c.keywords.pack(keyword_sets)[rows]
    for name in names:
        present = np.flatnonzero(embeddings[name].present)
        vectors = embeddings[name].vectors[present]
        heads[name] = fit_head(vectors, targets[present], prior, c.mesh, seed, raise_if_stopping)
    return replicate(heads, c.mesh)


def prior_logits(keyword_sets: Sequence[Collection[int]], count: int) -> Float32[np.ndarray, " V"]:
    """Returns the logits of the smoothed frequencies of the first `count` keywords."""
    frequency = np.zeros(count)
    for keyword in (k for keywords in keyword_sets for k in keywords if k < count):
        frequency[keyword] += 1 / len(keyword_sets)
    return np.log((frequency + SMOOTHING) / (1 + SMOOTHING - frequency)).astype(np.float32)


def fit_head(
    embeddings: Float32[np.ndarray, "n E"],
    keywords: UInt32[np.ndarray, "n words"],
    prior: Float32[np.ndarray, " V"],
    mesh: Mesh,
    seed: int,
    raise_if_stopping: Callable[[], None] = lambda: None,
) -> Params:
    """Returns the parameters of one head for embeddings of products with packed keywords.

    The head starts from the `prior` logits as its bias; without products it stays there.
    """
    steps = STEPS
    if not len(embeddings):  # one row, for its shape
        embeddings, keywords, steps = np.zeros((1, embeddings.shape[1]), np.float32), np.zeros((1, 1), np.uint32), 0
    init, train = _programs(mesh, len(prior), STEPS, seed)
    data = replicate((embeddings, keywords), mesh)
    state = init(data[0], prior)
    for first in range(0, steps, STEPS_PER_POLL):
        raise_if_stopping()
        state = jax.block_until_ready(train(state, *data, np.array([first, min(first + STEPS_PER_POLL, steps)])))
    return state[0]


@lru_cache(maxsize=4)
def _programs(mesh: Mesh, num_keywords: int, total_steps: int, seed: int) -> tuple[Callable[..., Any], ...]:
    """The compiled functions (init, train) of a head, shared by all fits of a run."""
    head = KeywordHead(num_keywords)
    optimizer = optax.adamw(
        optax.warmup_cosine_decay_schedule(0.0, LEARNING_RATE, total_steps // 50, total_steps),
        weight_decay=WEIGHT_DECAY,
    )

    @partial(jax.jit, out_shardings=replicated_sharding(mesh))
    def init(embeddings: jax.Array, prior: jax.Array) -> tuple[Params, Any]:
        params = head.init(jax.random.key(seed), embeddings[:1])["params"]
        params = {**params, "predict": {**params["predict"], "bias": prior}}
        return params, optimizer.init(params)

    @partial(jax.jit, out_shardings=replicated_sharding(mesh))
    def train(state: tuple[Params, Any], embeddings: jax.Array, keywords: jax.Array, steps: jax.Array) -> Any:
        def loss(params: Params, rows: jax.Array) -> jax.Array:
            logits = head.apply({"params": params}, embeddings[rows])
            return keyword_loss(logits, keywords[rows], jnp.ones(BATCH_SIZE)).value  # type: ignore[arg-type]

        def step(i: jax.Array, state: tuple[Params, Any]) -> tuple[Params, Any]:
            params, opt_state = state
            key = jax.random.fold_in(jax.random.key(seed), i)
            rows = jax.random.randint(key, (BATCH_SIZE,), 0, len(embeddings))
            updates, opt_state = optimizer.update(jax.grad(loss)(params, rows), opt_state, params)
            return optax.apply_updates(params, updates), opt_state

        return jax.lax.fori_loop(steps[0], steps[1], step, state)

    return init, train


def _embed(
    context: EvalContext,
    params: Params,
    products: Sequence[Product],
    names: Sequence[str],
    message: Callable[[str], None],
    raise_if_stopping: Callable[[], None],
) -> tuple[dict[str, Embeddings], np.ndarray]:
    """Embeddings [n, E] of each modality in `names`, and the positions [n] of the products that could be read."""
    c = context
    size = -(-c.batch_size // c.mesh.size) * c.mesh.size
    own = local_rows(size, c.mesh)
    empty = Embeddings(np.zeros((0, c.model.config.embedding_dim), np.float32), np.zeros(0, bool))
    chunks: dict[str, list[Embeddings]] = {name: [empty] for name in names}
    rows: list[int] = []
    for start in range(0, len(products), size):
        raise_if_stopping()
        chunk = products[start : start + size]
        titles, images = read_products(c.catalog, chunk, c.model.config.adaptation.modalities)
        ids, batch, fault = [product.id for product in chunk], None, ""
        try:
            [batch] = product_batches(
                titles, images, c.tokenizer, c.model.inputs, batch_size=size, names=ids, decoded_rows=own
            )
        except InputError as error:
            fault = str(error)
        if in_any_process(batch is None) or batch is None:  # all leave out the same products
            fault = fault or "another process cannot read an image of theirs"
            message(f"{len(chunk)} products are left out of the keyword heads: {fault}")
            continue
        on_device = shard_rows({name: batch[name] for name in PRODUCT_INPUTS}, c.mesh)
        embedded = jax.device_get(_modality_embeddings(c.mesh, c.model, params, on_device))
        for name in names:
            vectors, present = embedded[name]
            chunks[name].append(Embeddings(vectors[: len(chunk)], present[: len(chunk)]))
        rows += range(start, start + len(chunk))
    joined = {name: Embeddings(*map(np.concatenate, zip(*parts, strict=True))) for name, parts in chunks.items()}
    return joined, np.array(rows, np.int64)


@partial(jax.jit, static_argnums=(0, 1))
def _modality_embeddings(mesh: Mesh, model: Make, params: Params, batch: dict[str, jax.Array]) -> Any:
    """Replicated, so that each process can read all rows."""
    inputs = (batch[name] for name in PRODUCT_INPUTS)
    embeddings = model.apply({"params": params}, *inputs, method=Make.modality_embeddings)
    return jax.lax.with_sharding_constraint(embeddings, replicated_sharding(mesh))
