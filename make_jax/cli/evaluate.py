"""`make-jax eval`: evaluates a model, or compares two reports."""

import sys
from collections.abc import Sequence

from make_jax.cli.options import parse_comparison, parse_evaluation


def main(argv: Sequence[str] | None = None) -> None:
    """Parses `argv`, or `sys.argv`, and evaluates or compares. InputError for wrong options, models and catalogs."""
    program = "eval.py" if argv is None else "make-jax eval"
    words = sys.argv[1:] if argv is None else list(argv)
    if words[:1] == ["compare"]:
        comparison = parse_comparison(words[1:], program)
        from make_jax.cli.evaluation import compare_reports  # after parsing: help and a wrong option answer at once

        compare_reports(comparison)
        return
    options = parse_evaluation(words, program)
    from make_jax.cli.evaluation import evaluate_model

    evaluate_model(options)
