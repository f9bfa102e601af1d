"""Shapes and shardings of a run's state and batch, from the settings alone: no data is read, nothing is allocated."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from make_jax.config import Config
from make_jax.model.make import Make
from make_jax.runs.mesh import AnyMesh, batch_sharding
from make_jax.runs.sharding import state_shardings
from make_jax.runs.state import Params, TrainState

Shape = jax.ShapeDtypeStruct


class StepFunctions(NamedTuple):
    """The functions of `training/` that a dry run traces. Passed in: training imports this package for its MFU."""

    init_params: Callable[[Make, int], Params]  # (model, seed)
    first_state: Callable[[Make, Config, Params], TrainState]
    make_encode: Callable[[Make, Config], Callable[..., Any]]
    make_step: Callable[[Make, Config, AnyMesh, Params], jax.stages.Wrapped]


def largest_model(config: Config) -> Make:
    """Returns the model with the largest vocabularies that the config allows; a catalog may give smaller ones."""
    return Make(config.model, config.inputs, config.inputs.vocab_size, config.inputs.max_keywords)


def state_shapes(model: Make, config: Config, mesh: AnyMesh, functions: StepFunctions) -> TrainState:
    """Returns the initial train state as sharded shapes."""
    params = jax.eval_shape(partial(functions.init_params, model, 0))
    state = jax.eval_shape(partial(functions.first_state, model, config), params)
    return jax.tree.map(with_sharding, state, state_shardings(state, mesh))


def batch_shapes(model: Make, config: Config, mesh: AnyMesh) -> Mapping[str, Shape]:
    """Returns a global batch (`inputs/batch.py`) as sharded shapes, with the fields that the objectives need."""
    i, o, words = config.inputs, config.objectives, -(-model.num_keywords // 32)
    patches = i.image_height * i.image_width // config.model.image.patch_size**2
    row: dict[str, tuple[tuple[int, ...], Any]] = {
        "image": ((i.image_height, i.image_width, 3), jnp.uint8),
        "query_keywords": ((words,), jnp.uint32),
        "product_keywords": ((words,), jnp.uint32),
        "weight": ((), jnp.float32),
    }
    row |= dict.fromkeys(("has_image", "has_title"), ((), jnp.bool_))
    row |= dict.fromkeys(("product_id", "query_id"), ((), jnp.int32))
    texts = {"query": i.max_query_tokens, "title": i.max_title_tokens}
    if o.keyword_swaps and model.num_keywords:
        texts["swap"] = i.max_query_tokens
        row["swap_keywords"] = ((words,), jnp.uint32)
    for name, length in texts.items():
        row |= {f"{name}_tokens": ((length,), jnp.int32), f"{name}_mask": ((length,), jnp.bool_)}
        if o.mlm and name != "swap":
            row |= dict.fromkeys((f"{name}_masked", f"{name}_labels"), ((length,), jnp.int32))
    if o.mpm:
        row["patch_mask"] = ((patches,), jnp.bool_)
    rows, sharding = config.train.batch_size, batch_sharding(mesh)
    return {name: Shape((rows, *shape), dtype, sharding=sharding) for name, (shape, dtype) in row.items()}


def with_sharding(shape: Any, sharding: jax.sharding.Sharding) -> Shape:
    """Returns the same shape and type with a sharding."""
    return Shape(shape.shape, shape.dtype, sharding=sharding)


def bytes_per_device(tree: Any) -> int:
    """Returns the bytes that one device holds of a tree of sharded shapes."""
    shards = [(leaf.sharding.shard_shape(leaf.shape), leaf.dtype) for leaf in jax.tree.leaves(tree)]
    return sum(Shape(shape, dtype).size * dtype.itemsize for shape, dtype in shards)
