"""What the loss benchmarks measure: value and gradient of one contrastive loss, with all that tells pairs apart."""

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
    """Shapes of the arrays of `arrays`, split over the mesh as a training step splits them."""
    words = -(-keywords // 32)

    def spec(dtype: Any, *shape: int) -> jax.ShapeDtypeStruct:
        sharding = mesh and NamedSharding(mesh, PartitionSpec(BATCH_AXES) if shape else PartitionSpec())
        return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)

    vectors = {name: spec(jnp.float32, batch, WIDTH) for name in ("queries", "products")}
    ids = {name: spec(jnp.int32, batch) for name in ("query_ids", "product_ids")}
    bits = {name: spec(jnp.uint32, batch, words) for name in ("asked", "held") if words}
    return {**vectors, **ids, **bits, "weights": spec(jnp.float32, batch), "log_logit_scale": spec(jnp.float32)}


def arrays(batch: int, keywords: int) -> Arrays:
    """Random unit vectors; ids of which some repeat; queries with two keywords and products with eight."""
    rng = np.random.default_rng(0)
    made: Arrays = {}
    for name, spec in specs(batch, keywords).items():
        if name in ("queries", "products"):
            vectors = rng.normal(size=spec.shape).astype(np.float32)
            made[name] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        elif name in ("query_ids", "product_ids"):
            made[name] = rng.integers(0, 4 * batch, batch).astype(np.int32)
        elif name in ("asked", "held"):
            made[name] = np.zeros(spec.shape, np.uint32)
            for _ in range(2 if name == "asked" else 8):
                bits = rng.integers(0, keywords, batch)
                made[name][np.arange(batch), bits // 32] |= np.uint32(1) << (bits % 32).astype(np.uint32)
        else:
            made[name] = np.ones(spec.shape, np.float32) if spec.shape else np.float32(np.log(20.0))
    return {name: jnp.asarray(value) for name, value in made.items()}


def clip_loss(queries: Any, products: Any, log_logit_scale: Any) -> Any:
    """The form of open_clip's ClipLoss with local_loss and gather_with_grad, written in JAX: a matrix a direction."""
    scale, rows = jnp.exp(log_logit_scale), queries.shape[0]
    here = jax.lax.axis_index(BATCH_AXES) * rows + jnp.arange(rows)

    def one_way(mine: Any, others: Any) -> Any:
        logits = scale * mine @ jax.lax.all_gather(others, BATCH_AXES, tiled=True).T
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, here))

    return jax.lax.pmean((one_way(queries, products) + one_way(products, queries)) / 2, BATCH_AXES)


def value_and_gradient(form: Any, tile: int, mesh: Mesh | None = None, margin: float = MARGIN) -> Any:
    """A jitted function of `arrays`: ((loss, metrics), gradients by queries, products and log_logit_scale)."""
    axis = None if mesh is None else BATCH_AXES

    def local(a: Arrays) -> Any:
        if form == "open_clip":
            return clip_loss(a["queries"], a["products"], a["log_logit_scale"]), {}
        queries = ContrastiveInputs(a["queries"], a["query_ids"], a.get("asked"))
        products = ContrastiveInputs(a["products"], a["product_ids"], a.get("held"))
        return contrastive_loss(
            queries,
            products,
            a["log_logit_scale"],
            weights=a["weights"],
            margin=margin,
            implementation=form,
            tile=tile,
            axis=axis,
        )

    def loss(learnt: Arrays, told: Arrays) -> Any:
        a = {**learnt, **told}
        if mesh is None:
            return local(a)
        rows, whole = PartitionSpec(BATCH_AXES), PartitionSpec()
        split = {name: whole if name == "log_logit_scale" else rows for name in a}
        return jax.shard_map(local, mesh=mesh, in_specs=(split,), out_specs=whole, check_vma=True)(a)

    def function(a: Arrays) -> Any:
        learnt = {name: a[name] for name in ("queries", "products", "log_logit_scale")}
        told = {name: value for name, value in a.items() if name not in learnt}
        return jax.value_and_grad(loss, has_aux=True)(learnt, told)

    return jax.jit(function)
