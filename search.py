"""Indexes a catalog and searches it: python search.py index RUN CATALOG INDEX"""

from make_jax.cli.main import run

if __name__ == "__main__":
    run("search")
