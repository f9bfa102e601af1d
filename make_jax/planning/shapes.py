"""The shapes of a run, from its settings alone: nothing is allocated and no catalog is read."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from make_jax.config import Config
from make_jax.model.make import Make
from make_jax.runs.mesh import AnyMesh, batch_sharding
from make_jax.runs.sharding import state_shardings
from make_jax.runs.state import TrainState
from make_jax.training.step import first_state, init_params

Shape = jax.ShapeDtypeStruct


def model_of(config: Config) -> Make:
    """The model with as many word pieces and keywords as the config allows: a catalog may have fewer."""
    return Make(config.model, config.inputs, config.inputs.vocabulary, config.inputs.keywords)


def state_shapes(model: Make, config: Config, mesh: AnyMesh) -> TrainState:
    """The state before the first step as shapes, each with its place on the mesh."""
    state = jax.eval_shape(partial(first_state, model, config), jax.eval_shape(partial(init_params, model, 0)))
    return jax.tree.map(placed, state, state_shardings(state, mesh))


def batch_shapes(model: Make, config: Config, mesh: AnyMesh) -> Mapping[str, Shape]:
    """A global batch as shapes, as `inputs/batch.py` describes it, with what the objectives ask for."""
    i, o, words = config.inputs, config.objectives, -(-model.keywords // 32)
    patches = i.image_height * i.image_width // config.model.image.patch**2
    one: dict[str, tuple[tuple[int, ...], Any]] = {
        "image": ((i.image_height, i.image_width, 3), jnp.uint8),
        "query_keywords": ((words,), jnp.uint32),
        "product_keywords": ((words,), jnp.uint32),
        "weight": ((), jnp.float32),
    }
    one |= dict.fromkeys(("has_image", "has_title"), ((), jnp.bool_))
    one |= dict.fromkeys(("product_id", "query_id"), ((), jnp.int32))
    texts = {"query": i.query_tokens, "title": i.title_tokens}
    if o.keyword_swaps and model.keywords:
        texts["swap"] = i.query_tokens
        one["swap_keywords"] = ((words,), jnp.uint32)
    for name, length in texts.items():
        one |= {f"{name}_tokens": ((length,), jnp.int32), f"{name}_mask": ((length,), jnp.bool_)}
        if o.mlm and name != "swap":
            one |= dict.fromkeys((f"{name}_masked", f"{name}_labels"), ((length,), jnp.int32))
    if o.mpm:
        one["patch_mask"] = ((patches,), jnp.bool_)
    rows, place = config.train.batch_size, batch_sharding(mesh)
    return {name: Shape((rows, *shape), dtype, sharding=place) for name, (shape, dtype) in one.items()}


def placed(shape: Any, place: jax.sharding.Sharding) -> Shape:
    """The same shape at a place."""
    return Shape(shape.shape, shape.dtype, sharding=place)


def bytes_per_device(tree: Any) -> int:
    """What one device holds of shapes with places."""
    parts = [(leaf.sharding.shard_shape(leaf.shape), leaf.dtype) for leaf in jax.tree.leaves(tree)]
    return sum(Shape(shape, dtype).size * dtype.itemsize for shape, dtype in parts)
