"""How fast a step can be at best, by what it computes, reads and exchanges, on chips that do what their makers say.

    compute   FLOPs of matrix products / peak, by the type of their factors
    memory    (what products read and write + what the optimizer reads and writes) / bandwidth of the chip's memory
    network   for every exchange what a device sends / bandwidth of its slowest part, and a delay for every hop

A step takes at least the longest of the three, where all else hides behind it, and nothing but their sum if nothing
hides. Neither is a forecast: real programs reach a part of a peak. Exchanges run one after another. With n devices of a
group, k of them in an island (n / k islands), S bytes and `lanes` links of a chip:

    all-gather, reduce-scatter   S (k - 1) / k / lanes  inside, then  S (m - 1) / m / k / outside  for m = n / k islands
    all-reduce                   twice that
    hop                          S / one link, or S / outside where the ring leaves an island
"""

from collections.abc import Iterable
from dataclasses import dataclass

from make_jax.planning.collectives import Collective
from make_jax.planning.hardware import Machine
from make_jax.planning.step_costs import Counts

INSIDE_DELAY = 1e-6  # s a hop to the neighbour, an assumption
OUTSIDE_DELAY = 10e-6  # s a hop to another island, an assumption
OPTIMIZER_TRAFFIC = 7  # AdamW reads parameter, gradient and two moments, and writes all but the gradient


@dataclass(frozen=True)
class Bounds:
    """Seconds a step."""

    compute: float
    memory: float
    network: float

    @property
    def least(self) -> float:
        """Where everything hides behind the longest."""
        return max(self.compute, self.memory, self.network)

    @property
    def most(self) -> float:
        """Where nothing hides."""
        return self.compute + self.memory + self.network


def bounds(counts: Counts, parameter_bytes: int, machine: Machine, devices: int, fsdp: int) -> Bounds | None:
    """The bounds of a step; `parameter_bytes` is what one device has of them. None where the chip's peak is unknown."""
    peak = machine.peak
    if peak is None:
        return None
    compute = sum(flops / peak.flops(kind) for kind, flops in counts.flops.items())
    memory = (counts.traffic + OPTIMIZER_TRAFFIC * parameter_bytes) / peak.memory_bandwidth
    return Bounds(compute, memory, network_seconds(counts.collectives, machine, devices, fsdp))


def network_seconds(collectives: Iterable[Collective], machine: Machine, devices: int, fsdp: int) -> float:
    """Seconds that the exchanges take one after another, over a mesh whose inner axis has `fsdp` devices."""
    return sum(each.times * _seconds(each, machine, devices, fsdp) for each in collectives)


def _seconds(one: Collective, machine: Machine, devices: int, fsdp: int) -> float:
    """Seconds of one sort of exchange, once."""
    peak = machine.peak
    assert peak is not None
    link = peak.interconnect / machine.links
    near = _near(one, machine, devices, fsdp)
    islands = one.devices // near
    if one.operation == "collective-permute":
        if islands > 1:
            return one.size / machine.outside + OUTSIDE_DELAY
        return one.size / link + INSIDE_DELAY
    inside = one.size * (near - 1) / near / (link * machine.lanes) + (near - 1) * INSIDE_DELAY
    across = 0.0
    if islands > 1:
        across = one.size * (islands - 1) / islands / near / machine.outside + (islands - 1) * OUTSIDE_DELAY
    return (inside + across) * (2 if one.operation == "all-reduce" else 1)


def _near(one: Collective, machine: Machine, devices: int, fsdp: int) -> int:
    """How many devices of a group lie in one island: neighbours along `fsdp`, or every fsdp-th device along `data`."""
    island = min(machine.island, devices)
    if one.axes == ("data",):
        return max(1, min(one.devices, island // fsdp))
    return min(one.devices, island)
