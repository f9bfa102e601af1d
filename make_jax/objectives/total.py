"""What training minimises: the weighted sum of the objectives that the config gives a weight.

    L = qic QIC(q, p) + title_contrast QIC(q, l2(W_t t)) + image_contrast QIC(q, l2(W_v v)) + key KEY
        + qim QIM + qim2 QIM2 + mlm MLM + mpm MPM

The two auxiliary contrasts [ours] keep both encoders useful by themselves: a modality that is weak early is otherwise
outweighed by the other and learns little. A row that lacks a modality has weight 0 in that modality's term. All
contrasts share scale and bias; swaps and bank are negatives of QIC alone. An objective of weight 0 is not computed.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

from make_jax.config import ObjectivesConfig
from make_jax.model.make import Apply, Outputs
from make_jax.objectives.bank import Bank
from make_jax.objectives.contrastive import contrastive_loss
from make_jax.objectives.keywords import keyword_loss
from make_jax.objectives.masked import mlm, mpm
from make_jax.objectives.matching import matching_losses
from make_jax.objectives.pairs import Rows

Batch = Mapping[str, jax.Array]
Metrics = dict[str, jax.Array]
Loss = Callable[[Outputs, Batch, Bank | None, Apply, jax.Array], tuple[jax.Array, Metrics]]
MATCHING_KEY = 1  # what an objective folds into the key of the step, so that no two draw alike


def make_loss(config: ObjectivesConfig, mesh: Mesh) -> Loss:
    """A function that gives the loss over the global batch, and metrics: every objective by its name, unweighted.

    It takes the model's outputs, their batch, the memory bank, `apply(method, *args)`, which calls other methods of the
    model with the parameters and the dropout of this step, and the random key of this step.
    """
    contrast = _contrast(config, mesh)

    def loss(out: Outputs, batch: Batch, bank: Bank | None, apply: Apply, key: jax.Array) -> tuple[jax.Array, Metrics]:
        objectives: dict[str, jax.Array] = {}
        metrics: Metrics = {}
        weights = batch["weight"]
        if config.qic:
            objectives["qic"], metrics = contrast(out, batch, out.product.vectors, weights, _swaps(out, batch), bank)
        for name, direction in (("title", out.product.title), ("image", out.product.image)):
            if getattr(config, f"{name}_contrast") and direction is not None:
                has = weights * batch[f"has_{name}"].astype(weights.dtype)
                objectives[f"{name}_contrast"], _ = contrast(out, batch, direction, has, None, None)
        if config.key and out.query.logits is not None:
            objectives["key"] = keyword_loss(out.query.logits, batch["product_keywords"], weights)
        if config.qim or config.qim2:
            found, accuracies = matching_losses(config, out, batch, apply, jax.random.fold_in(key, MATCHING_KEY))
            objectives.update(found)
            metrics = {**metrics, **accuracies}
        if config.mlm:
            objectives["mlm"], told = mlm(out, batch, apply)
            metrics = {**metrics, **told}
        if config.mpm:
            objectives["mpm"], told = mpm(batch, apply)
            metrics = {**metrics, **told}
        total = sum((getattr(config, name) * value for name, value in objectives.items()), jnp.zeros(()))
        return total, {**objectives, **metrics}

    return loss


def _swaps(out: Outputs, batch: Batch) -> Rows | None:
    """The swapped queries; a row that has no token has none."""
    if out.swap is None:
        return None
    return Rows(out.swap.vectors, jnp.where(jnp.any(batch["swap_mask"], axis=1), 0, -1))


def _contrast(config: ObjectivesConfig, mesh: Mesh) -> Callable[..., tuple[jax.Array, Metrics]]:
    """The contrastive loss of the config, over the devices of the mesh."""
    axes = tuple(mesh.axis_names)
    rows, steps, whole = PartitionSpec(axes), PartitionSpec(None, axes), PartitionSpec()

    def local(
        queries: Rows, products: Rows, weights: Any, swaps: Rows | None, bank: Bank | None, log_scale: Any, bias: Any
    ) -> Any:
        return contrastive_loss(
            queries,
            products,
            log_scale,
            weights=weights,
            kind=config.kind,
            bias=bias,
            margin=config.margin,
            swaps=swaps,
            bank=None if bank is None else bank.rows(),
            form=config.form,
            tile=config.tile,
            axis=axes,
        )

    sharded = jax.shard_map(
        local, mesh=mesh, in_specs=(rows,) * 4 + (steps,) + (whole,) * 2, out_specs=whole, check_vma=True
    )

    def contrast(
        out: Outputs, batch: Batch, vectors: jax.Array, weights: jax.Array, swaps: Rows | None, bank: Bank | None
    ) -> tuple[jax.Array, Metrics]:
        known = config.keyword_masking
        queries = Rows(out.query.vectors, batch["query_id"], batch["query_keywords"] if known else None)
        products = Rows(vectors, batch["product_id"], batch["product_keywords"] if known else None)
        return sharded(queries, products, weights, swaps, bank, out.log_scale, out.bias)

    return contrast
