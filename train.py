"""Trains a model: python train.py --config configs/demo.py [--data.catalog PATH] [--optim.learning-rate 3e-4] ..."""

from make_jax.cli.main import run

if __name__ == "__main__":
    run("train")
