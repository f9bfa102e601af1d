"""Metrics of training steps: collected on the devices, averaged and logged every `train.log_every` steps."""

import math
import time

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from make_jax.config import Config
from make_jax.errors import InputError
from make_jax.inputs.batch import Batch
from make_jax.inputs.device import DevicePrefetch
from make_jax.training.checkpointing import Progress
from make_jax.training.data_fingerprint import make_fingerprint_update
from make_jax.training.metric_logger import MetricLogger
from make_jax.training.optimizer import learning_rate_schedule
from make_jax.training.utilization import Utilization

MAX_STEPS_IN_FLIGHT = 2  # dispatched and not finished; a stop waits for them


class StepMetrics:
    """Collects the metrics of steps without waiting for them; `flush` reads, checks and logs them."""

    def __init__(
        self,
        config: Config,
        mesh: Mesh,
        batches: DevicePrefetch[Batch, dict[str, jax.Array]],
        progress: Progress,
        logger: MetricLogger,
    ) -> None:
        self.utilization = Utilization(config, mesh)
        self._run_folder = config.run
        self._batches, self._progress, self._logger = batches, progress, logger
        self._learning_rate = learning_rate_schedule(config.optim, config.train.steps)
        self._update_fingerprint = make_fingerprint_update(mesh)
        self._pending: list[dict[str, jax.Array]] = []  # one dict per step since the last flush, on the devices
        self._seconds_waited = 0.0  # for data, until the last flush
        self._clock = 0.0
        self.restart_clock()

    def restart_clock(self) -> None:
        """Excludes the time until now from the throughput: evaluations and saves."""
        self._clock = time.perf_counter()

    def add(self, step: int, batch: dict[str, jax.Array], metrics: dict[str, jax.Array]) -> None:
        """Adds the metrics of `step`, which may still be running, and its batch to the data fingerprint."""
        self._progress.data_fingerprint = self._update_fingerprint(jnp.uint32(self._progress.data_fingerprint), batch)
        self._pending.append(metrics)
        if len(self._pending) > MAX_STEPS_IN_FLIGHT:
            jax.block_until_ready(self._pending[-1 - MAX_STEPS_IN_FLIGHT])
        self._logger.advance(step)

    def flush(self, step: int) -> None:
        """Logs the mean metrics of the pending steps up to `step`. Raises InputError if a loss is not finite."""
        if not self._pending:
            return
        pending, self._progress.data_fingerprint = jax.device_get((self._pending, self._progress.data_fingerprint))
        values = [{name: float(value) for name, value in metrics.items()} for metrics in pending]
        _check_finite(values, step, self._run_folder)
        now, seconds_waited = time.perf_counter(), self._batches.seconds_waited
        elapsed = now - self._clock
        self._logger.write(
            step,
            {
                **{name: float(np.mean([metrics[name] for metrics in values])) for name in values[0]},
                "learning_rate": float(self._learning_rate(step - 1)),  # used by `step`: updates count from 0
                **self.utilization.metrics(len(values), elapsed),
                "data_wait": (seconds_waited - self._seconds_waited) / elapsed,
                "data_fingerprint": f"{int(self._progress.data_fingerprint):08x}",
            },
        )
        self._progress.seconds += elapsed
        self._pending, self._clock, self._seconds_waited = [], now, seconds_waited


def _check_finite(values: list[dict[str, float]], last_step: int, run_folder: str) -> None:
    """Raises InputError that names the first step whose loss or gradient is NaN or infinite."""
    first_step = last_step - len(values) + 1
    for step, metrics in enumerate(values, first_step):
        if not (math.isfinite(metrics["loss"]) and math.isfinite(metrics["gradient_norm"])):
            raise InputError(
                f"the loss or its gradient is not finite at step {step} (checked steps {first_step} to {last_step}); "
                f"lower optim.learning_rate or optim.clip_norm; the last good checkpoint is kept in {run_folder}"
            )
