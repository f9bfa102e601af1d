"""QIM and QIM2: does this product, or its image alone, answer this query? [blog; the negatives as in ALBEF, Li et al.,
arXiv 2107.07651, with false negatives left out, ours]

With m(q, p) the logit of the matching encoder (model/matching.py), in groups of g consecutive rows:

    (q_i, p_i)    label 1
    (q_i, p_n)    label 0    n drawn from the group with probability proportional to E_in exp(S_in)
    (q_n, p_i)    label 0    n drawn from the group with probability proportional to E_ni exp(S_ni)
    (q'_i, p_i)   label 0    q'_i is q_i with one keyword replaced, where there is such a query
    QIM = sum w BCE(m, label) / sum w        over all pairs that there are; 0 when there is none

S_ij = scale * q_i . p_j and E_ij = 1 where (i, j) may be a negative are those of objectives/contrastive.py, so a pair
that is no negative there is never drawn here; a row without any negative in its group draws none. A drawn pair has the
weight of the row that drew it. QIM2 asks the same pairs about the image alone, of products that have one. Drawing has
no gradient and is a function of the key, the number of the group in the global batch and its rows.

A group divides the rows that are encoded at once, so states of queries and products never cross devices and no group is
spread over micro-batches.
"""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, Key

from make_jax.config import ObjectivesConfig
from make_jax.model.make import Apply, Make, Outputs
from make_jax.objectives.false_negatives import EXCLUDED, ContrastiveInputs, false_negatives
from make_jax.objectives.weighted_means import WeightedMean, weighted_mean


class Drawn(NamedTuple):
    """The negatives of each row, as positions in its group; -1: there is none."""

    products: Int[Array, "B"]  # for query i
    queries: Int[Array, "B"]  # for product i


class Pairs(NamedTuple):
    """What the matching encoder is asked about a batch: C pairs a row."""

    query_states: Float[Array, "B C Lq D"]
    query_mask: Bool[Array, "B C Lq"]
    product: Any  # a ProductStates whose arrays are [B, C, ...]
    labels: Float[Array, "B C"]
    weights: Float[Array, "B C"]  # 0: there is no such pair
    pictured: Float[Array, "B C"]  # the same for QIM2: 0 also where the product has no image


def matching_losses(
    config: ObjectivesConfig,
    out: Outputs,
    batch: Mapping[str, Array],
    apply: Apply,
    key: Key[Array, ""],
    first: Int[Array, ""],
) -> tuple[dict[str, WeightedMean], dict[str, WeightedMean]]:
    """The losses `qim` and `qim2`, each where it has a weight, and their metrics.

    Metrics: `qim_accuracy` and `qim2_accuracy`, the weighted share of pairs whose logit is on the right side of 0.
    `config.matching_group` must divide the rows; `first` is the number of their first group in the global batch.
    """
    pairs = make_pairs(config, out, batch, key, first)
    flat: Any = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), pairs)
    losses: dict[str, WeightedMean] = {}
    metrics: dict[str, WeightedMean] = {}
    asked: tuple[tuple[str, Literal["item", "image"], Array], ...] = (
        ("qim", "item", flat.weights),
        ("qim2", "image", flat.pictured),
    )
    for name, what, weights in asked:
        if getattr(config, name):
            logits = apply(Make.match, flat.query_states, flat.query_mask, flat.product, what)
            losses[name] = weighted_mean(optax.sigmoid_binary_cross_entropy(logits, flat.labels), weights)
            right = ((logits > 0) == (flat.labels > 0)).astype(jnp.float32)
            metrics[f"{name}_accuracy"] = weighted_mean(right, weights)
    return losses, metrics


