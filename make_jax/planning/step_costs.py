"""What one device does in a step, counted in the program that JAX traces: work, traffic, exchanges, memory.

FLOPs are those of matrix products, by the type of what they multiply. Traffic is what these products read from memory
and write to it: everything else is taken to be fused into them, so this is the least. A scan counts as often as it goes
round, and what the backward pass computes again counts again.

What is alive is an estimate: operations run in the order in which they were traced. Results of products, sums, loops
and exchanges lie in memory from then on until nothing needs them; everything else is computed where it is used, from
what lies in memory, and takes room itself only where a product reads it. Compilers order, fuse and keep otherwise.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from jax.extend import core

from make_jax.planning.collectives import TRACED, Collective, joined, nbytes, traced
from make_jax.planning.flops import PRODUCTS, inner_programs, product_flops

LOOPS = ("scan", "while", "cond")
# What reads whole arrays from memory: its inputs lie there.
READERS = (*PRODUCTS, *LOOPS, *TRACED, "gather", "scatter", "scatter-add", "sort", "concatenate", "cumsum")
REDUCERS = ("reduce_sum", "reduce_max", "reduce_min", "reduce_and", "reduce_or", "argmax", "argmin")


@dataclass(frozen=True)
class Counts:
    """One step of one device."""

    flops: dict[str, int]  # of matrix products, by the type of their factors: "bfloat16", "float32"
    traffic: int  # bytes that these products read and write
    collectives: list[Collective]  # those of a loop together
    alive: int  # bytes, at most at once, beside the inputs

    @property
    def all_flops(self) -> int:
        """FLOPs of all types."""
        return sum(self.flops.values())


def count(jaxpr: core.Jaxpr) -> Counts:
    """What a device does in the `shard_map`s of a traced program; a program without one is a device's as it stands."""
    flops: dict[str, int] = {}
    traffic, alive = 0, 0
    exchanged: dict[int, list[Collective]] = {}  # by the loop that they are in
    bodies = [(eqn.params["jaxpr"], eqn.params["mesh"]) for eqn in _shard_maps(jaxpr)] or [(jaxpr, None)]
    for body, mesh in bodies:
        for eqn, times, loop in _operations(body):
            if eqn.primitive.name in PRODUCTS:
                kind = str(eqn.invars[0].aval.dtype)
                flops[kind] = flops.get(kind, 0) + times * product_flops(eqn)
                traffic += times * sum(nbytes(each.aval) for each in (*eqn.invars, *eqn.outvars))
            elif mesh is not None:
                exchanged.setdefault(loop, []).extend(traced(eqn, times, mesh))
        alive = max(alive, _alive(body))
    return Counts(flops, traffic, [each for found in exchanged.values() for each in joined(found)], alive)


def _shard_maps(jaxpr: core.Jaxpr) -> Iterator[Any]:
    for eqn in jaxpr.eqns:
        if eqn.primitive.name == "shard_map":
            yield eqn
        else:
            for inner in inner_programs(eqn):
                yield from _shard_maps(inner)


def _operations(jaxpr: core.Jaxpr, times: int = 1, loop: int = 0) -> Iterator[tuple[Any, int, int]]:
    """Every equation that has none inside, how often it runs, and a number for the innermost loop around it.

    A `while` runs once, of a `cond` the longest branch.
    """
    for eqn in jaxpr.eqns:
        inner = inner_programs(eqn)
        if eqn.primitive.name == "cond":
            inner = [max(inner, key=lambda branch: len(branch.eqns))]
        if not inner:
            yield eqn, times, loop
        for each in inner:
            within = id(eqn) if eqn.primitive.name == "scan" else loop
            yield from _operations(each, times * eqn.params.get("length", 1), within)


@dataclass
class _Line:
    """An equation of a program whose calls are written out."""

    name: str
    reads: list[int]
    makes: list[int]
    extra: int  # bytes that are alive inside it


@dataclass
class _Program:
    """A program as lines over numbered values."""

    lines: list[_Line] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)  # bytes by number
    inputs: set[int] = field(default_factory=set)

    def new(self, aval: Any) -> int:
        self.sizes.append(nbytes(aval))
        return len(self.sizes) - 1

    def write_out(self, jaxpr: core.Jaxpr, numbers: dict[Any, int]) -> list[int]:
        """Adds a program whose inputs have `numbers`; gives back the numbers of its results."""

        def number(var: Any) -> int:
            if isinstance(var, core.Literal) or var not in numbers:  # a constant
                made = self.new(var.aval)
                self.inputs.add(made)
                if isinstance(var, core.Literal):
                    return made
                numbers[var] = made
            return numbers[var]

        for eqn in jaxpr.eqns:
            reads, inner = [number(var) for var in eqn.invars], inner_programs(eqn)
            if inner and eqn.primitive.name not in READERS:  # a call; a scatter has a program too, of two numbers
                called = inner[0]
                made = self.write_out(called, dict(zip(called.invars, reads, strict=True)))
                numbers.update(zip(eqn.outvars, made, strict=True))
            else:
                makes = [self.new(var.aval) for var in eqn.outvars]
                numbers.update(zip(eqn.outvars, makes, strict=True))
                self.lines.append(
                    _Line(eqn.primitive.name, reads, makes, max((_alive(body, loop=True) for body in inner), default=0))
                )
        return [number(var) for var in jaxpr.outvars]


def _alive(jaxpr: core.Jaxpr, loop: bool = False) -> int:
    """Bytes that are alive at most at once, beside the program's inputs; for a loop's body also beside its results.

    Those are written, when they are made, into what the loop carries or stacks.
    """
    program = _Program()
    numbers = {var: program.new(var.aval) for var in jaxpr.invars}
    program.inputs.update(numbers.values())
    results = program.write_out(jaxpr, numbers)
    if not loop:
        program.lines.append(_Line("concatenate", results, [], 0))  # results lie in memory

    rests_on: dict[int, frozenset[int]] = {i: frozenset() for i in program.inputs}  # what a value is computed from
    born: dict[int, int] = {}
    last: dict[int, int] = {}
    for i, line in enumerate(program.lines):
        if line.name in READERS:
            for value in line.reads:
                if value not in program.inputs and rests_on[value] != {value}:
                    last.update(dict.fromkeys(rests_on[value], i))
                    rests_on[value] = frozenset((value,))
                    born[value] = i
        below = frozenset().union(*(rests_on[value] for value in line.reads))
        if line.name in READERS or line.name in REDUCERS:
            last.update(dict.fromkeys(below, i))
            for value in line.makes:
                rests_on[value], born[value], last[value] = frozenset((value,)), i, i
        else:
            rests_on.update(dict.fromkeys(line.makes, below))
    if loop:
        for value in results:
            written = max((born[each] for each in rests_on[value]), default=0)
            last.update({each: max(last[each], written) for each in rests_on[value]})
    change = [0] * (len(program.lines) + 1)
    for value, start in born.items():
        change[start] += program.sizes[value]
        change[last[value] + 1] -= program.sizes[value]
    most = now = 0
    for line, step in zip(program.lines, change, strict=False):
        now += step
        most = max(most, now + line.extra)
    return most
