"""Evaluates a run: python eval.py RUN [--data.catalog PATH] [--split test] [--out FOLDER]"""

import sys

from make_jax.command_line import parse_evaluation
from make_jax.errors import exit_cleanly


def main() -> None:
    """Parses the options and evaluates."""
    options = parse_evaluation(sys.argv[1:], "Measures a run on a catalog's judged queries, beside its baselines.")
    from make_jax.retrieval.program import evaluate_run  # after parsing: --help and a wrong flag answer at once

    evaluate_run(options)


if __name__ == "__main__":
    exit_cleanly(main)