def make_pairs(
    config: ObjectivesConfig, out: Outputs, batch: Mapping[str, Array], key: Key[Array, ""], first: Int[Array, ""]
) -> Pairs:
    """The pairs of a batch: three a row, four where the batch has swapped queries."""
    known, group = config.keyword_masking, config.matching_group
    weights, has_image = batch["weight"], batch["has_image"]
    queries = ContrastiveInputs(out.query.vectors, batch["query_id"], batch["query_keywords"] if known else None)
    products = ContrastiveInputs(out.product.vectors, batch["product_id"], batch["product_keywords"] if known else None)
    drawn = draw(queries, products, out.log_logit_scale, weights=weights, group=group, key=key, first=first)

    own = (out.query.states, batch["query_mask"])
    asked = [own, own, take(own, drawn.queries, group)]
    answers = [out.states, take(out.states, drawn.products, group), out.states]
    there = [weights > 0, drawn.products >= 0, drawn.queries >= 0]
    pictured = [has_image, take(has_image, drawn.products, group), has_image]
    if out.swap is not None:
        asked.append((out.swap.states, batch["swap_mask"]))
        answers.append(out.states)
        there.append(jnp.any(batch["swap_mask"], axis=1))
        pictured.append(has_image)

    # Beside each other on axis 1, so that a device's rows stay its own.
    def beside(parts: list[Any]) -> Any:
        return jax.tree.map(lambda *each: jnp.stack(each, axis=1), *parts)

    states, mask = beside(asked)
    labels = jnp.zeros((weights.shape[0], len(there)), jnp.float32).at[:, 0].set(1.0)
    chosen = jnp.where(beside(there), weights[:, None], 0.0)
    return Pairs(states, mask, beside(answers), labels, chosen, jnp.where(beside(pictured), chosen, 0.0))


def draw(
    queries: ContrastiveInputs,
    products: ContrastiveInputs,
    log_logit_scale: Float[Array, ""],
    *,
    weights: Float[Array, "B"],
    group: int,
    key: Key[Array, ""],
    first: Int[Array, ""],
) -> Drawn:
    """A negative product for each query and a negative query for each product, from the same group of rows.

    Which pairs are no negatives is told by ids, keywords and weights as in the contrast. Every group draws by a key of
    its own, told by its number in the global batch, of which `first` is that of the first group here.
    """
    queries, products, weights = jax.lax.stop_gradient((queries, products, weights))
    scale = jnp.exp(jax.lax.stop_gradient(log_logit_scale).astype(jnp.float32))

    def scores(
        queries: ContrastiveInputs, products: ContrastiveInputs, weights: Float[Array, "g"]
    ) -> Float[Array, "g g"]:
        cosines = jnp.einsum("id,jd->ij", queries.embeddings, products.embeddings, preferred_element_type=jnp.float32)
        live = (weights > 0)[:, None] & (weights > 0)[None, :]
        negative = live & ~false_negatives(queries, products, queries.ids, products) & ~jnp.eye(group, dtype=bool)
        return jnp.where(negative, scale * cosines, EXCLUDED)

    logits = jax.vmap(scores)(*grouped((queries, products, weights), group))  # [B / g, g, g]

    def drawn(key: Array, logits: Float[Array, "g g"]) -> Int[Array, "g"]:
        found = jax.random.categorical(key, logits, axis=-1)
        return jnp.where(jnp.any(logits > EXCLUDED, axis=-1), found, -1).astype(jnp.int32)

    def both(number: Int[Array, ""], logits: Float[Array, "g g"]) -> Drawn:
        by_query, by_product = jax.random.split(jax.random.fold_in(key, number))
        return Drawn(drawn(by_query, logits), drawn(by_product, logits.T))

    found = jax.vmap(both)(first + jnp.arange(logits.shape[0]), logits)
    return Drawn(found.products.reshape(-1), found.queries.reshape(-1))


def take(tree: Any, positions: Int[Array, "B"], group: int) -> Any:
    """Row `positions[i]` of row i's group, for arrays [B, ...] of any tree; position -1 gives some row of the group."""
    places = jnp.maximum(positions, 0).reshape(-1, group)
    chosen = jax.tree.map(lambda x: jax.vmap(lambda rows, at: rows[at])(x, places), grouped(tree, group))
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), chosen)


def grouped(tree: Any, group: int) -> Any:
    """Arrays [B, ...] as [B / group, group, ...]."""
    return jax.tree.map(lambda x: x.reshape(-1, group, *x.shape[1:]), tree)
