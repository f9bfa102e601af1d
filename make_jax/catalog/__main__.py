"""Checks, describes and builds catalogs: `python -m make_jax.catalog check|describe|build [PATH]`."""

import argparse
from pathlib import Path

from make_jax.errors import exit_cleanly


def main(arguments: list[str] | None = None) -> int:
    """Runs one command; 0, or 2 when `check` finds problems. InputError for a bad catalog."""
    asked = _parser().parse_args(arguments)
    if asked.command == "check":
        return _check(asked.path)
    if asked.command == "describe":
        return _describe(asked.path, asked.out)
    return _build(asked.path, asked.cache)


def _check(path: str) -> int:
    from make_jax.catalog.check import check, counts

    catalog, problems = check(path)
    for text in problems.texts:
        print(text)
    print(counts(catalog))
    print(f"{catalog.path}: {problems.count or 'no'} problem{'' if problems.count == 1 else 's'}")
    return 2 if problems.count else 0


def _describe(path: str, out: Path) -> int:
    from make_jax.catalog.check import check
    from make_jax.catalog.describe import contact_sheet, describe

    catalog, problems = check(path)
    if not catalog.products:
        problems.raise_if_any()
    print(describe(catalog, problems))
    shown = contact_sheet(catalog, out)
    print(f"\n{out}: {shown} pictures" if shown else "\nno picture to show: no contact sheet")
    return 0


def _build(path: str, cache: str) -> int:
    from make_jax.catalog.build import build

    built = build(path, cache)
    parts = ", ".join(f"{split} {count:,}" for split, count in built.manifest["products"].items())
    print(f"{built.folder}: {parts}; {built.manifest['clicks']:,} clicks")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m make_jax.catalog", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in (
        ("check", "read everything, decode every picture, list every problem with file and line"),
        ("describe", "print counts, lengths and coverage, and write a contact sheet"),
        ("build", "make the shards that training reads; train.py does so by itself"),
    ):
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("path", nargs="?", default="", help="folder or .zip; the packaged catalog when left out")
        if name == "describe":
            command.add_argument("--out", type=Path, default=Path("contact-sheet.png"), help="the PNG (%(default)s)")
        if name == "build":
            command.add_argument("--cache", default="", help="folder for built catalogs (~/.cache/make_jax)")
    return parser


if __name__ == "__main__":
    exit_cleanly(main)
