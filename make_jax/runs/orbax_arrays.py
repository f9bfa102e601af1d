"""Arrays of a checkpoint on disk, by name. The only module that calls Orbax.

`folder` is the subfolder `state` of a checkpoint; `Name` is the path to a leaf, as in named_leaves.py.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import jax
import numpy as np
import orbax.checkpoint as ocp
from flax.traverse_util import unflatten_dict

from make_jax.errors import InputError
from make_jax.runs import named_leaves
from make_jax.runs.failure_detection import silence_save_tracebacks
from make_jax.runs.named_leaves import Name

AsyncWriter: TypeAlias = ocp.AsyncCheckpointer
_MIN_SLICE = 1 << 20  # bytes of an array that replicas write in slices


def make_writer() -> AsyncWriter:
    """Returns a writer that copies arrays to host memory and writes them in the background."""
    silence_save_tracebacks()
    # Replicas write slices of an array in parallel. Each shape and device compiles a slicing program, during which the
    # first save blocks training: 7 s for 20 shapes on 8 devices. So only large arrays are sliced.
    handler = ocp.type_handlers.ArrayHandler(min_slice_bytes_for_replica_parallel=_MIN_SLICE)
    arrays = ocp.type_handlers.create_type_handler_registry((jax.Array, handler))
    # Compression takes processor time from training and saves little (240 MB to 212).
    return AsyncWriter(ocp.PyTreeCheckpointHandler(use_compression=False, type_handler_registry=arrays))


def start_save(writer: AsyncWriter, folder: Path, leaves: Mapping[Name, jax.Array]) -> None:
    """Starts writing; the arrays may be donated right after. `writer.wait_until_finished()` waits for the end."""
    writer.save(folder, args=ocp.args.PyTreeSave(unflatten_dict(leaves)))


def written_by_process(folder: Path, process: int) -> Path:
    """Returns the subfolder of `folder` that a process alone wrote, if there are several; it may not exist."""
    return folder / f"ocdbt.process_{process}"


def wait_for_processes(key: str, seconds: int) -> None:
    """Returns once all processes have called it with this `key`, which is used once; safe in a background thread.

    Raises jax.errors.JaxRuntimeError after `seconds`.
    """
    ocp.multihost.get_barrier_sync_fn()(key=key, timeout_ms=1000 * seconds)


def stored_leaves(folder: Path) -> dict[Name, Any]:
    """Returns shape and dtype of every stored leaf."""
    with _reader() as reader:
        return named_leaves.flatten(reader.metadata(folder).item_metadata.tree)


def stored_params(folder: Path) -> tuple[str, dict[Name, Any]]:
    """Returns "ema" if the run averaged its parameters, else "params", and shape and dtype of its leaves."""
    stored = stored_leaves(folder)
    part = "ema" if any(name[0] == "ema" for name in stored) else "params"
    chosen = {name: leaf for name, leaf in stored.items() if name[0] == part}
    if not chosen:
        raise InputError(f"{folder.parent}: has no parameters")
    return part, chosen


def read_numpy(folder: Path, leaves: Mapping[Name, Any]) -> dict[Name, np.ndarray]:
    """Reads only the named leaves, as NumPy arrays; `leaves` has their shapes and dtypes."""
    return _read(folder, leaves, {name: ocp.RestoreArgs(restore_type=np.ndarray) for name in leaves})


def read_sharded(
    folder: Path, stored: Mapping[Name, Any], requested: Mapping[Name, jax.ShapeDtypeStruct], expected: str
) -> dict[Name, jax.Array]:
    """Reads leaves with the shardings of `requested`; InputError ending in `expected` when `stored` differs."""
    differences = named_leaves.differences(stored, requested)
    if differences:
        raise InputError(f"{folder.parent}: {'; '.join(differences)}; {expected}")
    arguments = {
        name: ocp.ArrayRestoreArgs(sharding=leaf.sharding, global_shape=leaf.shape, dtype=leaf.dtype)
        for name, leaf in requested.items()
    }
    return _read(folder, requested, arguments)


def abstract(leaf: Any) -> jax.ShapeDtypeStruct:
    """Returns shape, dtype and sharding of a template's leaf; without a sharding it is placed on the first device."""
    sharding = getattr(leaf, "sharding", None) or jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


def _reader() -> ocp.Checkpointer:
    return ocp.Checkpointer(ocp.PyTreeCheckpointHandler())


def _read(folder: Path, leaves: Mapping[Name, Any], arguments: Mapping[Name, Any]) -> dict[Name, Any]:
    request = ocp.args.PyTreeRestore(
        item=unflatten_dict({name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for name, leaf in leaves.items()}),
        restore_args=unflatten_dict(arguments),
        partial_restore=True,
    )
    with _reader() as reader:
        return named_leaves.flatten(reader.restore(folder, args=request))
