"""Collectives of a traced program. Those of a compiled program are in `hlo_collectives.py`, in the same terms.

The two differ: a compiler combines collectives, narrows their types and removes unused ones. With S the bytes of the
complete array (of a collective-permute: the bytes that one device sends) and n devices in a group:

    collective          a device sends       primitives
    all-gather          S (n - 1) / n        all_gather
    reduce-scatter      S (n - 1) / n        reduce_scatter
    all-reduce          2 S (n - 1) / n      psum, pmax, pmin
    collective-permute  S                    ppermute
    all-to-all          S (n - 1) / n        all_to_all
"""

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from make_jax.planning.flops import Equation

PRIMITIVES = {
    "all_gather": "all-gather",
    "all_gather_invariant": "all-gather",
    "reduce_scatter": "reduce-scatter",
    "psum": "all-reduce",
    "psum_invariant": "all-reduce",
    "pmax": "all-reduce",
    "pmin": "all-reduce",
    "ppermute": "collective-permute",
    "all_to_all": "all-to-all",
}
OPERATIONS = tuple(dict.fromkeys(PRIMITIVES.values()))


class Collective(NamedTuple):
    """Collectives of one kind: `count` operations, each executed `times` times a step."""

    operation: str
    devices: int  # in a group
    axes: tuple[str, ...]  # of the mesh; () in compiled programs, which do not name them
    times: int  # per step; more than 1 inside loops
    count: int  # type: ignore[assignment]  # operations; shadows tuple.count, which is unused
    size: int  # bytes of the complete arrays per execution, over all `count` operations

    @property
    def sent(self) -> float:
        """Bytes that one device sends in a step."""
        share = {"collective-permute": 1.0, "all-reduce": 2 * (self.devices - 1) / self.devices}
        return self.times * self.size * share.get(self.operation, (self.devices - 1) / self.devices)


def merge_collectives(collectives: Iterable[Collective]) -> list[Collective]:
    """Returns one entry per (operation, devices, axes, times), in order of first appearance."""
    merged: dict[tuple[Any, ...], Collective] = {}
    for each in collectives:
        key = each[:4]
        before = merged.get(key, each._replace(count=0, size=0))
        merged[key] = each._replace(count=before.count + each.count, size=before.size + each.size)
    return list(merged.values())


def traced_collective(equation: Equation) -> Collective | None:
    """Returns the collective that an equation inside `jax.shard_map` performs; None for any other equation."""
    eqn = equation.eqn
    operation = PRIMITIVES.get(eqn.primitive.name)
    if operation is None:
        return None
    named = eqn.params["axes"] if "axes" in eqn.params else eqn.params["axis_name"]
    axes = tuple(named) if isinstance(named, tuple | list) else (named,)
    devices = math.prod(equation.mesh.shape[axis] for axis in axes)
    complete = eqn.outvars if operation == "all-gather" else eqn.invars
    size = sum(aval_bytes(each.aval) for each in complete)
    return Collective(operation, devices, axes, equation.times, 1, size) if devices > 1 else None


def aval_bytes(aval: Any) -> int:
    """Returns the bytes of an array of that shape and type; a random key counts as its two words."""
    return math.prod(aval.shape) * (aval.dtype.itemsize if isinstance(aval.dtype, np.dtype) else 8)
