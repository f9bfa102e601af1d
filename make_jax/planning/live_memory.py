"""An estimate of the peak memory of a traced program [ours].

XLA's `compiled.memory_analysis()` is used where a compiler for the device is present (`compile.py`). This estimate is
for the others, such as a hundred GPUs planned on a laptop. It assumes that equations run in traced order; that results
of matrix products, reductions, loops and collectives stay in memory until their last use; and that everything else is
fused into its consumer, so that it occupies memory only where a matrix product reads it. Compilers reorder, fuse and
rematerialize differently: tests hold the estimate within a factor of two of XLA's report.
"""

from dataclasses import dataclass, field
from typing import Any

from jax.extend import core

from make_jax.planning.collectives import PRIMITIVES, aval_bytes
from make_jax.planning.flops import PRODUCTS, inner_jaxprs

LOOPS = ("scan", "while", "cond")
# Their operands must be complete arrays in memory.
MATERIALIZING = (*PRODUCTS, *LOOPS, *PRIMITIVES, "gather", "scatter", "scatter-add", "sort", "concatenate", "cumsum")
REDUCTIONS = ("reduce_sum", "reduce_max", "reduce_min", "reduce_and", "reduce_or", "argmax", "argmin")


def peak_live_bytes(jaxpr: core.Jaxpr, loop_body: bool = False) -> int:
    """Returns the peak bytes of intermediate values and results, without the program's inputs.

    The results of a loop body are not counted: they are written into the loop's carry or stacked output.
    """
    program, results = _flatten(jaxpr)
    if not loop_body:
        program.equations.append(_FlatEquation("concatenate", results, [], 0))  # results are in memory at the end
    born, last_use = _lifetimes(program, results if loop_body else [])
    change = [0] * (len(program.equations) + 1)
    for value, start in born.items():
        change[start] += program.sizes[value]
        change[last_use[value] + 1] -= program.sizes[value]
    peak = live = 0
    for equation, delta in zip(program.equations, change, strict=False):
        live += delta
        peak = max(peak, live + equation.inner_bytes)
    return peak


@dataclass
class _FlatEquation:
    """An equation of a program whose function calls have been inlined; values are numbers."""

    name: str
    operands: list[int]
    results: list[int]
    inner_bytes: int  # peak memory of its loop bodies or branches


@dataclass
class _FlatProgram:
    equations: list[_FlatEquation] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)  # bytes of each value
    inputs: set[int] = field(default_factory=set)

    def new_value(self, aval: Any) -> int:
        self.sizes.append(aval_bytes(aval))
        return len(self.sizes) - 1

    def inline(self, jaxpr: core.Jaxpr, values: dict[Any, int]) -> list[int]:
        """Appends a program whose inputs are `values`; returns the values of its results."""

        def value_of(var: Any) -> int:
            if isinstance(var, core.Literal) or var not in values:  # a constant
                constant = self.new_value(var.aval)
                self.inputs.add(constant)
                if isinstance(var, core.Literal):
                    return constant
                values[var] = constant
            return values[var]

        for eqn in jaxpr.eqns:
            operands, inner, name = [value_of(var) for var in eqn.invars], inner_jaxprs(eqn), eqn.primitive.name
            if inner and name not in MATERIALIZING:  # a function call; a scatter's inner program is its scalar update
                called = inner[0]
                results = self.inline(called, dict(zip(called.invars, operands, strict=True)))
            else:
                results = [self.new_value(var.aval) for var in eqn.outvars]
                inner_bytes = max((peak_live_bytes(body, loop_body=True) for body in inner), default=0)
                self.equations.append(_FlatEquation(name, operands, results, inner_bytes))
            values.update(zip(eqn.outvars, results, strict=True))
        return [value_of(var) for var in jaxpr.outvars]


def _flatten(jaxpr: core.Jaxpr) -> tuple[_FlatProgram, list[int]]:
    program = _FlatProgram()
    values = {var: program.new_value(var.aval) for var in jaxpr.invars}
    program.inputs.update(values.values())
    return program, program.inline(jaxpr, values)


def _lifetimes(program: _FlatProgram, carried: list[int]) -> tuple[dict[int, int], dict[int, int]]:
    """Returns the equation that creates each value in memory, and the last one that needs it.

    A fused value has no lifetime of its own: it extends those of the materialized values it is computed from. `carried`
    values of a loop body end where they are written into the carry.
    """
    sources: dict[int, frozenset[int]] = {value: frozenset() for value in program.inputs}  # materialized ones
    born: dict[int, int] = {}
    last_use: dict[int, int] = {}
    for i, equation in enumerate(program.equations):
        if equation.name in MATERIALIZING:
            for value in equation.operands:
                if value not in program.inputs and sources[value] != {value}:  # fused until now
                    last_use.update(dict.fromkeys(sources[value], i))
                    sources[value] = frozenset((value,))
                    born[value] = i
        needed = frozenset().union(*(sources[value] for value in equation.operands))
        if equation.name in MATERIALIZING or equation.name in REDUCTIONS:
            last_use.update(dict.fromkeys(needed, i))
            for value in equation.results:
                sources[value], born[value], last_use[value] = frozenset((value,)), i, i
        else:
            sources.update(dict.fromkeys(equation.results, needed))
    for value in carried:
        written = max((born[each] for each in sources[value]), default=0)
        last_use.update({each: max(last_use[each], written) for each in sources[value]})
    return born, last_use
