"""What one device does in a training step, counted in the traced program: FLOPs, memory traffic, collectives, memory.

Memory traffic is what matrix products read and write. Everything else is assumed to be fused into them, so this is a
lower bound. `flops.py` says why XLA's cost analysis is not used.
"""

from dataclasses import dataclass

from jax.extend import core

from make_jax.planning.collectives import Collective, aval_bytes, merge_collectives, traced_collective
from make_jax.planning.flops import PRODUCTS, equations, inner_jaxprs, product_flops
from make_jax.planning.live_memory import peak_live_bytes


@dataclass(frozen=True)
class StepCosts:
    """One step of one device."""

    flops: dict[str, int]  # of matrix products, by operand type: "bfloat16", "float32"
    traffic: int  # bytes read and written by these products
    collectives: list[Collective]  # those of one loop merged
    live_bytes: int  # peak, without state and batch; an estimate

    @property
    def total_flops(self) -> int:
        """FLOPs of all operand types."""
        return sum(self.flops.values())


def step_costs(jaxpr: core.Jaxpr) -> StepCosts:
    """Returns the costs of a program's `shard_map` regions on one device; without any, of the complete program."""
    found = list(equations(jaxpr))
    if any(each.mesh is not None for each in found):
        found = [each for each in found if each.mesh is not None]
    flops: dict[str, int] = {}
    traffic = 0
    by_loop: dict[int, list[Collective]] = {}
    for each in found:
        eqn = each.eqn
        if eqn.primitive.name in PRODUCTS:
            dtype = str(eqn.invars[0].aval.dtype)
            flops[dtype] = flops.get(dtype, 0) + each.times * product_flops(eqn)
            traffic += each.times * sum(aval_bytes(var.aval) for var in (*eqn.invars, *eqn.outvars))
        elif each.mesh is not None and (collective := traced_collective(each)) is not None:
            by_loop.setdefault(each.loop, []).append(collective)
    merged = [each for in_loop in by_loop.values() for each in merge_collectives(in_loop)]
    bodies = _shard_map_bodies(jaxpr) or [jaxpr]
    return StepCosts(flops, traffic, merged, max(peak_live_bytes(body) for body in bodies))


def _shard_map_bodies(jaxpr: core.Jaxpr) -> list[core.Jaxpr]:
    bodies = []
    for eqn in jaxpr.eqns:
        inner = inner_jaxprs(eqn)
        if eqn.primitive.name == "shard_map":
            bodies += inner
        else:
            bodies += [body for each in inner for body in _shard_map_bodies(each)]
    return bodies
