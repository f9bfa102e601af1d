"""Evaluates a model, or compares two reports.

python eval.py MODEL [--data.catalog PATH] [--split test] [--pool catalog] [--out FOLDER]
python eval.py compare REPORT-A REPORT-B [--out FOLDER]
"""

import sys

from make_jax.command_line import parse_comparison, parse_evaluation
from make_jax.errors import exit_cleanly


def main() -> None:
    """Parses the options and evaluates, or compares."""
    if sys.argv[1:2] == ["compare"]:
        comparison = parse_comparison(sys.argv[2:], "Tests whether one report is better than another, query by query.")
        from make_jax.evaluation.program import compare_reports  # after parsing: --help and a wrong flag answer at once

        compare_reports(comparison)
        return
    options = parse_evaluation(sys.argv[1:], "Measures a model on a catalog's judged queries, beside its baselines.")
    from make_jax.evaluation.program import evaluate_model

    evaluate_model(options)


if __name__ == "__main__":
    exit_cleanly(main)
