"""QIM and QIM2: whether a product, or its image alone, matches a query [blog; negatives as in ALBEF, Li et al., arXiv
2107.07651, without false negatives: ours].

With m(q, p) the logit of the matching encoder (model/matching.py), in groups of g consecutive rows:

    (q_i, p_i)    label 1
    (q_i, p_n)    label 0    n drawn from the group with probability proportional to E_in exp(S_in)
    (q_n, p_i)    label 0    n drawn from the group with probability proportional to E_ni exp(S_ni)
    (q'_i, p_i)   label 0    q'_i is q_i with one keyword replaced, where the batch has such a query
    QIM = sum w BCE(m, label) / sum w        over all existing pairs; 0 if there are none

S_ij = logit_scale * q_i . p_j, and E_ij = 1 where (i, j) may be a negative, as in objectives/contrastive.py: a false
negative is never drawn. A row without a negative in its group draws none. A drawn pair has the weight of the row that
drew it. QIM2 classifies the same pairs from the image alone, for products that have one. Drawing has no gradient and is
a function of the key, the index of the group in the global batch and its rows.

A group divides the rows that are encoded together, so states never cross devices and no group spans micro-batches.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, Key

from make_jax.config import ObjectivesConfig
from make_jax.model.make import Apply, Make, Outputs
from make_jax.model.matching import MatchTarget
from make_jax.objectives.false_negatives import EXCLUDED, ContrastiveInputs, cosines, false_negatives
from make_jax.objectives.weighted_means import WeightedMean, weighted_mean


class DrawnNegatives(NamedTuple):
    """Negatives of each row, as positions in its group; -1: none."""

    products: Int[Array, "B"]  # for query i
    queries: Int[Array, "B"]  # for product i


class MatchingPairs(NamedTuple):
    """Inputs, labels and weights of the matching encoder: C pairs per row."""

    query_states: Float[Array, "B C Lq D"]
    query_mask: Bool[Array, "B C Lq"]
    product: Any  # ProductStates with arrays [B, C, ...]
    labels: Float[Array, "B C"]
    weights: Float[Array, "B C"]  # 0: the pair does not exist
    image_weights: Float[Array, "B C"]  # for QIM2: also 0 where the product has no image


def matching_losses(
    config: ObjectivesConfig,
    out: Outputs,
    batch: Mapping[str, Array],
    apply: Apply,
    key: Key[Array, ""],
    first_group: Int[Array, ""],
) -> tuple[dict[str, WeightedMean], dict[str, WeightedMean]]:
    """Returns the losses `qim` and `qim2`, each where it has a weight, and their metrics.

    Metrics: `qim_accuracy` and `qim2_accuracy`, the weighted share of pairs whose logit has the right sign.
    `config.matching_group` must divide the rows; `first_group` is the index of their first group in the global batch.
    """
    pairs = make_pairs(config, out, batch, key, first_group)
    flat: Any = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), pairs)
    losses: dict[str, WeightedMean] = {}
    metrics: dict[str, WeightedMean] = {}
    targets: tuple[tuple[str, MatchTarget, Array], ...] = (
        ("qim", "item", flat.weights),
        ("qim2", "image", flat.image_weights),
    )
    for name, target, weights in targets:
        if getattr(config, name):
            logits = apply(Make.match, flat.query_states, flat.query_mask, flat.product, target)
            losses[name] = weighted_mean(optax.sigmoid_binary_cross_entropy(logits, flat.labels), weights)
            is_correct = ((logits > 0) == (flat.labels > 0)).astype(jnp.float32)
            metrics[f"{name}_accuracy"] = weighted_mean(is_correct, weights)
    return losses, metrics


def make_pairs(
    config: ObjectivesConfig,
    out: Outputs,
    batch: Mapping[str, Array],
    key: Key[Array, ""],
    first_group: Int[Array, ""],
) -> MatchingPairs:
    """Returns three pairs per row, four where the batch has swapped queries."""
    use_keywords, group = config.keyword_masking, config.matching_group
    weights, has_image = batch["weight"], batch["has_image"]
    queries = ContrastiveInputs(out.query.vectors, batch["query_id"], batch["query_keywords"] if use_keywords else None)
    products = ContrastiveInputs(
        out.product.vectors, batch["product_id"], batch["product_keywords"] if use_keywords else None
    )
    drawn = draw_negatives(
        queries, products, out.log_logit_scale, weights=weights, group=group, key=key, first_group=first_group
    )

    own = (out.query.states, batch["query_mask"])
    query_parts = [own, own, take(own, drawn.queries, group)]
    product_parts = [out.states, take(out.states, drawn.products, group), out.states]
    exists = [weights > 0, drawn.products >= 0, drawn.queries >= 0]
    with_image = [has_image, take(has_image, drawn.products, group), has_image]
    if out.swap is not None:
        query_parts.append((out.swap.states, batch["swap_mask"]))
        product_parts.append(out.states)
        exists.append(jnp.any(batch["swap_mask"], axis=1))
        with_image.append(has_image)

    # Stacked on axis 1, so that the rows of a device stay on it.
    def stack(parts: list[Any]) -> Any:
        return jax.tree.map(lambda *each: jnp.stack(each, axis=1), *parts)

    states, mask = stack(query_parts)
    labels = jnp.zeros((weights.shape[0], len(exists)), jnp.float32).at[:, 0].set(1.0)
    pair_weights = jnp.where(stack(exists), weights[:, None], 0.0)
    image_weights = jnp.where(stack(with_image), pair_weights, 0.0)
    return MatchingPairs(states, mask, stack(product_parts), labels, pair_weights, image_weights)


def draw_negatives(
    queries: ContrastiveInputs,
    products: ContrastiveInputs,
    log_logit_scale: Float[Array, ""],
    *,
    weights: Float[Array, "B"],
    group: int,
    key: Key[Array, ""],
    first_group: Int[Array, ""],
) -> DrawnNegatives:
    """Draws a negative product for each query and a negative query for each product, from the same group of rows.

    False negatives and rows of weight 0 are never drawn. The random key of a group is derived from its index in
    the global batch; `first_group` is the index of the first group of these rows.
    """
    queries, products, weights = jax.lax.stop_gradient((queries, products, weights))
    scale = jnp.exp(jax.lax.stop_gradient(log_logit_scale).astype(jnp.float32))

    def group_logits(
        queries: ContrastiveInputs, products: ContrastiveInputs, weights: Float[Array, "g"]
    ) -> Float[Array, "g g"]:
        dots = cosines(queries.embeddings, products.embeddings)
        weighted = (weights > 0)[:, None] & (weights > 0)[None, :]
        negative = weighted & ~false_negatives(queries, products, queries.ids, products) & ~jnp.eye(group, dtype=bool)
        return jnp.where(negative, scale * dots, EXCLUDED)

    logits = jax.vmap(group_logits)(*grouped((queries, products, weights), group))  # [B / g, g, g]

    def draw_rows(key: Array, logits: Float[Array, "g g"]) -> Int[Array, "g"]:
        drawn = jax.random.categorical(key, logits, axis=-1)
        return jnp.where(jnp.any(logits > EXCLUDED, axis=-1), drawn, -1).astype(jnp.int32)

    def draw_group(index: Int[Array, ""], logits: Float[Array, "g g"]) -> DrawnNegatives:
        query_key, product_key = jax.random.split(jax.random.fold_in(key, index))
        return DrawnNegatives(draw_rows(query_key, logits), draw_rows(product_key, logits.T))

    drawn = jax.vmap(draw_group)(first_group + jnp.arange(logits.shape[0]), logits)
    return DrawnNegatives(drawn.products.reshape(-1), drawn.queries.reshape(-1))


def take(tree: Any, positions: Int[Array, "B"], group: int) -> Any:
    """Returns row `positions[i]` of row i's group, for arrays [B, ...] of a tree; any row of the group for -1."""
    indices = jnp.maximum(positions, 0).reshape(-1, group)
    taken = jax.tree.map(lambda x: jax.vmap(lambda rows, index: rows[index])(x, indices), grouped(tree, group))
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), taken)


def grouped(tree: Any, group: int) -> Any:
    """Returns arrays [B, ...] as [B / group, group, ...]."""
    return jax.tree.map(lambda x: x.reshape(-1, group, *x.shape[1:]), tree)
