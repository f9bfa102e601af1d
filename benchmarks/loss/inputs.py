"""Inputs and program of the loss benchmarks: value and gradient of one contrastive loss with all masks."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from make_jax.objectives.contrastive import contrastive_loss
from make_jax.objectives.false_negatives import ContrastiveInputs
from make_jax.runs.mesh import BATCH_AXES

WIDTH = 512
MARGIN = 0.1
Arrays = dict[str, Any]


def specs(batch: int, keywords: int, mesh: Mesh | None = None) -> Arrays:
    """Returns the shapes of `arrays`, sharded over the mesh as in a training step."""
    words = -(-keywords // 32)

    def spec(dtype: Any, *shape: int) -> jax.ShapeDtypeStruct:
        sharding = mesh and NamedSharding(mesh, PartitionSpec(BATCH_AXES) if shape else PartitionSpec())
        return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)

    vectors = {name: spec(jnp.float32, batch, WIDTH) for name in ("queries", "products")}
    ids = {name: spec(jnp.int32, batch) for name in ("query_ids", "product_ids")}
    bits = {name: spec(jnp.uint32, batch, words) for name in ("query_keywords", "product_keywords") if words}
    return {**vectors, **ids, **bits, "weights": spec(jnp.float32, batch), "log_logit_scale": spec(jnp.float32)}


def arrays(batch: int, keywords: int) -> Arrays:
    """Returns random unit vectors, ids with repetitions, and two keywords per query and eight per product."""
    rng = np.random.default_rng(0)
    result: Arrays = {}
    for name, spec in specs(batch, keywords).items():
        if name in ("queries", "products"):
            vectors = rng.normal(size=spec.shape).astype(np.float32)
            result[name] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        elif name in ("query_ids", "product_ids"):
            result[name] = rng.integers(0, 4 * batch, batch).astype(np.int32)
        elif name in ("query_keywords", "product_keywords"):
            result[name] = np.zeros(spec.shape, np.uint32)
            for _ in range(2 if name == "query_keywords" else 8):
                bits = rng.integers(0, keywords, batch)
                result[name][np.arange(batch), bits // 32] |= np.uint32(1) << (bits % 32).astype(np.uint32)
        else:
            result[name] = np.ones(spec.shape, np.float32) if spec.shape else np.float32(np.log(20.0))
    return {name: jnp.asarray(value) for name, value in result.items()}


def clip_loss(queries: Any, products: Any, log_logit_scale: Any) -> Any:
    """open_clip's ClipLoss with local_loss and gather_with_grad in JAX: one logit matrix per direction."""
    scale, rows = jnp.exp(log_logit_scale), queries.shape[0]
    labels = jax.lax.axis_index(BATCH_AXES) * rows + jnp.arange(rows)

    def one_direction(local: Any, other: Any) -> Any:
        logits = scale * local @ jax.lax.all_gather(other, BATCH_AXES, tiled=True).T
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels))

    return jax.lax.pmean((one_direction(queries, products) + one_direction(products, queries)) / 2, BATCH_AXES)


def value_and_gradient(implementation: Any, tile: int, mesh: Mesh | None = None, margin: float = MARGIN) -> Any:
    """Returns a jitted function of `arrays`: ((loss, metrics), gradients by queries, products and log_logit_scale)."""
    axis = None if mesh is None else BATCH_AXES

    def local(a: Arrays) -> Any:
        if implementation == "open_clip":
            return clip_loss(a["queries"], a["products"], a["log_logit_scale"]), {}
        queries = ContrastiveInputs(a["queries"], a["query_ids"], a.get("query_keywords"))
        products = ContrastiveInputs(a["products"], a["product_ids"], a.get("product_keywords"))
        return contrastive_loss(
            queries,
            products,
            a["log_logit_scale"],
            weights=a["weights"],
            margin=margin,
            implementation=implementation,
            tile=tile,
            axis=axis,
        )

    def loss(trainable: Arrays, constants: Arrays) -> Any:
        a = {**trainable, **constants}
        if mesh is None:
            return local(a)
        sharded, replicated = PartitionSpec(BATCH_AXES), PartitionSpec()
        in_specs = {name: replicated if name == "log_logit_scale" else sharded for name in a}
        return jax.shard_map(local, mesh=mesh, in_specs=(in_specs,), out_specs=replicated, check_vma=True)(a)

    def function(a: Arrays) -> Any:
        trainable = {name: a[name] for name in ("queries", "products", "log_logit_scale")}
        constants = {name: value for name, value in a.items() if name not in trainable}
        return jax.value_and_grad(loss, has_aux=True)(trainable, constants)

    return jax.jit(function)
