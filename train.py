"""Trains a model: python train.py --config configs/demo.py [--data.catalog PATH] [--optim.learning-rate 3e-4] ...

With --dry-run [--device v5e --count 256] it says what a step would take there instead, and runs nothing.
"""

import sys

from make_jax.errors import end_on_sigterm, exit_cleanly


def main() -> None:
    """Parses the settings and trains, or says what a step would take."""
    end_on_sigterm()  # before what takes seconds to import
    from make_jax.command_line import parse, take_dry_run

    asked, rest = take_dry_run(sys.argv[1:])
    config = parse(rest, "Trains a model on a catalog's clicks.")
    if asked is not None:
        from make_jax.planning.dry_run import dry_run
        from make_jax.planning.report import format_report
        from make_jax.training.step import STEP_FUNCTIONS

        print(format_report(config, dry_run(config, STEP_FUNCTIONS, asked.device, asked.count)))
        return
    import jax  # after parsing: --help and a wrong flag answer at once

    from make_jax.training.loop import train

    folder = train(config)
    if jax.process_index() == 0:
        print(f"done: {folder} (curves.png, metrics.jsonl, checkpoints/); now: python eval.py {folder}")


if __name__ == "__main__":
    exit_cleanly(main)
