"""The FLOPs of a program's matrix products and convolutions, counted on what JAX traces of it [ours].

`compiled.cost_analysis()` counts the body of a loop once, however often it runs, and so a thirty-second of the work of
a gradient cache of 32 micro-batches. Here a scan counts as often as it goes round. What is computed again in the
backward pass counts again, as in the compiled program. Elementwise work does not count: it is not what the peak is of.
"""

import math
from collections.abc import Iterator
from typing import Any

import jax
from jax.extend import core


def count_flops(jaxpr: core.Jaxpr) -> int:
    """FLOPs of one run of a program over all its devices; a multiply-add is two.

    A loop without a known length (`while`) counts once; of a `cond` the branch that does most.
    """
    total = 0
    for eqn in jaxpr.eqns:
        name, parts = eqn.primitive.name, [count_flops(part) for part in _parts(eqn.params)]
        if name == "dot_general":
            total += _product(eqn)
        elif name == "conv_general_dilated":
            total += _convolution(eqn)
        elif name == "cond":
            total += max(parts)
        elif name == "scan":
            total += eqn.params["length"] * sum(parts)
        elif name == "shard_map":  # its body is what one device does
            mesh = eqn.params["mesh"]
            total += math.prod(mesh.shape[axis] for axis in eqn.params["newly_manual_axes"]) * sum(parts)
        else:
            total += sum(parts)
    return total


def step_flops(step: Any, *arguments: Any) -> int | None:
    """The FLOPs of a call of a jitted function over all devices; None of one that is not jitted. Runs nothing."""
    return count_flops(step.trace(*arguments).jaxpr.jaxpr) if isinstance(step, jax.stages.Wrapped) else None


def _parts(params: dict[str, Any]) -> Iterator[core.Jaxpr]:
    """The programs inside an equation: bodies, branches, what a derivative rule stands for."""
    for value in params.values():
        for each in value if isinstance(value, tuple | list) else (value,):
            if isinstance(each, core.ClosedJaxpr):
                yield each.jaxpr
            elif isinstance(each, core.Jaxpr):
                yield each


def _product(eqn: Any) -> int:
    (contracted, _), _ = eqn.params["dimension_numbers"]
    shape = eqn.invars[0].aval.shape
    return 2 * math.prod(eqn.outvars[0].aval.shape) * math.prod(shape[axis] for axis in contracted)


def _convolution(eqn: Any) -> int:
    kernel = eqn.invars[1].aval.shape
    outputs = kernel[eqn.params["dimension_numbers"].rhs_spec[0]]
    return 2 * math.prod(eqn.outvars[0].aval.shape) * math.prod(kernel) // outputs
