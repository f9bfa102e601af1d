"""`make-jax COMMAND ...` and `python -m make_jax COMMAND ...`: one entry point of all programs."""

import importlib
import sys
from collections.abc import Sequence

import make_jax
from make_jax.errors import InputError, exit_cleanly

COMMANDS = {
    "train": ("train a model on a catalog's clicks", "make_jax.cli.train"),
    "eval": ("evaluate a model on judged queries, or compare two reports", "make_jax.cli.evaluate"),
    "convert": ("import pretrained encoders; export a run to PyTorch, ONNX or StableHLO", "make_jax.cli.convert"),
    "catalog": ("check, describe, build and import catalogs; mine keywords", "make_jax.catalog.__main__"),
}


def run() -> None:
    """The console script: runs the command of `sys.argv` and exits the process with its code."""
    exit_cleanly(lambda: main(sys.argv[1:]))


def main(argv: Sequence[str]) -> int | None:
    """Runs a command and returns its exit code; None is 0. InputError for an unknown command."""
    name, *arguments = argv or ["--help"]
    if name in ("--help", "-h"):
        print(f"usage: make-jax COMMAND ...\n\n{make_jax.__doc__.splitlines()[0]}\n")
        print("\n".join(f"  {command:<10}{text}" for command, (text, _) in COMMANDS.items()))
        print("\nmake-jax COMMAND --help lists the options of a command; --version prints the version.")
        return 0
    if name == "--version":
        print(f"make_jax {make_jax.__version__}")
        return 0
    if name not in COMMANDS:
        raise InputError(f"unknown command {name!r}, expected one of {', '.join(COMMANDS)}")
    program = importlib.import_module(COMMANDS[name][1])  # the others stay unimported: some take seconds
    code: int | None = program.main(arguments)
    return code
