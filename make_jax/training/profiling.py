"""`--train.profile FIRST:LAST`: a trace of some steps into RUN/profile, for XProf and Perfetto."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from make_jax.config import profiled_steps


class Profile:
    """Traces the steps that `text` names, numbered as they are logged; "" traces none. Close it at the end."""

    def __init__(self, text: str, folder: Path) -> None:
        steps = profiled_steps(text)
        self._steps = range(0) if steps is None else range(steps[0], steps[1] + 1)
        self._folder = folder
        self._tracing = False

    def step(self, number: int, step: Callable[..., Any], *arguments: Any) -> Any:
        """What `step(*arguments)` gives, traced if it is its turn; the trace is written when the last one is done."""
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
        """Writes what was traced of a run that ends before the last step to trace."""
        if self._tracing:
            jax.profiler.stop_trace()
            self._tracing = False
