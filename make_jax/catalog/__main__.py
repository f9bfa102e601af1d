"""Checks, describes, builds and imports catalogs, and mines keywords.

python -m make_jax.catalog check|describe|build|keywords|import
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from make_jax.catalog.path_options import add_path
from make_jax.errors import InputError, exit_cleanly
from make_jax.signals import exit_on_signals, ignore_signals

if TYPE_CHECKING:
    from make_jax.catalog.reader import Catalog
    from make_jax.catalog.reporting import Problems


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command. `argv` excludes the program's name; None reads sys.argv.

    Returns 0, or 2 if `check` or `describe` finds problems, not warnings. Raises InputError for an invalid catalog.
    """
    options = _parser().parse_args(argv)
    run: Callable[[argparse.Namespace], int] = options.run
    return run(options)


def _check(options: argparse.Namespace) -> int:
    from make_jax.catalog.check import check, summary
    from make_jax.catalog.plausibility import limits

    catalog, problems, warnings = check(options.path)
    _add_unknown_texts(catalog, options.tokenizer, warnings)
    for message in problems.messages if options.all else problems.grouped():
        print(message)
    for message in warnings.messages if options.all else warnings.grouped():
        print(f"warning: {message}")
    print(summary(catalog))
    for line in [] if problems.count else limits(catalog):
        print(line)
    counts = [_count(problems, "problem"), *([_count(warnings, "warning")] if warnings.count else [])]
    print(f"{catalog.path}: {', '.join(counts)}")
    return 2 if problems.count else 0


def _count(found: "Problems", word: str) -> str:
    return f"{found.count or 'no'} {word}{'' if found.count == 1 else 's'}"


def _add_unknown_texts(catalog: "Catalog", folder: str, warnings: "Problems") -> None:
    """Adds what the tokenizer in `folder`, or else the one that train.py would train, does not know of the texts."""
    from make_jax.config import InputsConfig
    from make_jax.inputs.tokenizer import load_tokenizer, split_long_words, train_wordpiece
    from make_jax.inputs.unknown_texts import unknown_by_file

    inputs = InputsConfig()
    if folder:
        tokenizer = split_long_words(load_tokenizer(folder))
    else:
        try:
            tokenizer = train_wordpiece(catalog.training_texts(), inputs.vocab_size)
        except InputError:  # no text to train on
            return
    for file, message in unknown_by_file(catalog, tokenizer, inputs).items():
        warnings.add(file, message)


def _describe(options: argparse.Namespace) -> int:
    from make_jax.catalog.check import check
    from make_jax.catalog.describe import contact_sheet, describe

    catalog, problems, warnings = check(options.path)
    if not catalog.products:
        problems.raise_if_any()
    print(describe(catalog, problems, warnings))
    if options.out is not None:
        images = contact_sheet(catalog, options.out)
        print(f"\n{options.out}: {images} images" if images else "\nno readable image: no contact sheet")
    return 2 if problems.count else 0


def _build(options: argparse.Namespace) -> int:
    from make_jax.catalog.build import build

    built = build(options.path, options.cache, options.workers, options.ray)
    splits = ", ".join(f"{split} {count:,}" for split, count in built.manifest["products"].items())
    print(f"{built.folder}: {splits}; {built.manifest['clicks']:,} clicks")
    return 0


def _keywords(options: argparse.Namespace) -> int:
    from make_jax.catalog.mining import mine_keywords
    from make_jax.catalog.reader import Catalog
    from make_jax.catalog.statistics import coverage_table, summary
    from make_jax.files import write_atomically

    catalog = Catalog.load(options.path)
    vocabulary = mine_keywords(
        catalog, attributes=options.attributes, min_products=options.least, max_keywords=options.largest
    )
    write_atomically(options.out, vocabulary.to_json())
    print(f"{options.out}: {summary(vocabulary)}")
    if options.show > 0:
        print(f"\n{coverage_table(catalog, vocabulary, options.show)}")
    return 0


def _import(options: argparse.Namespace) -> int:
    from make_jax.catalog.importers.command import run

    print(run(options))
    return 0


def _parser() -> argparse.ArgumentParser:
    from make_jax.catalog.importers.command import add_options  # takes a second, in which signals are handled already

    parser = argparse.ArgumentParser(prog="python -m make_jax.catalog", description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    for name, run, text in (
        ("check", _check, "read all lines, decode all images, and list problems and warnings with file and line"),
        ("describe", _describe, "print counts, lengths and coverage, and with --out draw a contact sheet"),
        ("build", _build, "build the training data; train.py does this automatically"),
        ("keywords", _keywords, "mine keywords from training products and clicks, and tag validation queries"),
    ):
        command = commands.add_parser(name, help=text, description=text)
        command.set_defaults(run=run)
        command.add_argument("path", nargs="?", default="", help="folder or .zip (default: the packaged catalog)")
        if name == "check":
            command.add_argument(
                "--tokenizer",
                default="",
                help="folder; counts texts that it does not know (default: the one to be trained)",
            )
            command.add_argument("--all", action="store_true", help="list problems of one kind without a limit of 3")
        if name == "describe":
            text = "PNG file of a contact sheet: images with titles (default: none is drawn)"
            add_path(command, "--out", metavar="SHEET.png", help=text)
        if name == "build":
            command.add_argument("--cache", default="", help="folder of built catalogs (~/.cache/make_jax)")
            how = command.add_mutually_exclusive_group()
            how.add_argument("--workers", type=int, default=0, help="processes (default: one a core)")
            how.add_argument(
                "--ray", default="", metavar="ADDRESS", help="a Ray cluster: head node's HOST:PORT, or auto"
            )
        if name == "keywords":
            _add_keyword_options(command)
    importing = commands.add_parser("import", help="convert the published files of a public benchmark to a catalog")
    importing.set_defaults(run=_import)
    add_options(importing)
    return parser


def _add_keyword_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--attributes", action=argparse.BooleanOptionalAction, default=True, help="use attributes")
    command.add_argument("--least", type=int, default=5, help="minimum training products of a keyword (%(default)s)")
    command.add_argument("--largest", type=int, default=4096, help="maximum number of keywords (%(default)s)")
    file, text = Path("keywords.json"), "JSON file (%(default)s)"
    add_path(command, "--out", metavar="KEYWORDS.json", default=file, help=text)
    command.add_argument("--show", type=int, default=20, help="validation queries to print (%(default)s)")


if __name__ == "__main__":
    exit_on_signals()
    try:
        exit_cleanly(main)
    finally:
        ignore_signals()
