"""Compiling a step for TPUs that are not there, with libtpu's own compiler and its own report of memory."""

import importlib.util
import os
from dataclasses import dataclass
from typing import Any

import jax
from jax.experimental import topologies

from make_jax.config import Config
from make_jax.errors import InputError
from make_jax.planning.collectives import Collective, compiled
from make_jax.planning.hardware import topology_name
from make_jax.planning.shapes import batch_shapes, model_of, state_shapes
from make_jax.runs.mesh import make_mesh
from make_jax.training.step import make_step

# Without a TPU, libtpu otherwise asks the cloud which one this is, waits, and complains.
ENVIRONMENT = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "none",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}


@dataclass(frozen=True)
class Compiled:
    """What the compiler says of one device's program."""

    topology: str
    arguments: int  # bytes: state and batch, as the chip lays them out
    temporary: int  # bytes beside them
    code: int  # bytes of the program
    total: int  # bytes at most
    collectives: list[Collective]
    refusal: str = ""  # of a program that does not fit: the compiler's words; all else is 0 then


def expect_libtpu(name: str) -> None:
    """InputError when the compiler for TPUs is missing."""
    if importlib.util.find_spec("libtpu") is None:
        raise InputError(
            f"--device {name} compiles for TPUs, with the package libtpu, which needs no TPU but is not installed: "
            "pip install libtpu; or name a device that is estimated: h200, h100, cpu"
        )


def compile_step(config: Config, name: str, count: int) -> Compiled:
    """The step compiled for `count` chips of the TPU `name`; it allocates nothing and takes minutes for a large model.

    Raises InputError without libtpu and for a count that is no slice.
    """
    topology = topology_name(name, count)
    compiled_step = compile_for(topology, config)
    if isinstance(compiled_step, str):
        return Compiled(topology, 0, 0, 0, 0, [], compiled_step)
    said = compiled_step.memory_analysis()
    inputs, code = said.argument_size_in_bytes, said.generated_code_size_in_bytes
    total = inputs + said.output_size_in_bytes - said.alias_size_in_bytes + said.temp_size_in_bytes + code
    return Compiled(topology, inputs, said.temp_size_in_bytes, code, total, compiled(compiled_step.as_text()))


def compile_for(topology: str, config: Config) -> Any:
    """The step compiled for a topology; the compiler's words where it does not fit."""
    expect_libtpu(topology.split(":")[0])
    for variable, value in ENVIRONMENT.items():
        os.environ.setdefault(variable, value)
    described = topologies.get_topology_desc(platform="tpu", topology_name=topology)
    mesh, model = make_mesh(config.train.fsdp, list(described.devices)), model_of(config)
    state = state_shapes(model, config, mesh)
    lowered = make_step(model, config, mesh, state.params).lower(state, batch_shapes(model, config, mesh))
    try:
        return lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return str(error).splitlines()[0]
