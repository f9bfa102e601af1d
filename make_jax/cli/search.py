"""`make-jax search COMMAND ...`: indexes a catalog, searches and serves the index."""

import importlib
import sys
from collections.abc import Callable, Sequence

from make_jax.errors import InputError

# Command -> (help, module, function). The function takes the words after the command and the program's name.
COMMANDS = {
    "index": ("embed the products of a catalog and build an index", "search_index", "index"),
    "update": ("add, replace and delete products of an index", "search_index", "update"),
    "query": ("search an index: a table or JSON", "search_query", "query"),
    "serve": ("answer searches over HTTP and show the page", "search_serve", "serve"),
    "switch": ("make another version of an index the current one", "search_index", "switch"),
    "check": ("verify the checksums of an index", "search_index", "check"),
}


def main(argv: Sequence[str] | None = None) -> int | None:
    """Runs a command of `argv`, or `sys.argv`; returns its exit code, None is 0. InputError for an unknown one."""
    program = "search.py" if argv is None else "make-jax search"
    name, *words = (sys.argv[1:] if argv is None else list(argv)) or ["--help"]
    if name in ("--help", "-h"):
        print(f"usage: {program} COMMAND ...\n\nIndexes a catalog, and searches and serves the index.\n")
        print("\n".join(f"  {command:<10}{text}" for command, (text, _, _) in COMMANDS.items()))
        print(f"\n{program} COMMAND --help lists the options of a command; docs/serving.md describes them.")
        return 0
    if name not in COMMANDS:
        raise InputError(f"unknown command {name!r}, expected one of {', '.join(COMMANDS)}")
    _, module, function = COMMANDS[name]
    command: Callable[[Sequence[str], str], int | None]
    command = getattr(importlib.import_module(f"make_jax.cli.{module}"), function)
    return command(words, f"{program} {name}")
