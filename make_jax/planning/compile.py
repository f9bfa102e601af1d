"""Ahead-of-time compilation of the training step, and XLA's report of its memory and collectives.

TPU programs compile without a TPU, with libtpu. GPU programs compile only on a machine with that GPU.
"""

import importlib.util
import os
from dataclasses import dataclass

import jax
from jax.experimental import topologies

from make_jax.config import Config
from make_jax.errors import InputError
from make_jax.planning.collectives import Collective
from make_jax.planning.hardware import tpu_topology
from make_jax.planning.hlo_collectives import compiled_collectives
from make_jax.planning.shapes import StepFunctions, batch_shapes, largest_model, state_shapes
from make_jax.runs.mesh import make_mesh

# Without a TPU, libtpu would query the cloud metadata server for its own topology, wait, and warn.
LIBTPU_ENVIRONMENT = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "none",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}


@dataclass(frozen=True)
class CompiledStep:
    """XLA's report of one device's program (`memory_analysis`); bytes."""

    target: str  # what it was compiled for
    arguments: int = 0  # state and batch in the device's layout
    temporary: int = 0
    code: int = 0
    total: int = 0  # peak
    collectives: tuple[Collective, ...] = ()
    error: str = ""  # the compiler's message for a program that does not fit; all else is 0 then


def check_libtpu(device: str) -> None:
    """Raises InputError when libtpu is not installed."""
    if importlib.util.find_spec("libtpu") is None:
        raise InputError(
            f"--device {device} compiles for TPUs, with the package libtpu, which needs no TPU but is not installed: "
            "pip install libtpu; or name a device that is estimated: h200, h100, cpu"
        )


def compile_for_tpu(config: Config, device: str, count: int, functions: StepFunctions) -> CompiledStep:
    """Compiles the step for `count` chips of a TPU; takes minutes for a large model and allocates no device memory.

    Raises InputError without libtpu and for a count that has no slice.
    """
    topology = tpu_topology(device, count)
    check_libtpu(device)
    for variable, value in LIBTPU_ENVIRONMENT.items():
        os.environ.setdefault(variable, value)
    description = topologies.get_topology_desc(platform="tpu", topology_name=topology)
    return compile_step(config, list(description.devices), f"{topology} by libtpu", functions)


def compile_step(config: Config, devices: list[jax.Device], target: str, functions: StepFunctions) -> CompiledStep:
    """Compiles the step for `devices`, which may be those of a topology description; `target` names them in reports."""
    mesh, model = make_mesh(config.train.fsdp, devices), largest_model(config)
    state = state_shapes(model, config, mesh, functions)
    step = functions.make_step(model, config, mesh, state.params)
    lowered = step.lower(state, batch_shapes(model, config, mesh))
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return CompiledStep(target, error=str(error).splitlines()[0])
    memory, program_text = compiled.memory_analysis(), compiled.as_text()
    assert memory is not None and program_text is not None
    arguments, code = memory.argument_size_in_bytes, memory.generated_code_size_in_bytes
    outputs = memory.output_size_in_bytes - memory.alias_size_in_bytes  # the new state reuses the old one's buffers
    total = arguments + outputs + memory.temp_size_in_bytes + code
    collectives = compiled_collectives(program_text)
    return CompiledStep(target, arguments, memory.temp_size_in_bytes, code, total, tuple(collectives))
