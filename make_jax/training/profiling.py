"""`--train.profile FIRST:LAST`: traces some steps into RUN/profile, for XProf and Perfetto."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from make_jax.config_checks import profiled_steps


class StepProfiler:
    """Traces the steps of a `train.profile` setting, numbered as they are logged; "" traces none.

    Call `close` at the end of the run.
    """

    def __init__(self, setting: str, folder: Path) -> None:
        steps = profiled_steps(setting)
        self._steps = range(0) if steps is None else range(steps[0], steps[1] + 1)
        self._folder = folder
        self._tracing = False

    def run(self, number: int, step: Callable[..., Any], *arguments: Any) -> Any:
        """Returns `step(*arguments)`, traced if step `number` is selected; the last selected step writes the trace."""
        if number not in self._steps:
            return step(*arguments)
        if not self._tracing:
            jax.profiler.start_trace(self._folder)
            self._tracing = True
        with jax.profiler.StepTraceAnnotation("train", step_num=number):
            result = step(*arguments)
        if number == self._steps[-1]:
            jax.block_until_ready(result)
            self.close()
        return result

    def close(self) -> None:
        """Writes the unfinished trace of a run that ends before the last selected step."""
        if self._tracing:
            jax.profiler.stop_trace()
            self._tracing = False
