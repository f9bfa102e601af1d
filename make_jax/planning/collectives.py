"""What devices exchange in a program: counted in what JAX traces of it, or in what a compiler made of it.

Traced and compiled programs differ: a compiler joins exchanges, narrows what travels, and leaves out what nobody reads.
Both are told in the same words. With S the bytes of the whole (of a hop: of what one device sends) among n devices:

    operation           a device sends       traced as
    all-gather          S (n - 1) / n        all_gather
    reduce-scatter      S (n - 1) / n        reduce_scatter
    all-reduce          2 S (n - 1) / n      psum, pmax, pmin
    collective-permute  S                    ppermute
    all-to-all          S (n - 1) / n        all_to_all
"""

import math
import re
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

TRACED = {
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
OPERATIONS = tuple(dict.fromkeys(TRACED.values()))


class Collective(NamedTuple):
    """Exchanges of one sort: what the program does `times` times a step, in `count` operations together."""

    operation: str
    devices: int  # that exchange with each other
    axes: tuple[str, ...]  # of the mesh; () where only the compiled program is known
    times: int  # a step; more than 1 inside loops
    count: int  # type: ignore[assignment]  # operations; it hides tuple.count, which nobody needs
    size: int  # bytes of the whole each time, of all of them

    @property
    def sent(self) -> float:
        """Bytes that one device sends a step."""
        share = {"collective-permute": 1.0, "all-reduce": 2 * (self.devices - 1) / self.devices}
        return self.times * self.size * share.get(self.operation, (self.devices - 1) / self.devices)


def joined(found: Iterable[Collective]) -> list[Collective]:
    """Exchanges of the same sort as one, in the order in which the sorts appear."""
    sums: dict[tuple[Any, ...], Collective] = {}
    for each in found:
        key = each[:4]
        before = sums.get(key, each._replace(count=0, size=0))
        sums[key] = each._replace(count=before.count + each.count, size=before.size + each.size)
    return list(sums.values())


def traced(eqn: Any, times: int, mesh: Any) -> Iterator[Collective]:
    """What an equation inside `jax.shard_map` over `mesh` exchanges: nothing, or one collective."""
    operation = TRACED.get(eqn.primitive.name)
    if operation is None:
        return
    named = eqn.params["axes"] if "axes" in eqn.params else eqn.params["axis_name"]
    axes = tuple(named) if isinstance(named, tuple | list) else (named,)
    devices = math.prod(mesh.shape[axis] for axis in axes)
    whole = eqn.outvars if operation == "all-gather" else eqn.invars
    if devices > 1:
        yield Collective(operation, devices, axes, times, 1, sum(nbytes(each.aval) for each in whole))


def nbytes(aval: Any) -> int:
    """Bytes of an array of that shape; a random key counts as its two words."""
    return math.prod(aval.shape) * (aval.dtype.itemsize if isinstance(aval.dtype, np.dtype) else 8)


_COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = (.*?) ([a-z][\w\-]*)\((.*)$")
_CALLED = re.compile(r"(?:to_apply|calls|body|condition|true_computation|false_computation)=%?([\w.\-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_ARRAY = re.compile(r"\b(pred|bf16|[sufc]\d+\w*)\[([\d,]*)\]")


def compiled(text: str) -> list[Collective]:
    """The collectives of a compiled program, `compiled.as_text()`, with those in loops as often as they go round.

    A loop's count is the one that the compiler notes, or else the constant that its condition compares with, as for
    what `jax.lax.scan` becomes. Raises ValueError where a loop that exchanges anything has neither.
    """
    computations, entry = _read(text)
    times = dict.fromkeys(computations, 0)
    times[entry] = 1
    order = _callers_first(computations, entry)
    exchanging = _exchanging(computations, order)
    for name in order:
        for _, _, operation, rest in computations[name]:
            within = [called for called in _called(rest) if called in exchanging]
            rounds = _rounds(rest, computations) if operation == "while" and within else 1
            for called in within:
                times[called] += times[name] * rounds
    found = []
    for name, lines in computations.items():
        for _, result, operation, rest in lines:
            if _exchanges(operation) and times[name]:
                found.append(_collective(operation, result, rest, times[name], scatters="scatter" in name))
    return joined(each for each in found if each.devices > 1)


def _read(text: str) -> tuple[dict[str, list[tuple[str, str, str, str]]], str]:
    """Instructions (name, result, operation, rest of the line) by computation, and the name of the first to run."""
    computations: dict[str, list[tuple[str, str, str, str]]] = {}
    entry = current = ""
    for line in text.splitlines():
        if head := _COMPUTATION.match(line):
            current = head[1]
            computations[current] = []
            entry = current if line.startswith("ENTRY") else entry
        elif current and (instruction := _INSTRUCTION.match(line)):
            computations[current].append((instruction[1], instruction[2], instruction[3], instruction[4]))
    return computations, entry


def _called(rest: str) -> list[str]:
    branches = [name.strip().lstrip("%") for part in _BRANCHES.findall(rest) for name in part.split(",")]
    return [*_CALLED.findall(rest), *branches]


def _callers_first(computations: dict[str, list[tuple[str, str, str, str]]], entry: str) -> list[str]:
    """The computations that run, each behind all that call it."""
    order: list[str] = []
    seen: set[str] = set()

    def visit(name: str) -> None:
        if name not in seen:
            seen.add(name)
            for *_, rest in computations[name]:
                for called in _called(rest):
                    visit(called)
            order.append(name)

    visit(entry)
    return order[::-1]


def _exchanges(operation: str) -> bool:
    return operation.removesuffix("-start") in OPERATIONS


def _exchanging(computations: dict[str, list[tuple[str, str, str, str]]], callers_first: list[str]) -> set[str]:
    """The computations that exchange something, or call one that does."""
    found: set[str] = set()
    for name in reversed(callers_first):
        if any(_exchanges(line[2]) or not found.isdisjoint(_called(line[3])) for line in computations[name]):
            found.add(name)
    return found


def _rounds(rest: str, computations: dict[str, list[tuple[str, str, str, str]]]) -> int:
    if noted := re.search(r"known_trip_count\D+(\d+)", rest):
        return int(noted[1])
    condition = re.search(r"condition=%?([\w.\-]+)", rest)
    lines = list(computations[condition[1]]) if condition else []
    for *_, inner in list(lines):  # the comparison may be a fusion
        lines += [line for name in _called(inner) for line in computations[name]]
    constants = {int(each[3].split(")")[0]) for each in lines if each[2] == "constant" and each[1].startswith("s32[]")}
    if len(constants) != 1:
        raise ValueError(f"a loop whose count is not known: {rest[:200]}")
    return constants.pop()


def _collective(operation: str, result: str, rest: str, times: int, scatters: bool) -> Collective:
    plain, devices = operation.removesuffix("-start"), _group(rest)
    parts = _top_level(result)
    if operation == "collective-permute-start" or (operation == "all-gather-start" and len(parts) > 1):
        result = parts[0] if plain == "collective-permute" else parts[1]  # (what goes in, what comes out, ...)
    size = sum(_nbytes(*array) for array in _ARRAY.findall(result))
    if plain == "reduce-scatter":
        size *= devices
    if plain == "all-reduce" and scatters:  # TPUs: a fusion that keeps a part of the sum
        plain = "reduce-scatter"
    return Collective(plain, devices, (), times, 1, size)


def _top_level(result: str) -> list[str]:
    """The parts of a tuple's type; a type that is no tuple is its one part."""
    if not result.startswith("("):
        return [result]
    parts, depth, start = [], 0, 1
    for i, letter in enumerate(result):
        depth += {"(": 1, "{": 1, "[": 1, ")": -1, "}": -1, "]": -1}.get(letter, 0)
        if (letter == "," and depth == 1) or depth == 0:
            parts.append(result[start:i].strip())
            start = i + 1
    return parts


def _group(rest: str) -> int:
    """How many devices exchange with each other."""
    if pairs := re.search(r"source_target_pairs=\{(.*?)\}\}", rest):
        return len({number for pair in re.findall(r"\d+,\d+", pairs[1]) for number in pair.split(",")})
    if iota := re.search(r"replica_groups=\[\d+,(\d+)\]", rest):
        return int(iota[1])
    if named := re.search(r"replica_groups=mesh\[([^\]]*)\] \{([^}]*)\}", rest):  # XLA of JAX 0.12
        sizes = {name: int(size) for name, size in re.findall(r"'([^']+)'=(\d+)", named[1])}
        return math.prod(sizes[name] for name in re.findall(r"'([^']+)'", named[2]))
    listed = re.search(r"replica_groups=\{\{([\d,]*)\}", rest)
    return len(listed[1].split(",")) if listed else 1


def _nbytes(kind: str, dims: str) -> int:
    bits = {"pred": 8}.get(kind) or int(re.sub(r"^\D+(\d+).*$", r"\1", kind))
    return math.prod(int(n) for n in dims.split(",") if n) * max(bits, 8) // 8
