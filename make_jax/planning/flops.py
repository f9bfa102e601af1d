"""The FLOPs of a program's matrix products and convolutions, counted on what JAX traces of it [ours].

`compiled.cost_analysis()` counts the body of a loop once, however often it runs, and so a thirty-second of the work of
a gradient cache of 32 micro-batches. Here a scan counts as often as it goes round. What is computed again in the
backward pass counts again, as in the compiled program. Elementwise work does not count: it is not what the peak is of.
"""

import math
from typing import Any

import jax
from jax.extend import core

PRODUCTS = ("dot_general", "conv_general_dilated")


def count_flops(jaxpr: core.Jaxpr) -> int:
    """FLOPs of one run of a program over all its devices; a multiply-add is two.

    A loop without a known length (`while`) counts once; of a `cond` the branch that does most.
    """
    total = 0
    for eqn in jaxpr.eqns:
        name, parts = eqn.primitive.name, [count_flops(part) for part in inner_programs(eqn)]
        if name in PRODUCTS:
            total += product_flops(eqn)
        elif name == "cond":
            total += max(parts)
        elif name == "scan":
            total += eqn.params["length"] * sum(parts)
        elif name == "shard_map":  # its body is what one device does
            total += eqn.params["mesh"].size * sum(parts)
        else:
            total += sum(parts)
    return total


def step_flops(step: Any, *arguments: Any) -> int | None:
    """The FLOPs of a call of a jitted function over all devices; None of one that is not jitted. Runs nothing."""
    return count_flops(step.trace(*arguments).jaxpr.jaxpr) if isinstance(step, jax.stages.Wrapped) else None


def inner_programs(eqn: Any) -> list[core.Jaxpr]:
    """The programs inside an equation: bodies, branches, what a derivative rule stands for."""
    found = []
    for value in eqn.params.values():
        for each in value if isinstance(value, tuple | list) else (value,):
            program = getattr(each, "jaxpr", each)  # of one with its constants, which newer versions do not tell apart
            if isinstance(program, core.Jaxpr):
                found.append(program)
    return found


def product_flops(eqn: Any) -> int:
    """FLOPs of one equation of `PRODUCTS`."""
    outputs, (left, right) = math.prod(eqn.outvars[0].aval.shape), (each.aval.shape for each in eqn.invars)
    if eqn.primitive.name == "dot_general":
        (contracted, _), _ = eqn.params["dimension_numbers"]
        return 2 * outputs * math.prod(left[axis] for axis in contracted)
    return 2 * outputs * math.prod(right) // right[eqn.params["dimension_numbers"].rhs_spec[0]]
