"""Imports encoders and exports runs: python convert.py import SOURCE OUT, python convert.py export RUN OUT"""

from make_jax.cli.convert import main
from make_jax.errors import exit_cleanly

if __name__ == "__main__":
    exit_cleanly(main)
