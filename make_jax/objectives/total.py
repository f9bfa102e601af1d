"""What training minimises: QIC on the product vector, and where asked the same loss on each of its two directions.

    L = QIC(q, p) + title_contrast QIC(q, l2(W_t t)) + image_contrast QIC(q, l2(W_v v))

The two auxiliary terms [ours] keep both encoders useful by themselves: a modality that is weak early is otherwise
outweighed by the other and learns little. A row that lacks a modality has weight 0 in that modality's term. All terms
share scale and bias.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
from jax.sharding import Mesh, PartitionSpec

from make_jax.config import ObjectivesConfig
from make_jax.objectives.contrastive import Rows, contrastive_loss

Outputs = Mapping[str, jax.Array]
Loss = Callable[[Outputs, Mapping[str, jax.Array]], tuple[jax.Array, dict[str, jax.Array]]]


def make_loss(config: ObjectivesConfig, mesh: Mesh) -> Loss:
    """A function of what `Make.__call__` returns and its batch: the loss over the global batch, and metrics by name."""
    axes = tuple(mesh.axis_names)
    rows, whole = PartitionSpec(axes), PartitionSpec()

    def local(vectors: Any, others: Any, ids: Any, other_ids: Any, weights: Any, log_scale: Any, bias: Any) -> Any:
        return contrastive_loss(
            Rows(vectors, ids),
            Rows(others, other_ids),
            log_scale,
            weights=weights,
            kind=config.kind,
            bias=bias,
            margin=config.margin,
            axis=axes,
        )

    sharded = partial(jax.shard_map, mesh=mesh, in_specs=(rows,) * 5 + (whole,) * 2, out_specs=whole, check_vma=True)
    contrast = sharded(local)

    def loss(out: Outputs, batch: Mapping[str, jax.Array]) -> tuple[jax.Array, dict[str, jax.Array]]:
        def term(name: str, weights: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
            ids = (batch["query_id"], batch["product_id"])
            return contrast(out["query"], out[name], *ids, weights, out["log_scale"], out["bias"])

        total, metrics = term("product", batch["weight"])
        metrics = {"qic": total, **metrics}
        for name, factor in (("title", config.title_contrast), ("image", config.image_contrast)):
            if factor:
                value, _ = term(name, batch["weight"] * batch[f"has_{name}"].astype(batch["weight"].dtype))
                total = total + factor * value
                metrics[f"{name}_contrast"] = value
        return total, metrics

    return loss
