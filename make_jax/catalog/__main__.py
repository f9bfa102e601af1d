"""Checks, describes, builds and imports catalogs: `python -m make_jax.catalog check|describe|build|keywords|import`."""

import argparse
from pathlib import Path

from make_jax.catalog.importers.command import add_options
from make_jax.errors import exit_cleanly


def main(arguments: list[str] | None = None) -> int:
    """Runs one command; 0, or 2 when `check` finds problems. InputError for a bad catalog."""
    asked = _parser().parse_args(arguments)
    if asked.command == "check":
        return _check(asked.path)
    if asked.command == "describe":
        return _describe(asked.path, asked.out)
    if asked.command == "keywords":
        return _keywords(asked)
    if asked.command == "import":
        return _import(asked)
    return _build(asked.path, asked.cache)


def _check(path: str) -> int:
    from make_jax.catalog.check import check, counts

    catalog, problems = check(path)
    for text in problems.messages:
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


def _keywords(asked: argparse.Namespace) -> int:
    from make_jax.catalog.mining import mine_keywords
    from make_jax.catalog.reader import Catalog
    from make_jax.catalog.statistics import counts, table
    from make_jax.files import write_atomically

    catalog = Catalog.load(asked.path)
    vocabulary = mine_keywords(
        catalog, attributes=asked.attributes, min_products=asked.least, max_keywords=asked.largest
    )
    write_atomically(asked.out, vocabulary.to_json())
    print(f"{asked.out}: {counts(vocabulary)}")
    if asked.show > 0:
        print(f"\n{table(catalog, vocabulary, asked.show)}")
    return 0


def _import(asked: argparse.Namespace) -> int:
    from make_jax.catalog.importers.command import run

    print(run(asked))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m make_jax.catalog", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in (
        ("check", "read everything, decode every picture, list every problem with file and line"),
        ("describe", "print counts, lengths and coverage, and write a contact sheet"),
        ("build", "make the shards that training reads; train.py does so by itself"),
        ("keywords", "mine the keywords of training products and clicks, and show them in validation queries"),
    ):
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("path", nargs="?", default="", help="folder or .zip; the packaged catalog when left out")
        if name == "describe":
            command.add_argument("--out", type=Path, default=Path("contact-sheet.png"), help="the PNG (%(default)s)")
        if name == "build":
            command.add_argument("--cache", default="", help="folder for built catalogs (~/.cache/make_jax)")
        if name == "keywords":
            _keyword_options(command)
    add_options(commands.add_parser("import", help="make a catalog of a public benchmark's files as published"))
    return parser


def _keyword_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--attributes", action=argparse.BooleanOptionalAction, default=True, help="read attributes")
    command.add_argument("--least", type=int, default=5, help="products that must have a keyword (%(default)s)")
    command.add_argument("--largest", type=int, default=4096, help="most keywords (%(default)s)")
    command.add_argument("--out", type=Path, default=Path("keywords.json"), help="the JSON (%(default)s)")
    command.add_argument("--show", type=int, default=20, help="validation queries to show (%(default)s)")


if __name__ == "__main__":
    exit_cleanly(main)
