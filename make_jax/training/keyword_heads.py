"""Fits the heads of keyword evidence (`model/keyword_evidence.py`) when the encoders are done [ours].

    minimise  sum_i sum_k BCE(head_m(d_mi)_k, y_ik)        y_ik = 1 where K(p_i), of title and attributes, has keyword k

over training products, the directions d fixed. Trained beside the encoders the heads follow directions that turn all
the time and end far behind these (docs/study.md); fitted afterwards they cost one pass over the products and seconds
for each head, and change nothing that the encoders learned.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from make_jax.catalog.keywords import KeywordVocabulary
from make_jax.catalog.reader import Catalog
from make_jax.errors import InputError
from make_jax.inputs.batch import PRODUCT_INPUTS
from make_jax.inputs.eval_pipeline import product_batches
from make_jax.inputs.tokenizer import Tokenizer
from make_jax.model.keyword_evidence import KeywordHead, ModalityEmbedding
from make_jax.model.make import Make
from make_jax.objectives.keywords import keyword_loss
from make_jax.retrieval.embed import read_products
from make_jax.runs.mesh import replicate, replicated_sharding, shard_rows
from make_jax.runs.state import Params

MOST = 100_000  # products that heads are fitted to; of more, as many are drawn
PART = 200  # steps between two looks whether the fit should give way
STEPS, BATCH, LEARNING_RATE, WEIGHT_DECAY = 2000, 256, 2e-3, 1e-2  # chosen on validation, fashion-sparse-mini
NEVER = 1e-4  # added to the share of products that have a keyword


def fit_keyword_heads(
    model: Make,
    params: Params,
    catalog: Catalog,
    tokenizer: Tokenizer,
    keywords: KeywordVocabulary,
    mesh: Mesh,
    batch_size: int,
    seed: int,
    note: Callable[[str], None],
    give_way: Callable[[], None] = lambda: None,
) -> Params:
    """The parameters `keyword_evidence` of a model whose other parameters are `params`; a function of `seed`.

    All processes read all products. An unreadable picture does not end a run that is as good as over: its batch is left
    out, and `note` is told. `give_way` is called every so often, and may end the fit by an exception.
    """
    params = jax.device_put(params, replicated_sharding(mesh))  # once: they are read for every batch
    rng = np.random.default_rng(seed)
    products = catalog.split_products("train")
    products = [products[i] for i in np.sort(rng.permutation(len(products))[:MOST])]
    held = [keywords.tag(p.title) | keywords.attribute_keywords(p.attributes) for p in products]
    packed = keywords.pack(held)
    share = np.zeros(model.keyword_dims)
    for k in (k for some in held for k in some if k < model.keyword_dims):
        share[k] += 1 / len(held)
    known = np.log((share + NEVER) / (1 + NEVER - share)).astype(np.float32)
    size = -(-batch_size // mesh.size) * mesh.size
    rows: list[dict[str, ModalityEmbedding]] = []
    read: list[int] = []  # positions of products
    for start in range(0, len(products), size):
        give_way()
        some = products[start : start + size]
        titles, images = read_products(catalog, some, model.config.adaptation.modalities)
        names = [product.id for product in some]
        try:
            [batch] = product_batches(titles, images, tokenizer, model.inputs, batch_size=size, names=names)
        except InputError as error:
            note(f"{len(some)} products are left out of keyword evidence: {error}")
            continue
        placed = shard_rows({name: batch[name] for name in PRODUCT_INPUTS}, mesh)
        found, n = jax.device_get(_directions(mesh, model, params, placed)), len(some)
        rows.append({name: ModalityEmbedding(of.vectors[:n], of.present[:n]) for name, of in found.items()})
        read += range(start, start + n)
    fitted: dict[str, Any] = {"known": known}
    for name in sorted(params["keyword_evidence"].keys() - {"known"}):
        directions = [found[name].vectors for found in rows]
        has = np.flatnonzero(np.concatenate([np.zeros(0, bool), *(found[name].present for found in rows)]))
        given = np.concatenate([np.zeros((0, model.config.embedding_dim), np.float32), *directions])[has]
        fitted[name] = fit_head(given, packed[read][has], known, mesh, seed, give_way)
    return replicate(fitted, mesh)


def fit_head(
    directions: np.ndarray,
    keywords: np.ndarray,
    known: np.ndarray,
    mesh: Mesh,
    seed: int,
    give_way: Callable[[], None] = lambda: None,
) -> Params:
    """The parameters of one head for directions [n, E] of products with packed keywords [n, words].

    `known` [V] are the logits of the keywords of any product: what the head says before it has learned. Without
    products it says nothing else.
    """
    head, steps = KeywordHead(len(known)), STEPS
    if not len(directions):  # one row, for its shape
        directions, keywords, steps = np.zeros((1, directions.shape[1]), np.float32), np.zeros((1, 1), np.uint32), 0
    optimizer = optax.adamw(
        optax.warmup_cosine_decay_schedule(0.0, LEARNING_RATE, STEPS // 50, STEPS), weight_decay=WEIGHT_DECAY
    )

    @partial(jax.jit, out_shardings=replicated_sharding(mesh))
    def start(directions: jax.Array) -> tuple[Params, Any]:
        params = head.init(jax.random.key(seed), directions[:1])["params"]
        params = {**params, "predict": {**params["predict"], "bias": jnp.asarray(known)}}
        return params, optimizer.init(params)

    @partial(jax.jit, out_shardings=replicated_sharding(mesh))
    def fit(state: tuple[Params, Any], directions: jax.Array, keywords: jax.Array, steps: jax.Array) -> Any:
        def loss(params: Params, chosen: jax.Array) -> jax.Array:
            logits = head.apply({"params": params}, directions[chosen])
            return keyword_loss(logits, keywords[chosen], jnp.ones(BATCH)).value  # type: ignore[arg-type]

        def step(i: jax.Array, state: tuple[Params, Any]) -> tuple[Params, Any]:
            params, opt_state = state
            chosen = jax.random.randint(jax.random.fold_in(jax.random.key(seed), i), (BATCH,), 0, len(directions))
            updates, opt_state = optimizer.update(jax.grad(loss)(params, chosen), opt_state, params)
            return optax.apply_updates(params, updates), opt_state

        return jax.lax.fori_loop(steps[0], steps[1], step, state)

    given = replicate((directions, keywords), mesh)
    state = start(given[0])
    for first in range(0, steps, PART):
        give_way()
        state = jax.block_until_ready(fit(state, *given, np.array([first, min(first + PART, steps)])))
    return state[0]


@partial(jax.jit, static_argnums=(0, 1))
def _directions(mesh: Mesh, model: Make, params: Params, batch: dict[str, jax.Array]) -> Any:
    """On every device whole, so that each process can read them."""
    rows = (batch[name] for name in PRODUCT_INPUTS)
    found = model.apply({"params": params}, *rows, method=Make.modality_embeddings)
    return jax.lax.with_sharding_constraint(found, replicated_sharding(mesh))
