"""`make-jax COMMAND ...` and `python -m make_jax COMMAND ...`: one entry point of all programs."""

import importlib
import sys
from collections.abc import Callable, Sequence

import make_jax
from make_jax.errors import InputError, exit_cleanly
from make_jax.signals import exit_on_signals, ignore_signals

COMMANDS = {
    "train": ("train a model on a catalog's clicks", "make_jax.cli.train"),
    "eval": ("evaluate a model on judged queries, or compare two reports", "make_jax.cli.evaluate"),
    "search": ("index a catalog and search it", "make_jax.cli.search"),
    "convert": ("import pretrained encoders; export a run to PyTorch, ONNX or StableHLO", "make_jax.cli.convert"),
    "catalog": ("check, describe, build and import catalogs; mine keywords", "make_jax.catalog.__main__"),
}


def run(script: str = "") -> None:
    """Runs a command and exits the process with its code.

    Without `script` the first word of `sys.argv` is the command; else `script` is, as in train.py at the root.
    """
    if (script or " ".join(sys.argv[1:2])) == "train":
        exit_on_signals(0, "; there was nothing to save")  # schedulers count 0 as a clean stop
    else:
        exit_on_signals()
    try:
        exit_cleanly(lambda: _program(script)(None) if script else main(sys.argv[1:]))
    finally:
        ignore_signals()


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
    return _program(name)(arguments)


def _program(command: str) -> Callable[[Sequence[str] | None], int | None]:
    """Imports and returns the main function of a command; the others stay unimported, since some take seconds."""
    program: Callable[[Sequence[str] | None], int | None] = importlib.import_module(COMMANDS[command][1]).main
    return program
