"""Trains a model: python train.py --config configs/demo.py [--data.catalog PATH] [--optim.learning-rate 3e-4] ..."""

from make_jax.cli.train import main
from make_jax.errors import exit_cleanly

if __name__ == "__main__":
    exit_cleanly(main)
