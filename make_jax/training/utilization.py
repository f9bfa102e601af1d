"""Device utilization of a run: examples per second, MFU (model FLOPs utilization), peak memory."""

import resource
import sys
from typing import Any

import jax
from jax.sharding import Mesh

from make_jax.config import Config
from make_jax.planning.flops import step_flops
from make_jax.planning.hardware import CHIPS


class Utilization:
    """Computes the utilization metrics of a run; call `count_flops` with the first step's arguments before taking it.

    MFU is reported only on devices in `planning/hardware.py`.
    """

    def __init__(self, config: Config, mesh: Mesh) -> None:
        self._batch_size, self._device_count = config.train.batch_size, mesh.size
        self._local_devices = [device for device in mesh.devices.flat if device.process_index == jax.process_index()]
        peak = CHIPS.get(self._local_devices[0].device_kind)
        self._peak_flops = None if peak is None else peak.flops(config.model.dtype)  # FLOP/s of one device
        self._step_flops: int | None = None  # of one step, over all devices
        self._counted = False

    def count_flops(self, step: Any, state: Any, batch: dict[str, jax.Array]) -> None:
        """Counts the FLOPs of one step from its arguments; later calls do nothing."""
        if not self._counted:
            self._step_flops, self._counted = step_flops(step, state, batch), True

    def metrics(self, steps: int, seconds: float) -> dict[str, float]:
        """Returns the metrics of `steps` steps that took `seconds`, by name (docs/scaling.md defines each)."""
        rate = steps * self._batch_size / seconds
        metrics = {"examples_per_second": rate, "examples_per_second_per_device": rate / self._device_count}
        if self._peak_flops is not None and self._step_flops is not None:
            metrics["mfu"] = steps * self._step_flops / (seconds * self._device_count * self._peak_flops)
        return metrics | self._peak_memory()

    def _peak_memory(self) -> dict[str, float]:
        """Peak bytes of this process's fullest device; of the process itself where devices report none (CPU)."""
        stats = [device.memory_stats() for device in self._local_devices]
        peaks = [each["peak_bytes_in_use"] for each in stats if each and "peak_bytes_in_use" in each]
        if peaks:
            return {"peak_device_memory": float(max(peaks))}
        unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss
        return {"peak_process_memory": float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)}
