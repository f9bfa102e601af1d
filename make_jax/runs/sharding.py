"""Which parts of the state are split over the mesh's `fsdp` axis, by name [ours; after ZeRO, Rajbhandari et al., arXiv
1910.02054].

One ordered table of (regex, PartitionSpec): the first rule whose regex is found in the path of an array says how it
lies. Optimizer moments and averaged parameters have the parameter's path behind a prefix, so the same rules place them.

    all matrices inside encoders, word embeddings    split on their last axis, the width of what comes out
    all else                                         whole on every device

The last axis is a width that the config chooses, where the first may be any number: of words, of pixels. What stays
whole is small, and computes in float32 (projections, gates, heads): so casting what is split to the dtype in which the
encoders compute, before it is gathered, changes no result. An axis that `train.fsdp` does not divide is an error, never
silently whole.
"""

import difflib
import re
from collections.abc import Sequence
from typing import Any

import jax
from jax.sharding import NamedSharding, PartitionSpec
from jax.typing import DTypeLike

from make_jax.errors import InputError
from make_jax.runs import named
from make_jax.runs.mesh import BATCH_AXES, AnyMesh
from make_jax.runs.state import TrainState

Rules = Sequence[tuple[str, PartitionSpec]]
FSDP = "fsdp"
LAST_AXIS = PartitionSpec(None, FSDP)
PARTITION_RULES: Rules = (
    (r"(^|/)\w*(layer_\d+|attends_\w+)/.*kernel$", LAST_AXIS),  # attention and MLP of all encoders
    (r"word/embedding$|/(patch|transform)/kernel$|matching/(query|title|image)/kernel$", LAST_AXIS),
    (r"", PartitionSpec()),  # norms, biases, positions, scale; heads in float32; counts
)


def partition_specs(tree: Any, mesh: AnyMesh, rules: Rules = PARTITION_RULES) -> Any:
    """The PartitionSpec of every array, or ShapeDtypeStruct, of a tree: that of the first rule found in its path.

    Raises InputError for a rule that matches nothing, an array that no rule matches, and an axis that the mesh does
    not divide.
    """
    leaves = {"/".join(name): leaf for name, leaf in named.flatten(tree).items()}
    unmatched = [pattern for pattern, _ in rules if not any(re.search(pattern, path) for path in leaves)]
    if unmatched:
        near = ", ".join(difflib.get_close_matches(unmatched[0], leaves, n=3, cutoff=0.0))
        raise InputError(f"sharding: the rule {unmatched[0]!r} matches nothing; there are paths like {near}")
    specs = [_spec(path, leaf, mesh, rules) for path, leaf in leaves.items()]
    return jax.tree.unflatten(jax.tree.structure(tree), specs)


def state_shardings(state: TrainState, mesh: AnyMesh) -> TrainState:
    """Where each part of a state, or of its shapes, lies: by `PARTITION_RULES`."""
    specs = partition_specs(state, mesh)
    placed: TrainState = jax.tree.map(lambda spec: NamedSharding(mesh, spec), specs)
    return placed


def all_gather_params(params: Any, specs: Any, dtype: DTypeLike) -> Any:
    """Whole parameters on every device, from a device's parts, inside `jax.shard_map` over the mesh.

    What is split travels in `dtype` and becomes float32 again. All are marked as varying over the mesh, so that their
    gradients stay each device's own until `reduce_scatter_grads` adds them up.
    """

    def whole(part: jax.Array, spec: PartitionSpec) -> jax.Array:
        if FSDP not in spec:
            return jax.lax.pcast(part, BATCH_AXES, to="varying")
        x = jax.lax.all_gather(part.astype(dtype), FSDP, axis=spec.index(FSDP), tiled=True).astype(part.dtype)
        others = tuple(axis for axis in BATCH_AXES if axis != FSDP)
        return jax.lax.pcast(x, others, to="varying")

    return jax.tree.map(whole, params, specs)


def reduce_scatter_grads(gradients: Any, specs: Any) -> Any:
    """The sum over devices of gradients of whole parameters, each device keeping its part; one exchange for all."""

    def scattered(gradient: jax.Array, spec: PartitionSpec) -> jax.Array:
        if FSDP not in spec:
            return gradient
        return jax.lax.psum_scatter(gradient, FSDP, scatter_dimension=spec.index(FSDP), tiled=True)

    others = tuple(axis for axis in BATCH_AXES if axis != FSDP)
    return jax.tree.map(
        lambda gradient, spec: jax.lax.psum(gradient, others if FSDP in spec else BATCH_AXES),
        jax.tree.map(scattered, gradients, specs),
        specs,
    )


def _spec(path: str, leaf: Any, mesh: AnyMesh, rules: Rules) -> PartitionSpec:
    spec = next((spec for pattern, spec in rules if re.search(pattern, path)), None)
    if spec is None:
        raise InputError(f"sharding: no rule matches {path}; end the rules with one that matches all else")
    for i, axis in enumerate(spec):
        if axis is not None and (i >= leaf.ndim or leaf.shape[i] % mesh.shape[axis]):
            size = mesh.shape[axis]
            divisors = [n for n in range(1, size) if i < leaf.ndim and leaf.shape[i] % n == 0]
            raise InputError(
                f"train.{axis} is {size}, which does not divide axis {i} of {path} {list(leaf.shape)}; "
                f"set it to {divisors[-1] if divisors else 1}, or widen what it belongs to"
            )
    return spec
