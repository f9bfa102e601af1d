"""`python -m make_jax COMMAND ...`, the same as `make-jax COMMAND ...`."""

from make_jax.cli.main import run

if __name__ == "__main__":  # data workers import this module again
    run()
