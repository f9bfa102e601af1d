"""The training loss: the weighted sum of the objectives that have a weight in the config.

    L = qic QIC(q, p) + title_contrast QIC(q, l2(W_t t)) + image_contrast QIC(q, l2(W_v v)) + key KEY
        + qim QIM + qim2 QIM2 + mlm MLM + mpm MPM

`objectives/__init__.py` lists them with their measured effect. The two auxiliary contrastive losses [ours] train both
encoders directly: otherwise a modality that is weak early is outweighed by the other and learns little. A row that
lacks a modality has weight 0 in that modality's term. All contrastive losses share logit scale and bias; swaps are
negatives of QIC alone. An objective of weight 0 is not computed.

Contrastive losses compare all rows of the global batch, but need only their embeddings. All other objectives read rows
that are encoded together, and are weighted means whose sums `local_means` returns. So rows can be encoded one
micro-batch after another, keeping embeddings and sums alone (`training/gradient_cache.py`).
"""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from make_jax.config import ObjectivesConfig
from make_jax.errors import lookup
from make_jax.model.make import Apply, Outputs
from make_jax.objectives.contrastive import IMPLEMENTATIONS, LOSS_TYPES, contrastive_loss
from make_jax.objectives.false_negatives import ContrastiveInputs
from make_jax.objectives.keywords import keyword_loss
from make_jax.objectives.masked import mlm, mpm
from make_jax.objectives.matching import matching_losses
from make_jax.objectives.row_statistics import Axis
from make_jax.objectives.weighted_means import WeightedMean

Batch = Mapping[str, jax.Array]
Metrics = dict[str, jax.Array]
OBJECTIVES = ("qic", "title_contrast", "image_contrast", "key", "qim", "qim2", "mlm", "mpm")


class Embeddings(NamedTuple):
    """Inputs of the contrastive losses; None where the model or the batch has none, or no loss reads it."""

    query: Float[Array, "b E"]
    swap: Float[Array, "b E"] | None  # the query with one keyword replaced
    product: Float[Array, "b E"]
    title: Float[Array, "b E"] | None
    image: Float[Array, "b E"] | None


def check_objectives(config: ObjectivesConfig) -> None:
    """Raises InputError, with the nearest name, for a loss type or an implementation that does not exist."""
    lookup(LOSS_TYPES, config.loss_type, "objectives.loss_type")
    lookup(IMPLEMENTATIONS, config.implementation, "objectives.implementation")


def contrast_embeddings(config: ObjectivesConfig, out: Outputs) -> Embeddings:
    """Returns the embeddings that the contrastive losses of the config read."""
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
) -> dict[str, WeightedMean]:
    """Returns all other objectives and their metrics by name, as sums to add up over micro-batches and devices.

    `apply(method, *args)` calls other methods of the model with the parameters and the dropout key of these rows. `key`
    is that of the step, `number` that of these rows among all micro-batches of the global batch.
    """
    means: dict[str, WeightedMean] = {}
    if config.key and out.query.logits is not None:
        means["key"] = keyword_loss(out.query.logits, batch["product_keywords"], batch["weight"])
    if config.qim or config.qim2:
        first_group = number * (batch["weight"].shape[0] // config.matching_group)
        losses, accuracies = matching_losses(config, out, batch, apply, key, first_group)
        means |= losses | accuracies
    if config.mlm:
        means["mlm"], metrics = mlm(out, batch, apply)
        means |= metrics
    if config.mpm:
        means["mpm"], metrics = mpm(batch, apply)
        means |= metrics
    return means


def total_loss(
    config: ObjectivesConfig,
    embeddings: Embeddings,
    means: Mapping[str, WeightedMean],
    batch: Batch,
    log_logit_scale: Float[Array, ""],
    logit_bias: Float[Array, ""],
    axis: Axis,
) -> tuple[Float[Array, ""], Metrics]:
    """Returns the loss over the global batch, and every objective, unweighted, with its metrics; both replicated.

    Call it on the rows of a device, with the sums of their `local_means`, inside `jax.shard_map(..., check_vma=True)`
    over `axis`; `axis=None` is one device.
    """
    losses, metrics = _contrastive_losses(config, embeddings, batch, log_logit_scale, logit_bias, axis)
    summed = means if axis is None else jax.lax.psum(means, axis)
    losses |= {name: each.value for name, each in summed.items()}
    total = sum((getattr(config, name) * losses[name] for name in OBJECTIVES if name in losses), jnp.zeros(()))
    return total, metrics | losses


def _contrastive_losses(
    config: ObjectivesConfig,
    embeddings: Embeddings,
    batch: Batch,
    log_logit_scale: Float[Array, ""],
    logit_bias: Float[Array, ""],
    axis: Axis,
) -> tuple[Metrics, Metrics]:
    """Returns the contrastive losses by name, and the metrics of QIC."""
    use_keywords = config.keyword_masking

    def contrast(
        products: Float[Array, "b E"], weights: Float[Array, "b"], swaps: ContrastiveInputs | None
    ) -> tuple[Float[Array, ""], Metrics]:
        return contrastive_loss(
            ContrastiveInputs(embeddings.query, batch["query_id"], batch["query_keywords"] if use_keywords else None),
            ContrastiveInputs(products, batch["product_id"], batch["product_keywords"] if use_keywords else None),
            log_logit_scale,
            weights=weights,
            loss_type=config.loss_type,
            logit_bias=logit_bias,
            margin=config.margin,
            swaps=swaps,
            implementation=config.implementation,
            tile=config.tile,
            axis=axis,
        )

    losses: Metrics = {}
    metrics: Metrics = {}
    weights = batch["weight"]
    if config.qic:
        swaps = None
        if embeddings.swap is not None:  # a swapped query without tokens does not exist
            swaps = ContrastiveInputs(embeddings.swap, jnp.where(jnp.any(batch["swap_mask"], axis=1), 0, -1))
        losses["qic"], metrics = contrast(embeddings.product, weights, swaps)
    for name, modality in (("title", embeddings.title), ("image", embeddings.image)):
        if modality is not None:
            with_modality = weights * batch[f"has_{name}"].astype(weights.dtype)
            losses[f"{name}_contrast"], _ = contrast(modality, with_modality, None)
    return losses, metrics
