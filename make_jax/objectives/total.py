"""What training minimises: the weighted sum of the objectives that the config gives a weight.

    L = qic QIC(q, p) + title_contrast QIC(q, l2(W_t t)) + image_contrast QIC(q, l2(W_v v)) + key KEY
        + qim QIM + qim2 QIM2 + mlm MLM + mpm MPM

The two auxiliary contrasts [ours] keep both encoders useful by themselves: a modality that is weak early is otherwise
outweighed by the other and learns little. A row that lacks a modality has weight 0 in that modality's term. All
contrasts share scale and bias; swaps are negatives of QIC alone. An objective of weight 0 is not computed.

The contrasts compare all rows of the global batch, but need of each row its vectors alone. All else looks at rows that
are encoded at once, and is a weighted mean that `local_means` leaves undivided, so that rows may be encoded one
micro-batch after another and nothing but vectors and sums has to be kept of them (`training/gradient_cache.py`).
"""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from make_jax.config import ObjectivesConfig
from make_jax.model.make import Apply, Outputs
from make_jax.objectives.contrastive import contrastive_loss
from make_jax.objectives.false_negatives import ContrastiveInputs
from make_jax.objectives.keywords import keyword_loss
from make_jax.objectives.masked import mlm, mpm
from make_jax.objectives.matching import matching_losses
from make_jax.objectives.means import Mean
from make_jax.objectives.statistics import Axis

Batch = Mapping[str, jax.Array]
Metrics = dict[str, jax.Array]
OBJECTIVES = ("qic", "title_contrast", "image_contrast", "key", "qim", "qim2", "mlm", "mpm")


class Embeddings(NamedTuple):
    """All that the contrasts need of rows; None where the model or the batch has none."""

    query: Float[Array, "b E"]
    swap: Float[Array, "b E"] | None  # the query with one keyword replaced
    product: Float[Array, "b E"]
    title: Float[Array, "b E"] | None
    image: Float[Array, "b E"] | None


def contrast_embeddings(config: ObjectivesConfig, out: Outputs) -> Embeddings:
    """The vectors that the objectives ask for."""
    swap = out.swap.vectors if out.swap is not None and config.qic else None
    title = out.product.title if config.title_contrast else None
    image = out.product.image if config.image_contrast else None
    return Embeddings(out.query.vectors, swap, out.product.vectors, title, image)


def local_means(
    config: ObjectivesConfig,
    out: Outputs,
    batch: Batch,
    apply: Apply,
    key: Key[Array, ""],
    number: Int[Array, ""],
) -> dict[str, Mean]:
    """Every objective that looks at rows encoded together, by its name, and metrics; micro-batches and devices add up.

    `apply(method, *args)` calls other methods of the model with the parameters and the dropout of these rows. `key` is
    that of the step, `number` that of these rows among all micro-batches of the global batch.
    """
    found: dict[str, Mean] = {}
    if config.key and out.query.logits is not None:
        found["key"] = keyword_loss(out.query.logits, batch["product_keywords"], batch["weight"])
    if config.qim or config.qim2:
        first = number * (batch["weight"].shape[0] // config.matching_group)
        losses, accuracies = matching_losses(config, out, batch, apply, key, first)
        found |= losses | accuracies
    if config.mlm:
        found["mlm"], told = mlm(out, batch, apply)
        found |= told
    if config.mpm:
        found["mpm"], told = mpm(batch, apply)
        found |= told
    return found


def total_loss(
    config: ObjectivesConfig,
    vectors: Embeddings,
    means: Mapping[str, Mean],
    batch: Batch,
    log_logit_scale: Float[Array, ""],
    logit_bias: Float[Array, ""],
    axis: Axis,
) -> tuple[Float[Array, ""], Metrics]:
    """The loss over the global batch, and metrics: every objective by its name, unweighted; both replicated.

    Called on a device's rows, with the sums of their `local_means`, inside `jax.shard_map(..., check_vma=True)` over
    `axis`; `axis=None` is one device.
    """
    found, metrics = _contrasts(config, vectors, batch, log_logit_scale, logit_bias, axis)
    summed = means if axis is None else jax.lax.psum(means, axis)
    found |= {name: each.value for name, each in summed.items()}
    total = sum((getattr(config, name) * found[name] for name in OBJECTIVES if name in found), jnp.zeros(()))
    return total, metrics | found


def _contrasts(
    config: ObjectivesConfig,
    vectors: Embeddings,
    batch: Batch,
    log_logit_scale: Float[Array, ""],
    logit_bias: Float[Array, ""],
    axis: Axis,
) -> tuple[Metrics, Metrics]:
    """The contrasts by name, and the metrics of QIC."""
    known = config.keyword_masking

    def contrast(
        products: Float[Array, "b E"], weights: Float[Array, "b"], swaps: ContrastiveInputs | None
    ) -> tuple[Float[Array, ""], Metrics]:
        return contrastive_loss(
            ContrastiveInputs(vectors.query, batch["query_id"], batch["query_keywords"] if known else None),
            ContrastiveInputs(products, batch["product_id"], batch["product_keywords"] if known else None),
            log_logit_scale,
            weights=weights,
            kind=config.loss_type,
            logit_bias=logit_bias,
            margin=config.margin,
            swaps=swaps,
            form=config.implementation,
            tile=config.tile,
            axis=axis,
        )

    found: Metrics = {}
    metrics: Metrics = {}
    weights = batch["weight"]
    if config.qic:
        swaps = None
        if vectors.swap is not None:  # a row that has no token has none
            swaps = ContrastiveInputs(vectors.swap, jnp.where(jnp.any(batch["swap_mask"], axis=1), 0, -1))
        found["qic"], metrics = contrast(vectors.product, weights, swaps)
    for name, direction in (("title", vectors.title), ("image", vectors.image)):
        if direction is not None:
            has = weights * batch[f"has_{name}"].astype(weights.dtype)
            found[f"{name}_contrast"], _ = contrast(direction, has, None)
    return found, metrics
