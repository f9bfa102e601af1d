"""How well a run uses its devices: examples a second on each, MFU, peak memory."""

import resource
import sys
from typing import Any

import jax
from jax.sharding import Mesh

from make_jax.config import Config
from make_jax.planning.devices import PEAKS
from make_jax.planning.flops import step_flops


class Utilisation:
    """Made once a run, told of the step before it is taken first, asked whenever something is logged."""

    def __init__(self, config: Config, mesh: Mesh) -> None:
        self._batch_size, self._devices = config.train.batch_size, mesh.size
        self._local = [device for device in mesh.devices.flat if device.process_index == jax.process_index()]
        peak = PEAKS.get(self._local[0].device_kind)
        self._peak = None if peak is None else peak.flops(config.model.dtype)  # FLOP/s
        self._flops: int | None = None  # of a step, over all devices
        self._seen = False

    def see(self, step: Any, state: Any, batch: dict[str, jax.Array]) -> None:
        """Counts the FLOPs of the step, once."""
        if not self._seen:
            self._flops, self._seen = step_flops(step, state, batch), True

    def measured(self, steps: int, seconds: float) -> dict[str, float]:
        """Of `steps` that took `seconds`, by name (docs/scaling.md says what each means)."""
        rate = steps * self._batch_size / seconds
        told = {"examples_per_second": rate, "examples_per_second_per_device": rate / self._devices}
        if self._peak is not None and self._flops is not None:
            told["mfu"] = steps * self._flops / (seconds * self._devices * self._peak)
        return told | self._memory()

    def _memory(self) -> dict[str, float]:
        """Bytes: of the fullest device of this process, or where devices do not tell, of this process."""
        stats = [device.memory_stats() for device in self._local]
        peaks = [each["peak_bytes_in_use"] for each in stats if each and "peak_bytes_in_use" in each]
        if peaks:
            return {"peak_device_memory": float(max(peaks))}
        unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss
        return {"peak_process_memory": float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)}
