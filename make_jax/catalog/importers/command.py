"""The command `python -m make_jax.catalog import FORMAT SOURCE OUT`."""

import argparse
import json
import shlex
import sqlite3
from collections.abc import Callable
from pathlib import Path

from make_jax import __version__
from make_jax.catalog.check import summary
from make_jax.catalog.importers import (
    esci,
    fashion,
    google_merchant,
    huggingface,
    img2dataset,
    marqo_eval,
    marqo_gs,
    muge,
    pictures,
    shop_fields,
    shopify,
    table,
    tfds_dataset,
    wands,
    webdataset,
    woocommerce,
)
from make_jax.catalog.importers.benchmark_info import BenchmarkInfo
from make_jax.catalog.importers.import_state import (
    FORMAT,
    ImportState,
    NoProducts,
    SourceChanged,
    discard,
    state_folder,
    was_completed,
)
from make_jax.catalog.jsonl import PRODUCTS
from make_jax.catalog.path_options import add_path
from make_jax.catalog.reader import Catalog
from make_jax.errors import InputError
from make_jax.output_urls import output_folder
from make_jax.signals import set_handler

READERS: dict[str, Callable[[ImportState, argparse.Namespace], BenchmarkInfo]] = {
    "fashion": lambda state, options: fashion.read(state, options.source, options.sparse, options.clicks),
    "marqo-gs": lambda state, options: marqo_gs.read(state, options.source, options.images),
    "google-shopping": lambda state, options: marqo_eval.read(
        state, options.source, options.name, options.ground_truth
    ),
    "amazon-products": lambda state, options: marqo_eval.read(
        state, options.source, options.name, options.ground_truth
    ),
    "esci": lambda state, options: esci.read(state, options.source, options.locale, options.version, options.images),
    "wands": lambda state, options: wands.read(state, options.source),
    "muge": lambda state, options: muge.read(state, options.source),
    "table": table.read,
    "shopify": shopify.read,
    "woocommerce": woocommerce.read,
    "google-merchant": google_merchant.read,
    "pictures": pictures.read,
    "huggingface": huggingface.read,
    "tfds": tfds_dataset.read,
    "webdataset": webdataset.read,
    "img2dataset": img2dataset.read,
}
# Formats of people's own data: what adds their options, and what they read.
OWN_DATA: dict[str, tuple[Callable[[argparse.ArgumentParser], None], str]] = {
    "table": (table.add_options, "a CSV, TSV, JSONL, Parquet or Excel table"),
    "shopify": (shop_fields.add_shop_options, "Shopify's product export (CSV)"),
    "woocommerce": (shop_fields.add_shop_options, "WooCommerce's product export (CSV)"),
    "google-merchant": (shop_fields.add_options, "a Google Merchant feed (XML or TSV)"),
    "pictures": (pictures.add_options, "a folder of pictures whose names are titles"),
    "huggingface": (table.add_column_options, "a Hugging Face dataset on disk (save_to_disk, or Parquet)"),
    "tfds": (table.add_column_options, "a prepared TFDS data set (a folder with dataset_info.json)"),
    "webdataset": (table.add_column_options, "WebDataset shards (.tar)"),
    "img2dataset": (table.add_column_options, "the output folder of img2dataset"),
}
_PATHS = ("source", "out", "images", "ground_truth")
_NOT_IN_KEY = (*_PATHS, "command", "run", "bad_rows")  # a resumed import may allow more bad rows


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds one subcommand for each format, with its options."""
    names = parser.add_subparsers(dest="name", required=True, metavar="FORMAT")
    for name in [*OWN_DATA, *(name for name in READERS if name not in OWN_DATA)]:
        add, what = OWN_DATA.get(name, (None, f"benchmark {name} (docs/benchmarks.md)"))
        command = names.add_parser(name, help=what, description=f"Imports {what}.")
        source = "folder with the published files" if add is None else "file or folder to import"
        add_path(command, "source", metavar="SOURCE", help=source)
        command.add_argument("out", metavar="OUT", help="folder of the new catalog, or its URL; must not exist")
        command.add_argument("--bad-rows", type=int, default=0, help="unreadable rows that may be skipped (0)")
        if add is None:
            _add_benchmark_options(name, command)
        else:
            add(command)


def _add_benchmark_options(name: str, command: argparse.ArgumentParser) -> None:
    if name == "fashion":
        command.add_argument("--sparse", action="store_true", help="drop words from titles, as sellers do")
        command.add_argument("--clicks", action="store_true", help="generate template clicks and judged queries")
    if name == "marqo-gs":
        add_path(command, "--images", help="folder of images, for the layout with .csv files")
    if name in marqo_eval.TITLES:
        add_path(command, "--ground-truth", help="published gt_results.json of title queries")
    if name == "esci":
        command.add_argument("--locale", choices=tuple(esci.LANGUAGES), default="us", help="(%(default)s)")
        command.add_argument("--version", choices=("small", "large"), default="small", help="(%(default)s)")
        help_text = "output folder of img2dataset for SQID's product_image_urls.csv; may be repeated"
        add_path(command, "--images", action="append", default=[], help=help_text)


def run(options: argparse.Namespace) -> str:
    """Runs or resumes an import; returns one line with the numbers of products, queries and clicks.

    Raises InputError for a file that is not as published, with its row, and if `out` already exists.
    """
    url: str = options.out
    with output_folder(url, last=PRODUCTS) as folder:
        options.out = folder
        text = _run(options)
    return text.replace(str(folder), url)  # next steps name the URL, not its mirror


def _run(options: argparse.Namespace) -> str:
    """Runs or resumes an import into the local folder `out`."""
    chosen = {key: value for key, value in sorted(vars(options).items()) if key not in _NOT_IN_KEY}
    paths = [str(path.resolve()) for path in _paths(options)]
    key = json.dumps([FORMAT, __version__, chosen, paths])
    if was_completed(options.out, key):
        return f"{options.out}: imported; {summary(Catalog.load(options.out))}"
    if options.out.exists():
        raise InputError(f"{options.out}: exists already, expected a new folder; remove it or name another")
    _check_source(options)
    set_handler(lambda _: "; the same command resumes the import")
    try:
        try:
            return _import(options, key)
        except SourceChanged:
            discard(options.out)
            return _import(options, key)
    except sqlite3.DatabaseError as error:  # locked by another process, a full disk, or damaged
        folder = state_folder(options.out)
        if not isinstance(error, sqlite3.OperationalError):
            raise InputError(f"{folder}: its database is damaged ({error}); delete the folder to start over") from None
        text = f"{folder}: cannot write the import's database ({error})"
        raise InputError(f"{text}; end the other import or free some space, then run this again to resume") from None


def _check_source(options: argparse.Namespace) -> None:
    if options.name not in OWN_DATA and not options.source.is_dir():
        raise InputError(f"{options.source}: no folder, expected the published files (SOURCE)")
    if not options.source.exists():
        raise InputError(f"{options.source}: not found, expected a file or folder (SOURCE)")
    images = getattr(options, "images", None)
    if options.name in OWN_DATA and images and not images.is_dir():
        raise InputError(f"{images}: no folder, expected one of images (option --images)")


def _import(options: argparse.Namespace, key: str) -> str:
    state = ImportState(options.out, options.source, key, options.bad_rows)
    try:
        info = READERS[options.name](state, options)
        counts = state.finish(info, _command(options))
    except NoProducts:
        state.discard()
        raise
    except InputError as error:
        raise InputError(f"{error}{state.discard_if_empty()}") from None
    finally:
        state.close()
    steps = "".join(f"\n{line.format(out=shlex.quote(str(options.out)))}" for line in info.next_steps)
    return f"{options.out}: {counts}{steps}"


def _paths(options: argparse.Namespace) -> list[Path]:
    values = [getattr(options, key, None) for key in _PATHS]
    return [path for value in values for path in (value if isinstance(value, list) else [value]) if path]


def _command(options: argparse.Namespace) -> str:
    """The command line for PROVENANCE.md, without the paths of this machine."""
    words = ["python -m make_jax.catalog import", options.name]
    for key, value in vars(options).items():
        if key in ("name", "source", "out", "command", "run") or not value:
            continue
        words.append(f"--{key.replace('_', '-')}")
        if isinstance(value, list) and all(isinstance(each, str) for each in value):
            words += map(shlex.quote, value)
        elif isinstance(value, str | int) and not isinstance(value, bool):
            words.append(shlex.quote(str(value)))
    return " ".join(words)
