"""A training that prints when its first step ended, its memory then, and how long its validation took.

    python benchmarks/scaling/measured_training.py START [options of train.py]

START is when the process was started, in seconds since 1970. Memory is that which is not of files (RssAnon).
"""

import functools
import json
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the repository root

MARK = "MEASURED "  # begins the printed lines


def anonymous_bytes(process: int | str = "self") -> int:
    """Memory of a process that is not of files; 0 if it has ended."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:"))


def main() -> None:
    """Trains."""
    start = float(sys.argv[1])
    from make_jax.cli.train import main as train
    from make_jax.training.loop import Trainer
    from make_jax.training.step_metrics import StepMetrics
    from make_jax.training.validation import Validator

    add, measure, evaluate = StepMetrics.add, Validator.measure, Trainer.evaluate

    @functools.wraps(add)
    def first(self: StepMetrics, *arguments: Any) -> None:
        add(self, *arguments)
        StepMetrics.add = add  # type: ignore[method-assign]
        measured = {"first_step_seconds": time.time() - start, "first_step_anonymous_bytes": anonymous_bytes()}
        print(MARK + json.dumps(measured), flush=True)

    def timed(method: Any, name: str) -> Any:
        @functools.wraps(method)
        def run(*arguments: Any, **named: Any) -> Any:
            begin = time.time()
            result = method(*arguments, **named)
            measured = {f"{name}_seconds": time.time() - begin, f"{name}_anonymous_bytes": anonymous_bytes()}
            print(MARK + json.dumps(measured), flush=True)
            return result

        return run

    StepMetrics.add = first  # type: ignore[method-assign]
    Validator.measure = timed(measure, "validation")  # type: ignore[method-assign]
    Trainer.evaluate = timed(evaluate, "evaluation")  # type: ignore[method-assign]
    train(sys.argv[2:])


if __name__ == "__main__":
    main()
