"""Collectives of a compiled program, read from its HLO text (`compiled.as_text()`).

jaxlib's HLO bindings do not expose replica groups and trip counts, so the text is parsed. TPU and CPU compilers are
covered by tests with programs of known collectives.
"""

import math
import re

from make_jax.planning.collectives import OPERATIONS, Collective, merge_collectives

Computations = dict[str, list[tuple[str, str, str, str]]]  # instructions: (name, result type, operation, operands ...)

_COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = (.*?) ([a-z][\w\-]*)\((.*)$")
_CALLED = re.compile(r"(?:to_apply|calls|body|condition|true_computation|false_computation)=%?([\w.\-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_ARRAY = re.compile(r"\b(pred|bf16|[sufc]\d+\w*)\[([\d,]*)\]")


def compiled_collectives(text: str) -> list[Collective]:
    """Returns the collectives of a compiled program; those in a loop are counted once per iteration.

    A loop's trip count is the compiler's annotation, or else the constant in its condition, as `jax.lax.scan` compiles
    to. Raises ValueError for a loop that contains a collective and has neither.
    """
    computations, entry = _parse(text)
    times = dict.fromkeys(computations, 0)
    times[entry] = 1
    order = _topological_order(computations, entry)
    communicating = _communicating(computations, order)
    for name in order:
        for _, _, operation, rest in computations[name]:
            within = [called for called in _called(rest) if called in communicating]
            trips = _trip_count(rest, computations) if operation == "while" and within else 1
            for called in within:
                times[called] += times[name] * trips
    collectives = []
    for name, lines in computations.items():
        for _, result, operation, rest in lines:
            if _is_collective(operation) and times[name]:
                collectives.append(_collective(operation, result, rest, times[name], scatters="scatter" in name))
    return merge_collectives(each for each in collectives if each.devices > 1)


def _parse(text: str) -> tuple[Computations, str]:
    """Returns the instructions of each computation, and the name of the entry computation."""
    computations: Computations = {}
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
    """Returns the computations that an instruction calls."""
    branches = [name.strip().lstrip("%") for part in _BRANCHES.findall(rest) for name in part.split(",")]
    return [*_CALLED.findall(rest), *branches]


def _topological_order(computations: Computations, entry: str) -> list[str]:
    """Returns the reachable computations, callers before callees."""
    order: list[str] = []
    visited: set[str] = set()

    def visit(name: str) -> None:
        if name not in visited:
            visited.add(name)
            for *_, rest in computations[name]:
                for called in _called(rest):
                    visit(called)
            order.append(name)

    visit(entry)
    return order[::-1]


def _is_collective(operation: str) -> bool:
    return operation.removesuffix("-start") in OPERATIONS


def _communicating(computations: Computations, order: list[str]) -> set[str]:
    """Returns the computations that contain a collective, directly or in a computation that they call."""
    communicating: set[str] = set()
    for name in reversed(order):
        if any(
            _is_collective(line[2]) or not communicating.isdisjoint(_called(line[3])) for line in computations[name]
        ):
            communicating.add(name)
    return communicating


def _trip_count(rest: str, computations: Computations) -> int:
    """Returns how often a `while` instruction runs its body."""
    if annotation := re.search(r"known_trip_count\D+(\d+)", rest):
        return int(annotation[1])
    condition = re.search(r"condition=%?([\w.\-]+)", rest)
    lines = list(computations[condition[1]]) if condition else []
    for *_, inner in list(lines):  # the comparison may be a fusion
        lines += [line for name in _called(inner) for line in computations[name]]
    constants = {int(each[3].split(")")[0]) for each in lines if each[2] == "constant" and each[1].startswith("s32[]")}
    if len(constants) != 1:
        raise ValueError(f"a loop whose trip count is unknown: {rest[:200]}")
    return constants.pop()


def _collective(operation: str, result: str, rest: str, times: int, scatters: bool) -> Collective:
    """Returns the collective that one instruction performs; `scatters`: the fusion around it keeps one shard."""
    plain, devices = operation.removesuffix("-start"), _group_size(rest)
    parts = _tuple_parts(result)
    if operation == "collective-permute-start" or (operation == "all-gather-start" and len(parts) > 1):
        result = parts[0] if plain == "collective-permute" else parts[1]  # (operand, result, ...)
    size = sum(_array_bytes(*array) for array in _ARRAY.findall(result))
    if plain == "reduce-scatter":
        size *= devices
    if plain == "all-reduce" and scatters:  # TPU: an all-reduce fused with the slice of one shard
        plain = "reduce-scatter"
    return Collective(plain, devices, (), times, 1, size)


def _tuple_parts(result: str) -> list[str]:
    """Returns the elements of a tuple type; any other type is its own single element."""
    if not result.startswith("("):
        return [result]
    parts, depth, start = [], 0, 1
    for i, character in enumerate(result):
        depth += {"(": 1, "{": 1, "[": 1, ")": -1, "}": -1, "]": -1}.get(character, 0)
        if (character == "," and depth == 1) or depth == 0:
            parts.append(result[start:i].strip())
            start = i + 1
    return parts


def _group_size(rest: str) -> int:
    """Returns the number of devices in one replica group."""
    if pairs := re.search(r"source_target_pairs=\{(.*?)\}\}", rest):
        return len({number for pair in re.findall(r"\d+,\d+", pairs[1]) for number in pair.split(",")})
    if iota := re.search(r"replica_groups=\[\d+,(\d+)\]", rest):
        return int(iota[1])
    if named := re.search(r"replica_groups=mesh\[([^\]]*)\] \{([^}]*)\}", rest):  # XLA of JAX 0.12
        sizes = {name: int(size) for name, size in re.findall(r"'([^']+)'=(\d+)", named[1])}
        return math.prod(sizes[name] for name in re.findall(r"'([^']+)'", named[2]))
    listed = re.search(r"replica_groups=\{\{([\d,]*)\}", rest)
    return len(listed[1].split(",")) if listed else 1


def _array_bytes(kind: str, dims: str) -> int:
    """Returns the bytes of an array such as bf16[4,16]."""
    bits = {"pred": 8}.get(kind) or int(re.sub(r"^\D+(\d+).*$", r"\1", kind))
    return math.prod(int(n) for n in dims.split(",") if n) * max(bits, 8) // 8
