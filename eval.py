"""Evaluates a model, or compares two reports: python eval.py MODEL ..., python eval.py compare REPORT-A REPORT-B"""

from make_jax.cli.evaluate import main
from make_jax.errors import exit_cleanly

if __name__ == "__main__":
    exit_cleanly(main)
