"""`make-jax train`: trains a model, or with `--dry-run` prints what a step costs."""

import sys
from collections.abc import Sequence
from pathlib import Path

from make_jax.object_stores import is_url


def main(argv: Sequence[str] | None = None) -> None:
    """Parses `argv`, or `sys.argv`, and trains or plans. InputError for wrong settings and catalogs."""
    from make_jax.cli.train_options import parse_settings, split_dry_run

    program, other = ("train.py", "python {}.py") if argv is None else ("make-jax train", "make-jax {}")
    dry_run_options, rest = split_dry_run(sys.argv[1:] if argv is None else argv)
    config = parse_settings(rest, program)
    if dry_run_options is not None:
        from make_jax.planning.dry_run import dry_run
        from make_jax.planning.report import format_report
        from make_jax.training.step import STEP_FUNCTIONS

        report = dry_run(config, STEP_FUNCTIONS, dry_run_options.device, dry_run_options.count)
        print(format_report(config, report))
        return
    import jax  # after parsing: help and a wrong option answer at once

    from make_jax.training.loop import train

    folder: str | Path = train(config)
    if jax.process_index() == 0:
        folder = config.run if is_url(config.run) else folder
        print(
            f"done: {folder} (curves.png, metrics.jsonl, checkpoints/); now: {other.format('eval')} {folder}, "
            f"or {other.format('search')} index {folder} CATALOG INDEX to search"
        )
