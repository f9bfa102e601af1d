"""Evaluates a model, or compares two reports: python eval.py MODEL ..., python eval.py compare REPORT-A REPORT-B"""

from make_jax.cli.main import run

if __name__ == "__main__":
    run("eval")
