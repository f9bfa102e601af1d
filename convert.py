"""Imports encoders and exports runs: python convert.py import SOURCE OUT, python convert.py export RUN OUT"""

from make_jax.cli.main import run

if __name__ == "__main__":
    run("convert")
