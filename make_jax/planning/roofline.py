"""Bounds on the time of a step from its costs and the datasheets of chips and networks.

    compute   FLOPs of matrix products / peak rate, by operand type
    memory    (traffic of matrix products + traffic of the optimizer) / memory bandwidth
    network   sum over collectives of the bytes sent / bandwidth of the slowest link used, plus a latency per hop

The lower bound is the largest of the three: everything else overlaps with it. The upper bound is their sum: nothing
overlaps. Neither is a prediction, since programs reach a fraction of peak rates. Collectives run one after another. For
a group of n devices, k of them in one island (m = n / k islands), S bytes, and `ring_links` of a chip:

    all-gather, reduce-scatter   S (k - 1) / k / (link * ring_links)  inside,  S (m - 1) / m / k / network  across
    all-reduce                   twice that
    collective-permute           S / link, or S / network where the ring leaves the island
"""

from collections.abc import Iterable
from dataclasses import dataclass

from make_jax.planning.collectives import Collective
from make_jax.planning.hardware import Machine
from make_jax.planning.step_costs import StepCosts

LINK_LATENCY = 1e-6  # s, an assumption
NETWORK_LATENCY = 10e-6  # s, an assumption
OPTIMIZER_TRAFFIC = 7  # AdamW reads parameter, gradient and two moments, and writes all but the gradient


@dataclass(frozen=True)
class StepTimeBounds:
    """Seconds per step."""

    compute: float
    memory: float
    network: float

    @property
    def lower(self) -> float:
        """With perfect overlap."""
        return max(self.compute, self.memory, self.network)

    @property
    def upper(self) -> float:
        """At peak rates without overlap."""
        return self.compute + self.memory + self.network


def step_time_bounds(
    costs: StepCosts, parameter_bytes: int, machine: Machine, devices: int, fsdp: int
) -> StepTimeBounds | None:
    """Returns the bounds of a step; `parameter_bytes` are those that one device holds. None for an unknown chip."""
    chip = machine.chip
    if chip is None:
        return None
    compute = sum(flops / chip.flops(dtype) for dtype, flops in costs.flops.items())
    memory = (costs.traffic + OPTIMIZER_TRAFFIC * parameter_bytes) / chip.memory_bandwidth
    return StepTimeBounds(compute, memory, network_seconds(costs.collectives, machine, devices, fsdp))


def network_seconds(collectives: Iterable[Collective], machine: Machine, devices: int, fsdp: int) -> float:
    """Returns the seconds of all collectives run in sequence, on a mesh whose inner axis has `fsdp` devices."""
    return sum(each.times * _seconds(each, machine, devices, fsdp) for each in collectives)


def _seconds(collective: Collective, machine: Machine, devices: int, fsdp: int) -> float:
    """Seconds of one execution."""
    chip = machine.chip
    assert chip is not None
    link = chip.interconnect / machine.links
    inside = _devices_per_island(collective, machine, devices, fsdp)
    islands, size = collective.devices // inside, collective.size
    if collective.operation == "collective-permute":
        return size / machine.network + NETWORK_LATENCY if islands > 1 else size / link + LINK_LATENCY
    seconds = size * (inside - 1) / inside / (link * machine.ring_links) + (inside - 1) * LINK_LATENCY
    if islands > 1:
        seconds += size * (islands - 1) / islands / inside / machine.network + (islands - 1) * NETWORK_LATENCY
    return seconds * (2 if collective.operation == "all-reduce" else 1)


def _devices_per_island(collective: Collective, machine: Machine, devices: int, fsdp: int) -> int:
    """Group members in one island: consecutive devices along `fsdp`, every fsdp-th device along `data`."""
    island = min(machine.island, devices)
    if collective.axes == ("data",):
        return max(1, min(collective.devices, island // fsdp))
    return min(collective.devices, island)
