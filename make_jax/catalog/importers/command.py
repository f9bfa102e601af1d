"""`python -m make_jax.catalog import NAME --source PATH OUT`."""

import argparse
import json
import sqlite3
from collections.abc import Callable
from pathlib import Path

from make_jax import __version__
from make_jax.catalog.importers import esci, fashion, marqo_eval, marqo_gs, muge, wands
from make_jax.catalog.importers.import_state import FORMAT, About, Changed, Work, discard, finished, work_folder
from make_jax.errors import InputError

READERS: dict[str, Callable[[Work, argparse.Namespace], About]] = {
    "fashion": lambda work, asked: fashion.read(work, asked.source, asked.sparse, asked.clicks),
    "marqo-gs": lambda work, asked: marqo_gs.read(work, asked.source, asked.images),
    "google-shopping": lambda work, asked: marqo_eval.read(work, asked.source, asked.name, asked.ground_truth),
    "amazon-products": lambda work, asked: marqo_eval.read(work, asked.source, asked.name, asked.ground_truth),
    "esci": lambda work, asked: esci.read(work, asked.source, asked.locale, asked.version, asked.images),
    "wands": lambda work, asked: wands.read(work, asked.source),
    "muge": lambda work, asked: muge.read(work, asked.source),
}
_PATHS = ("source", "out", "images", "ground_truth")
_NOT_IMPORTED = (*_PATHS, "command", "bad_rows")  # options that are no part of what is imported; more may be bad


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the benchmarks, and the options of each."""
    names = parser.add_subparsers(dest="name", required=True)
    for name in READERS:
        text = f"import {name}; docs/benchmarks.md says where its files come from"
        command = names.add_parser(name, help=text, description=text)
        command.add_argument("--source", type=Path, required=True, help="the folder with the files as published")
        command.add_argument("out", type=Path, help="the folder of the catalog, which must not exist yet")
        command.add_argument("--bad-rows", type=int, default=0, help="rows that may be wrong; they are left out (0)")
        if name == "fashion":
            command.add_argument("--sparse", action="store_true", help="drop words from titles, as sellers do")
            command.add_argument("--clicks", action="store_true", help="make template clicks and judged queries")
        if name == "marqo-gs":
            command.add_argument("--images", type=Path, help="the folder of pictures, for the layout with .csv files")
        if name in marqo_eval.TITLES:
            command.add_argument("--ground-truth", type=Path, help="the published gt_results.json of title queries")
        if name == "esci":
            command.add_argument("--locale", choices=tuple(esci.LANGUAGES), default="us", help="(%(default)s)")
            command.add_argument("--version", choices=("small", "large"), default="small", help="(%(default)s)")
            help_text = "an output folder of img2dataset for SQID's product_image_urls.csv; may be given more than once"
            command.add_argument("--images", type=Path, action="append", default=[], help=help_text)


def run(asked: argparse.Namespace) -> str:
    """Imports what was asked for, going on where an interrupted import stopped; one line on what is there now.

    Raises InputError for a file that is not as published, with its row, and for an `out` that exists already.
    """
    chosen = {key: value for key, value in sorted(vars(asked).items()) if key not in _NOT_IMPORTED}
    given = [str(path.resolve()) for path in _paths(asked)]
    key = json.dumps([FORMAT, __version__, chosen, given])
    if finished(asked.out, key):
        return f"{asked.out}: imported"
    if asked.out.exists():
        raise InputError(f"{asked.out}: exists already, expected a new folder; remove it or name another")
    if not asked.source.is_dir():
        raise InputError(f"{asked.source}: no folder, expected the files as published (option --source)")
    try:
        try:
            return _imported(asked, key)
        except Changed:
            discard(asked.out)
            return _imported(asked, key)
    except sqlite3.DatabaseError as error:  # locked by another process, a full disk, or damaged
        folder = work_folder(asked.out)
        if not isinstance(error, sqlite3.OperationalError):
            raise InputError(f"{folder}: its database is damaged ({error}); delete the folder to begin anew") from None
        text = f"{folder}: cannot write the import's database ({error})"
        raise InputError(f"{text}; end the other import or free some space, then run this again to go on") from None


def _imported(asked: argparse.Namespace, key: str) -> str:
    work = Work(asked.out, asked.source, key, asked.bad_rows)
    try:
        about = READERS[asked.name](work, asked)
        counts = work.finish(about, _command(asked))
    finally:
        work.close()
    return f"{asked.out}: {counts}"


def _paths(asked: argparse.Namespace) -> list[Path]:
    found = [getattr(asked, key, None) for key in _PATHS]
    return [path for value in found for path in (value if isinstance(value, list) else [value]) if path]


def _command(asked: argparse.Namespace) -> str:
    """The command as PROVENANCE.md states it: without paths, which say nothing elsewhere."""
    words = ["python -m make_jax.catalog import", asked.name]
    for key in ("sparse", "clicks", "locale", "version", "bad_rows", "ground_truth", "images"):
        value = getattr(asked, key, None)
        if value:
            plain = isinstance(value, str | int) and not isinstance(value, bool)
            words.append(f"--{key.replace('_', '-')}" + (f" {value}" if plain else ""))
    return " ".join(words)
