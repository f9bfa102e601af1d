"""Sharding of the training state over the mesh's `fsdp` axis, by parameter name [ours; after ZeRO, Rajbhandari et al.,
arXiv 1910.02054].

`PARTITION_RULES` is an ordered table of (regex, PartitionSpec); the first regex found in an array's path applies.
Optimizer moments and averaged parameters have the parameter's path after a prefix, so the same rules apply.

    matrices in encoders, word embeddings    sharded on the last axis, the output width
    everything else                          replicated

It is ZeRO-1 in what a step needs, not ZeRO-3 (FullyShardedDataParallel), which gathers one layer at a time:

    between steps    each device holds 1/N of master parameters, moments and averages, in float32
    in a step        all parameters are gathered once (`all_gather_params`, in the encoders' dtype), each device has the
                     complete gradients in float32, and these are reduce-scattered once (`reduce_scatter_grads`)

The config chooses the output width, while the first axis may have any size (words, pixels). Replicated arrays are small
and compute in float32 (projections, gates, heads), so casting sharded arrays to the encoders' dtype before the gather
changes no result. An axis that `train.fsdp` does not divide is an error, never silently replicated.
"""

import difflib
import re
from collections.abc import Sequence
from typing import Any

import jax
from jax.sharding import NamedSharding, PartitionSpec
from jax.typing import DTypeLike

from make_jax.errors import InputError
from make_jax.runs import named_leaves
from make_jax.runs.mesh import BATCH_AXES, AnyMesh
from make_jax.runs.state import TrainState

Rules = Sequence[tuple[str, PartitionSpec]]
FSDP = "fsdp"
LAST_AXIS = PartitionSpec(None, FSDP)
PARTITION_RULES: Rules = (
    (r"(^|/)\w*(layer_\d+|attends_\w+)/.*kernel$", LAST_AXIS),  # attention and MLP of all encoders
    (r"word/embedding$|/(patch|transform)/kernel$|matching/(query|title|image)/kernel$", LAST_AXIS),
    (r"", PartitionSpec()),  # norms, biases, positions, logit scale, float32 heads, counters
)


def partition_specs(tree: Any, mesh: AnyMesh, rules: Rules = PARTITION_RULES) -> Any:
    """Returns a tree of PartitionSpecs: for each array or ShapeDtypeStruct that of the first matching rule.

    Raises InputError for a rule without matches, an array without a rule, and an axis that the mesh does not divide.
    """
    leaves = {"/".join(name): leaf for name, leaf in named_leaves.flatten(tree).items()}
    unmatched = [pattern for pattern, _ in rules if not any(re.search(pattern, path) for path in leaves)]
    if unmatched:
        near = ", ".join(difflib.get_close_matches(unmatched[0], leaves, n=3, cutoff=0.0))
        raise InputError(f"sharding: the rule {unmatched[0]!r} matches nothing; similar paths: {near}")
    specs = [_spec(path, leaf, mesh, rules) for path, leaf in leaves.items()]
    return jax.tree.unflatten(jax.tree.structure(tree), specs)


def state_shardings(state: TrainState, mesh: AnyMesh) -> TrainState:
    """Returns the sharding of each array of a state, or of its shapes, by `PARTITION_RULES`."""
    specs = partition_specs(state, mesh)
    placed: TrainState = jax.tree.map(lambda spec: NamedSharding(mesh, spec), specs)
    return placed


def all_gather_params(params: Any, specs: Any, dtype: DTypeLike) -> Any:
    """Returns full parameters on every device from sharded ones. Call it inside `jax.shard_map` over the mesh.

    Sharded arrays are gathered in `dtype` and cast back to float32. All are marked as varying over the mesh, so that
    gradients stay local to each device until `reduce_scatter_grads` adds them.
    """

    def gather(part: jax.Array, spec: PartitionSpec) -> jax.Array:
        if FSDP not in spec:
            return jax.lax.pcast(part, BATCH_AXES, to="varying")
        x = jax.lax.all_gather(part.astype(dtype), FSDP, axis=spec.index(FSDP), tiled=True).astype(part.dtype)
        others = tuple(axis for axis in BATCH_AXES if axis != FSDP)
        return jax.lax.pcast(x, others, to="varying")

    return jax.tree.map(gather, params, specs)


def reduce_scatter_grads(gradients: Any, specs: Any) -> Any:
    """Returns the sum over devices of gradients of full parameters, sharded like the parameters."""

    def scatter(gradient: jax.Array, spec: PartitionSpec) -> jax.Array:
        if FSDP not in spec:
            return gradient
        return jax.lax.psum_scatter(gradient, FSDP, scatter_dimension=spec.index(FSDP), tiled=True)

    others = tuple(axis for axis in BATCH_AXES if axis != FSDP)
    return jax.tree.map(
        lambda gradient, spec: jax.lax.psum(gradient, others if FSDP in spec else BATCH_AXES),
        jax.tree.map(scatter, gradients, specs),
        specs,
    )


def _spec(path: str, leaf: Any, mesh: AnyMesh, rules: Rules) -> PartitionSpec:
    spec = next((spec for pattern, spec in rules if re.search(pattern, path)), None)
    if spec is None:
        raise InputError(f"sharding: no rule matches {path}; end the rules with one that matches everything")
    for i, axis in enumerate(spec):
        if axis is not None and (i >= leaf.ndim or leaf.shape[i] % mesh.shape[axis]):
            size = mesh.shape[axis]
            divisors = [n for n in range(1, size) if i < leaf.ndim and leaf.shape[i] % n == 0]
            raise InputError(
                f"train.{axis} is {size}, which does not divide axis {i} of {path} {list(leaf.shape)}; "
                f"set it to {divisors[-1] if divisors else 1}, or choose another width"
            )
    return spec
