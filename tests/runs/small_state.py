"""A small state to save in tests, and a child process that saves it."""

import json
import os
import subprocess
import sys
import textwrap
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from make_jax.runs import manifest
from make_jax.runs.checkpoints import Checkpoints


@struct.dataclass
class State:
    """Like TrainState, with leaves of any type."""

    step: Any
    params: Any
    opt_state: Any
    ema: Any


def sharding(devices, *axes):
    mesh = jax.make_mesh((devices,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:devices])
    return NamedSharding(mesh, PartitionSpec(*axes))


def make_state(step=0, devices=8, ema=True):
    """A state with a real optimizer, its matrix split over `devices`."""
    params = {
        "title": {"kernel": jax.device_put(jnp.arange(32.0).reshape(16, 2) + step, sharding(devices, "data"))},
        "scale": jax.device_put(jnp.float32(step), sharding(devices)),
        "half": jax.device_put(jnp.full((3,), step, jnp.bfloat16), sharding(devices)),
    }
    return State(
        step=jax.device_put(jnp.int32(step), sharding(devices)),
        params=params,
        opt_state=optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-3)).init(params),
        ema=jax.tree.map(lambda leaf: leaf * 2, params) if ema else None,
    )


def saved(checkpoints, *pairs):
    """Saves (kind, step) pairs in order and waits."""
    for kind, step in pairs:
        checkpoints.save(kind, step, make_state(step), {"position": step}, {"config.json": f"{{{step}}}"})
    checkpoints.wait()


def names(checkpoints):
    return sorted(str(path.relative_to(checkpoints.folder)) for path in checkpoints.folder.glob("*/*"))


def save_and_print_digested_files(folder):
    """Saves one checkpoint of a matrix split over all devices, and prints the files that this process digested."""
    digested, digest = [], manifest._digest
    manifest._digest = lambda path, sync: digested.append(path.as_posix()) or digest(path, sync)
    rows = np.arange(64.0, dtype=np.float32).reshape(2, 32)
    matrix = jax.make_array_from_callback(rows.shape, sharding(jax.device_count(), "data"), rows.__getitem__)
    made = Checkpoints(folder)
    made.save("last", 1, {"params": {"matrix": matrix}}, {})
    made.close()
    print(json.dumps([path.partition("/.partial-000001/")[2] for path in digested]), flush=True)


PROGRAM = """
import os, resource, signal, sys
import jax, numpy as np
from make_jax.errors import InputError, exit_cleanly
from make_jax.runs import checkpoints as module
c = module.Checkpoints(sys.argv[1])
die = lambda *a, **k: os.kill(os.getpid(), signal.SIGKILL)
noise = np.random.default_rng(0).normal(size=1 << 16)
state = lambda step: {"params": {"w": jax.device_put(noise), "step": jax.device_put(np.int32(step))}}
"""


def run(folder, program, devices=8):
    environment = dict(os.environ, XLA_FLAGS=f"--xla_force_host_platform_device_count={devices}")
    command = [sys.executable, "-W", "error", "-c", PROGRAM + textwrap.dedent(program), str(folder)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
