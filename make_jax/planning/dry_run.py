"""What a step would take on machines that need not be there: `python train.py --config FILE --dry-run`.

Nothing is allocated and no catalog is read: the step is traced for shapes. Parameters, state and batch are exact; FLOPs
and collectives are those of the traced program; memory apart from state and batch is an estimate
(`planning/step_costs.py`), and so is all memory on GPUs and CPUs. For TPUs the step is also compiled, and memory and
collectives are the compiler's.
"""

import os
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from make_jax.command_line import DryRun
from make_jax.config import Config, check
from make_jax.model.make import Make
from make_jax.objectives.total import Vectors, total_loss
from make_jax.planning.aot import Compiled, compile_step, expect_libtpu
from make_jax.planning.hardware import Machine, machine_of, name_of
from make_jax.planning.roofline import Bounds, bounds
from make_jax.planning.shapes import batch_shapes, bytes_per_device, model_of, state_shapes
from make_jax.planning.step_costs import Counts, count
from make_jax.runs.mesh import BATCH_AXES, AnyMesh, abstract_mesh, check_batch_config
from make_jax.runs.state import parameter_count
from make_jax.training.gradient_cache import make_encode
from make_jax.training.step import make_step


@dataclass(frozen=True)
class Report:
    """What a dry run found; bytes and FLOPs are those of one device, unless they say otherwise."""

    name: str
    devices: int
    fsdp: int
    parameters: int  # numbers, of the whole model
    held: dict[str, int]  # bytes of parameters, optimizer, EMA, batch
    gradients: int  # bytes, whole and in float32 as they are summed; part of `step.alive`
    step: Counts
    loss: Counts  # of the contrasts alone
    bounds: Bounds | None
    memory: float | None  # bytes that a device has; None where that is not known
    compiled: Compiled | None  # for TPUs

    @property
    def total(self) -> int:
        """Bytes at most at once: the compiler's count, or an estimate."""
        return sum(self.held.values()) + self.step.alive if self.compiled is None else self.compiled.total

    @property
    def fits(self) -> bool | None:
        """Whether a device has so much memory; None where that is not known."""
        if self.compiled is not None and self.compiled.refusal:
            return False
        return None if self.memory is None else self.total <= self.memory


def dry_run(config: Config, asked: DryRun) -> Report:
    """Traces the step for the devices asked for, and compiles it for TPUs.

    Raises InputError for settings that contradict each other or the count of devices, and for a device, or a count of
    TPUs, that does not exist.
    """
    name, devices = _devices(asked)
    tpu = bool(machine_of(name).topology)
    if tpu:
        expect_libtpu(name)  # before the minute that tracing takes
    _check(config, devices)
    made = compile_step(config, name, devices) if tpu else None
    return replace(trace_step(config, name, devices), compiled=made)


def trace_step(config: Config, name: str, devices: int) -> Report:
    """The same without a compiler, for any count of devices; raises InputError as `dry_run` does."""
    machine, mesh = machine_of(name), _check(config, devices)
    model = model_of(config)
    state, batch = state_shapes(model, config, mesh), batch_shapes(model, config, mesh)
    traced = make_step(model, config, mesh, state.params).trace(state, batch)
    step = count(traced.jaxpr.jaxpr)
    held = {"parameters": state.params, "optimizer": state.opt_state, "average": state.ema}
    sizes = {what: bytes_per_device(tree) for what, tree in (held | {"batch": dict(batch)}).items()}
    return Report(
        name,
        devices,
        config.train.fsdp,
        parameter_count(state.params),
        sizes,
        sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state.params)),
        step,
        count_loss(model, config, mesh),
        bounds(step, sizes["parameters"], machine, devices, config.train.fsdp),
        _memory(machine, devices),
        None,
    )


def _check(config: Config, devices: int) -> AnyMesh:
    """The mesh of so many devices, if the settings agree with it and with each other."""
    check(config)
    mesh = abstract_mesh(config.train.fsdp, devices)
    check_batch_config(config, mesh)
    return mesh


def count_loss(model: Make, config: Config, mesh: AnyMesh) -> Counts:
    """What the contrasts alone do, value and gradient, from vectors that are there."""
    one = replace(config, train=replace(config.train, batch_size=1))
    single = abstract_mesh(1, 1)
    params = state_shapes(model, one, single).params
    encode, row = make_encode(model, config), batch_shapes(model, one, single)
    key = jax.eval_shape(lambda: jax.random.key(0))
    made, _ = jax.eval_shape(encode, params, row, key, jnp.zeros((), jnp.int32))
    return count_contrasts(config, made, mesh, model)


def count_contrasts(config: Config, one: Vectors, mesh: AnyMesh, model: Make) -> Counts:
    """The same from the vectors of one row, as shapes."""
    rows, whole = PartitionSpec(BATCH_AXES), PartitionSpec()
    vectors = jax.tree.map(lambda v: jax.ShapeDtypeStruct((config.train.batch_size, *v.shape[1:]), v.dtype), one)
    scalar = jax.ShapeDtypeStruct((), jnp.float32)

    def local(vectors: Vectors, scale: Any, bias: Any, batch: Any) -> Any:
        return total_loss(config.objectives, vectors, {}, batch, scale, bias, BATCH_AXES)[0]

    split = jax.shard_map(local, mesh=mesh, in_specs=(rows, whole, whole, rows), out_specs=whole, check_vma=True)
    gradient = jax.jit(jax.value_and_grad(split, argnums=(0, 1, 2)))
    return count(gradient.trace(vectors, scalar, scalar, dict(batch_shapes(model, config, mesh))).jaxpr.jaxpr)


def _devices(asked: DryRun) -> tuple[str, int]:
    """Name and count of the devices: those asked for, or this machine's."""
    if asked.device:
        # Tracing makes small constants: not on an accelerator that somebody uses.
        jax.config.update("jax_platforms", "cpu")
        return asked.device, asked.count or 1
    here = jax.devices()
    return name_of(here[0].device_kind), asked.count or len(here)


def _memory(machine: Machine, devices: int) -> float | None:
    """Bytes that a device has; pretended CPU devices share this machine's."""
    if machine.peak is not None:
        return machine.peak.memory
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / devices
