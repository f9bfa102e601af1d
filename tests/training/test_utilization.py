from dataclasses import replace

import jax
import jax.numpy as jnp
import pytest

from make_jax.config import Config
from make_jax.planning.hardware import CHIPS, ChipSpec
from make_jax.runs.mesh import make_mesh
from make_jax.training import utilization
from make_jax.training.utilization import Utilization


def square(state: jax.Array, batch: dict[str, jax.Array]) -> jax.Array:
    return state @ batch["x"]


def utilization_metrics(peaks: dict[str, ChipSpec], monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """Of 3 steps in 2 seconds, each one product of 8 x 8 matrices, batch size 64, 8 devices."""
    monkeypatch.setattr(utilization, "CHIPS", peaks)
    config = Config()
    meter = Utilization(replace(config, train=replace(config.train, batch_size=64)), make_mesh())
    meter.count_flops(jax.jit(square), jnp.ones((8, 8)), {"x": jnp.ones((8, 8))})
    return meter.metrics(3, 2.0)


def test_mfu_is_the_fraction_of_the_peak_of_all_devices(monkeypatch):
    metrics = utilization_metrics({jax.devices()[0].device_kind: ChipSpec(4000.0, 1000.0, 1.0, 1.0, 1.0)}, monkeypatch)
    assert metrics["mfu"] == pytest.approx(3 * (2 * 8**3) / (2.0 * 8 * 1000.0))  # of float32, the config's dtype
    assert metrics["examples_per_second"] == 96.0
    assert metrics["examples_per_second_per_device"] == 12.0


def test_mfu_of_an_unknown_device_is_left_out_and_memory_is_that_of_the_process(monkeypatch):
    metrics = utilization_metrics(CHIPS, monkeypatch)
    assert set(metrics) == {"examples_per_second", "examples_per_second_per_device", "peak_process_memory"}
    assert 2e7 < metrics["peak_process_memory"] < 1e12  # bytes


def test_memory_that_a_device_reports_is_used():
    class ReportingDevice:
        def __init__(self, peak: int) -> None:
            self.device_kind, self.process_index, self._peak = "NVIDIA H200", 0, peak

        def memory_stats(self) -> dict[str, int]:
            return {"peak_bytes_in_use": self._peak}

    meter = Utilization(Config(), make_mesh())
    meter._local_devices = [ReportingDevice(5), ReportingDevice(7)]  # type: ignore[list-item]
    assert meter.metrics(1, 1.0)["peak_device_memory"] == 7.0
