"""FLOPs of the matrix products and convolutions in a jaxpr [ours].

XLA's own count, `compiled.cost_analysis()`, takes the body of a loop once, whatever its trip count: with a gradient
cache of 32 micro-batches it reports a thirty-second of the encoders' work. Here a scan counts once per iteration, and
recomputation in the backward pass counts again, as it does in the compiled program. Kernels written in Pallas are
counted by their own equations, once per program of the grid; cuDNN's attention is opaque and has its formula here.
Elementwise work is not counted: peak rates refer to matrix products.
"""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
from jax.extend import core

# Matrix products inside one call of cuDNN's attention; the backward pass computes the logits again.
_FUSED_ATTENTION = {"dot_product_attention_fwd_wrapper": 2, "dot_product_attention_bwd_wrapper": 5}
PRODUCTS = ("dot_general", "conv_general_dilated", *_FUSED_ATTENTION)


class Equation(NamedTuple):
    """One equation of a jaxpr without inner programs, and the context in which it runs."""

    eqn: Any
    times: int  # executions per run of the program
    loop: int  # identifies the innermost scan around it; 0 outside of loops
    mesh: Any  # that of the `shard_map` around it, whose equations are those of one device; None outside


def count_flops(jaxpr: core.Jaxpr) -> int:
    """Returns the FLOPs of one run over all devices; a multiply-add is two.

    A `while` loop, whose trip count is unknown, counts once; a `cond` counts as its most expensive branch.
    """
    return sum(
        each.times * (1 if each.mesh is None else each.mesh.size) * product_flops(each.eqn)
        for each in equations(jaxpr)
        if each.eqn.primitive.name in PRODUCTS
    )


def step_flops(step: Any, *arguments: Any) -> int | None:
    """Returns the FLOPs of one call of a jitted function over all devices, without running it; None if not jitted."""
    return count_flops(step.trace(*arguments).jaxpr.jaxpr) if isinstance(step, jax.stages.Wrapped) else None


def equations(jaxpr: core.Jaxpr, times: int = 1, loop: int = 0, mesh: Any = None) -> Iterator[Equation]:
    """Yields every equation that has no inner program, with the number of times it runs."""
    for eqn in jaxpr.eqns:
        inner, name = inner_jaxprs(eqn), eqn.primitive.name
        if name == "cond":
            inner = [max(inner, key=lambda branch: (count_flops(branch), len(branch.eqns)))]
        if not inner:
            yield Equation(eqn, times, loop, mesh)
        for each in inner:
            rounds = times * _rounds(eqn)
            within = eqn.params["mesh"] if name == "shard_map" else mesh
            yield from equations(each, rounds, id(eqn) if name == "scan" else loop, within)


def _rounds(eqn: Any) -> int:
    """How often an equation runs its inner programs: iterations of a scan, programs of a Pallas kernel's grid."""
    if eqn.primitive.name == "scan":
        return int(eqn.params["length"])
    return math.prod(eqn.params["grid_mapping"].grid) if eqn.primitive.name == "pallas_call" else 1


def inner_jaxprs(eqn: Any) -> list[core.Jaxpr]:
    """Returns the programs inside an equation: loop bodies, branches, called functions."""
    inner = []
    for value in eqn.params.values():
        for each in value if isinstance(value, tuple | list) else (value,):
            program = getattr(each, "jaxpr", each)  # a ClosedJaxpr's; newer versions of JAX have one type for both
            if isinstance(program, core.Jaxpr):
                inner.append(program)
    return inner


def product_flops(eqn: Any) -> int:
    """Returns the FLOPs of one equation whose primitive is in PRODUCTS."""
    outputs, (left, right) = math.prod(eqn.outvars[0].aval.shape), (each.aval.shape for each in eqn.invars[:2])
    if eqn.primitive.name in _FUSED_ATTENTION:  # query [B, L, H, d], key [B, M, H, d]
        return 2 * _FUSED_ATTENTION[eqn.primitive.name] * math.prod(left) * right[1]
    if eqn.primitive.name == "dot_general":
        (contracted, _), _ = eqn.params["dimension_numbers"]
        return 2 * outputs * math.prod(left[axis] for axis in contracted)
    return 2 * outputs * math.prod(right) // right[eqn.params["dimension_numbers"].rhs_spec[0]]
