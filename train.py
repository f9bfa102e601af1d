"""Trains a model: python train.py --config configs/demo.py [--data.catalog PATH] [--optim.learning-rate 3e-4] ..."""

import sys

from make_jax.errors import end_on_sigterm, exit_cleanly


def main() -> None:
    """Parses the settings and trains."""
    end_on_sigterm()  # before what takes seconds to import
    from make_jax.command_line import parse

    config = parse(sys.argv[1:], "Trains a model on a catalog's clicks.")
    import jax  # after parsing: --help and a wrong flag answer at once

    from make_jax.training.loop import train

    folder = train(config)
    if jax.process_index() == 0:
        print(f"done: {folder} (curves.png, metrics.jsonl, checkpoints/); now: python eval.py {folder}")


if __name__ == "__main__":
    exit_cleanly(main)
