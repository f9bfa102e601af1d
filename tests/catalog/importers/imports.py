"""Runs an import through the command line's main function."""

from pathlib import Path

from make_jax.catalog.__main__ import main
from make_jax.catalog.check import check
from make_jax.catalog.reader import Catalog


def imported(out: Path, name: str, source: Path, *options: str | Path) -> Catalog:
    """The imported catalog, checked to have no problems."""
    assert main(["import", name, str(source), str(out), *map(str, options)]) == 0
    problems = check(out).problems
    assert problems.messages == []
    return Catalog.load(out)
