"""What a training step takes on given devices: `python train.py --config FILE --dry-run [--device NAME --count N]`.

Nothing is allocated and no catalog is read: the step is traced for shapes. Parameters, state and batch are exact; FLOPs
and collectives are those of the traced program. For TPUs, and for this machine's own devices, the step is also
compiled, and memory and collectives are XLA's. For other devices memory is an estimate (`live_memory.py`).
"""

import os
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from make_jax.config import Config, check
from make_jax.model.attention import check_attention, traceable_attention
from make_jax.model.make import Make
from make_jax.model.modal_adaptation import modality_weights
from make_jax.objectives.total import Embeddings, check_objectives, total_loss
from make_jax.planning.compile import CompiledStep, check_libtpu, compile_for_tpu, compile_step
from make_jax.planning.hardware import Machine, find_machine, machine_name
from make_jax.planning.roofline import StepTimeBounds, step_time_bounds
from make_jax.planning.shapes import StepFunctions, batch_shapes, bytes_per_device, largest_model, state_shapes
from make_jax.planning.step_costs import StepCosts, step_costs
from make_jax.runs.mesh import BATCH_AXES, AnyMesh, abstract_mesh, check_batch_config
from make_jax.runs.state import parameter_count


@dataclass(frozen=True)
class DryRunReport:
    """Costs of a step; bytes and FLOPs are those of one device unless stated otherwise."""

    device: str  # name in hardware.MACHINES
    devices: int
    fsdp: int
    parameters: int  # of the complete model
    resident: dict[str, int]  # bytes of parameters, optimizer, EMA, batch
    gradient_bytes: int  # complete and in float32, as they are summed; part of `step.live_bytes`
    step: StepCosts
    loss: StepCosts  # of the contrastive losses alone
    time_bounds: StepTimeBounds | None  # None for a chip without datasheet
    device_memory: float | None  # bytes; None where it is unknown
    compiled: CompiledStep | None = None  # None where no compiler for the device is present

    @property
    def total_bytes(self) -> int:
        """Peak memory: XLA's report, or an estimate."""
        if self.compiled is not None:
            return self.compiled.total
        return sum(self.resident.values()) + self.step.live_bytes

    @property
    def fits(self) -> bool | None:
        """Whether the step fits into the device's memory; None where that is unknown."""
        if self.compiled is not None and self.compiled.error:
            return False
        return None if self.device_memory is None else self.total_bytes <= self.device_memory


def dry_run(config: Config, functions: StepFunctions, device: str = "", count: int = 0) -> DryRunReport:
    """Traces the step for `count` devices, and compiles it for TPUs and for this machine's devices.

    `device` is a name in `hardware.MACHINES`; "" is this machine's devices. `count` 0 is all of this machine's devices,
    or one of a named device. Raises InputError for contradicting settings, for a batch that the devices do not divide,
    and for an unknown device or slice.
    """
    if device:
        jax.config.update("jax_platforms", "cpu")  # tracing allocates small constants: not on an accelerator in use
        name, count = device, count or 1
        is_tpu = bool(find_machine(name).topology)
        if is_tpu:
            check_libtpu(name)  # before tracing, which takes a minute for a large model
        report = trace_step(config, functions, name, count)
        return replace(report, compiled=compile_for_tpu(config, name, count, functions)) if is_tpu else report
    local = jax.devices()
    count = count or len(local)
    report = trace_step(config, functions, machine_name(local[0].device_kind), count)
    if count != len(local):
        return report
    return replace(report, compiled=compile_step(config, local, "the devices of this machine", functions))


def trace_step(config: Config, functions: StepFunctions, device: str, count: int) -> DryRunReport:
    """Returns the report without compilation, for any count of devices; raises InputError as `dry_run` does."""
    check(config)
    check_attention(config.model)
    modality_weights(config.model.adaptation.weights)  # raises InputError for an unknown name
    check_objectives(config.objectives)
    attention = traceable_attention(config.model.attention)
    config = replace(config, model=replace(config.model, attention=attention))
    machine, mesh = find_machine(device), abstract_mesh(config.train.fsdp, count)
    check_batch_config(config, mesh)
    model = largest_model(config)
    state, batch = state_shapes(model, config, mesh, functions), batch_shapes(model, config, mesh)
    step = step_costs(functions.make_step(model, config, mesh, state.params).trace(state, batch).jaxpr.jaxpr)
    resident = {"parameters": state.params, "optimizer": state.opt_state, "EMA": state.ema, "batch": dict(batch)}
    sizes = {name: bytes_per_device(tree) for name, tree in resident.items()}
    return DryRunReport(
        device,
        count,
        config.train.fsdp,
        parameter_count(state.params),
        sizes,
        sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state.params)),
        step,
        loss_costs(model, config, mesh, functions),
        step_time_bounds(step, sizes["parameters"], machine, count, config.train.fsdp),
        _device_memory(machine, count),
    )


def loss_costs(model: Make, config: Config, mesh: AnyMesh, functions: StepFunctions) -> StepCosts:
    """Returns the costs of the contrastive losses alone, value and gradient, from given embeddings."""
    one_row, one_device = replace(config, train=replace(config.train, batch_size=1)), abstract_mesh(1, 1)
    params = state_shapes(model, one_row, one_device, functions).params
    encode, row = functions.make_encode(model, config), batch_shapes(model, one_row, one_device)
    key = jax.eval_shape(lambda: jax.random.key(0))
    embeddings, _ = jax.eval_shape(encode, params, row, key, jnp.zeros((), jnp.int32))
    rows = jax.tree.map(lambda x: jax.ShapeDtypeStruct((config.train.batch_size, *x.shape[1:]), x.dtype), embeddings)
    scalar, split, replicated = jax.ShapeDtypeStruct((), jnp.float32), PartitionSpec(BATCH_AXES), PartitionSpec()

    def local_loss(embeddings: Embeddings, log_logit_scale: Any, logit_bias: Any, batch: Any) -> Any:
        return total_loss(config.objectives, embeddings, {}, batch, log_logit_scale, logit_bias, BATCH_AXES)[0]

    loss = jax.shard_map(
        local_loss, mesh=mesh, in_specs=(split, replicated, replicated, split), out_specs=replicated, check_vma=True
    )
    gradient = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2)))
    traced = gradient.trace(rows, scalar, scalar, dict(batch_shapes(model, config, mesh)))
    return step_costs(traced.jaxpr.jaxpr)


def _device_memory(machine: Machine, devices: int) -> float | None:
    """Bytes of one device; simulated CPU devices share the memory of this machine."""
    if machine.chip is not None:
        return machine.chip.memory
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / devices
