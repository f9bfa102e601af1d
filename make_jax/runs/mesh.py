"""The device mesh of a run, and placement of arrays on it."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Bool

from make_jax.config import Config
from make_jax.errors import InputError

BATCH_AXES = ("data", "fsdp")  # the batch is split over both
AXIS_TYPES = (AxisType.Auto, AxisType.Auto)
AnyMesh = Mesh | AbstractMesh  # programs can be traced for devices that do not exist


def make_mesh(fsdp: int = 1, devices: list[jax.Device] | None = None) -> Mesh:
    """Returns a mesh (`data`, `fsdp`) over all devices of all processes; InputError if `fsdp` does not divide them."""
    devices = jax.devices() if devices is None else devices
    return jax.make_mesh(_shape(fsdp, len(devices)), BATCH_AXES, axis_types=AXIS_TYPES, devices=devices)


def abstract_mesh(fsdp: int, devices: int) -> AbstractMesh:
    """Returns the mesh over a number of devices that need not exist, for programs that are traced and never run."""
    return AbstractMesh(_shape(fsdp, devices), BATCH_AXES, axis_types=AXIS_TYPES)


def _shape(fsdp: int, devices: int) -> tuple[int, int]:
    if devices % fsdp:
        raise InputError(f"train.fsdp is {fsdp}, which does not divide the {devices} devices; set a divisor")
    return devices // fsdp, fsdp


def check_batch_config(config: Config, mesh: AnyMesh) -> None:
    """Raises InputError unless the devices divide the config's batch, micro-batches and matching groups."""
    check_batch(config.train.batch_size, mesh)
    check_micro_batch(config.train.batch_size, config.train.micro_batch_size, mesh)
    if config.objectives.qim or config.objectives.qim2:
        check_matching_groups(config.train.batch_size, config.objectives.matching_group, mesh)


def check_batch(batch_size: int, mesh: AnyMesh) -> None:
    """Raises InputError unless the devices divide the batch."""
    if batch_size % mesh.size:
        below = batch_size // mesh.size * mesh.size
        near = f"{below} or {below + mesh.size}" if below else f"{mesh.size}"
        raise InputError(f"train.batch_size is {batch_size}, which {mesh.size} devices do not divide; set it to {near}")


def check_matching_groups(batch_size: int, group: int, mesh: AnyMesh) -> None:
    """Raises InputError unless `group` divides the rows of a device; matching draws negatives inside a group."""
    rows = batch_size // mesh.size
    if rows % group:
        smaller = next((size for size in range(min(group, rows), 1, -1) if rows % size == 0), None)
        advice = f"set the batch size to {-(-rows // group) * group * mesh.size}"
        raise InputError(
            f"train.batch_size is {batch_size}, {rows} rows for each of {mesh.size} devices, which "
            f"objectives.matching_group {group} does not divide; {advice}"
            + (f" or the group to {smaller}" if smaller else "")
        )


def check_micro_batch(batch_size: int, micro_batch: int, mesh: AnyMesh) -> None:
    """Raises InputError unless `micro_batch` divides the rows of a device; 0 means all of them."""
    rows = batch_size // mesh.size
    if micro_batch and rows % micro_batch:
        divisors = [size for size in range(1, rows + 1) if rows % size == 0]
        below, above = [d for d in divisors if d < micro_batch][-1:], [d for d in divisors if d > micro_batch][:1]
        raise InputError(
            f"train.micro_batch_size is {micro_batch}, which does not divide the {rows} rows that each of {mesh.size} "
            f"devices has of train.batch_size {batch_size}; set it to {' or '.join(map(str, below + above))}"
        )


def replicated_sharding(mesh: AnyMesh) -> NamedSharding:
    """Every device holds the full array."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: AnyMesh) -> NamedSharding:
    """The first axis is split over all devices."""
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def shard_rows(batch: Mapping[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """Returns global arrays sharded like batches, from rows that every process holds completely."""
    sharding = batch_sharding(mesh)
    return {name: _place(rows, sharding) for name, rows in batch.items()}


def local_rows(count: int, mesh: Mesh) -> Bool[np.ndarray, "count"]:
    """Returns which of `count` rows `shard_rows` places on the devices of this process; it reads no others."""
    rows = np.zeros(count, bool)
    for index in batch_sharding(mesh).addressable_devices_indices_map((count,)).values():
        rows[index] = True
    return rows


def replicate(tree: Any, mesh: Mesh) -> Any:
    """Returns the arrays replicated on every device; NumPy arrays must be equal in all processes."""
    sharding = replicated_sharding(mesh)

    def place(leaf: Any) -> jax.Array:
        return jax.device_put(leaf, sharding) if isinstance(leaf, jax.Array) else _place(leaf, sharding)

    return jax.tree.map(place, tree)


def to_host(tree: Any, mesh: Mesh) -> Any:
    """Returns each array as a full NumPy array in every process. All processes must call it."""
    if not all(leaf.is_fully_addressable or leaf.is_fully_replicated for leaf in jax.tree.leaves(tree)):
        tree = _replicate(tree, replicated_sharding(mesh))
    return jax.device_get(tree)


@partial(jax.jit, static_argnums=1)
def _replicate(tree: Any, sharding: NamedSharding) -> Any:
    return jax.lax.with_sharding_constraint(tree, sharding)


def _place(array: np.ndarray, sharding: NamedSharding) -> jax.Array:
    """Like device_put, without its check that all processes hold the same values."""
    return jax.make_array_from_callback(array.shape, sharding, array.__getitem__)


def shard_batch(batch: dict[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """Returns global arrays, sharded over all devices, from this process's rows."""
    sharding = batch_sharding(mesh)
    return {name: jax.make_array_from_process_local_data(sharding, rows) for name, rows in batch.items()}
