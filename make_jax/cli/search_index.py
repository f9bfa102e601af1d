"""`search index`, `update`, `switch` and `check`: build and change an index. Help and wrong options import no jax."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from make_jax.cli.parsing import parse_options
from make_jax.errors import InputError
from make_jax.object_stores import is_url

MAX_LEXICAL_WEIGHT = 100.0


@dataclass(frozen=True)
class IndexOptions:
    """Options of `search index`."""

    model: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN")]  # run, or folder of another model
    # folder or .zip in the catalog format, or URL; "": the run's catalog, or else the packaged one
    catalog: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="CATALOG")]
    out: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="INDEX")]  # new folder, or an index
    split: Literal["train", "val", "test"] | None = None  # the products to index; None: all
    lexical_weight: float | None = None  # of BM25 over titles; None: the best on validation queries, 0 without any
    engine: Literal["flat", "edge", "cluster"] | None = None  # None: exact search (flat) where it is fast enough
    switch: bool = True  # make the new version the current one; no-switch leaves that to `search switch`
    keep: int = 2  # versions that stay; the others are removed after a switch
    checkpoint: Literal["best", "last"] = "best"  # of a run; best: highest validation metric; last: newest
    # HOST:PORT of the head node of a Ray cluster whose devices embed, or auto; "": this process
    ray: Annotated[str, tyro.conf.arg(metavar="ADDRESS")] = ""


@dataclass(frozen=True)
class UpdateOptions:
    """Options of `search update`."""

    index: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="INDEX")]  # folder of an index
    # new and changed products, and others that the index has: folder or .zip in the catalog format, or URL; "": none
    catalog: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="CATALOG")] = ""
    delete: tuple[str, ...] = ()  # ids of products to delete
    delete_missing: bool = False  # delete the products that CATALOG lacks
    model: str = ""  # where the index's model is now; "": where it was when the index was built
    # HOST:PORT of the head node of a Ray cluster whose devices embed, or auto; "": this process
    ray: Annotated[str, tyro.conf.arg(metavar="ADDRESS")] = ""


@dataclass(frozen=True)
class SwitchOptions:
    """Options of `search switch`."""

    index: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="INDEX")]  # folder of an index
    version: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="VERSION")]  # v1, v2, ...: `search check`


@dataclass(frozen=True)
class CheckOptions:
    """Options of `search check`."""

    index: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="INDEX")]  # folder of an index


def index(argv: Sequence[str], program: str) -> None:
    """Builds a version of an index. InputError as `build_index`."""
    text = "Embeds the products of a catalog and builds an index, or a new version of one."
    options = parse_options(IndexOptions, argv, program=program, description=text)
    out = _local(options.out)
    weight = options.lexical_weight
    if weight is not None and not 0 <= weight <= MAX_LEXICAL_WEIGHT:
        raise InputError(f"--lexical-weight is {weight}, expected 0 to {MAX_LEXICAL_WEIGHT:g}")
    if options.keep < 1:
        raise InputError(f"--keep is {options.keep}, expected at least 1 version")

    from make_jax.catalog.reader import Catalog
    from make_jax.console import LiteralConsole, StageBars
    from make_jax.runs.run_store import pull_run
    from make_jax.serving.index.model import open_index_model
    from make_jax.serving.index.writer import IndexSettings, build_index

    console = LiteralConsole()
    line = partial(console.print, soft_wrap=True)  # paths and messages can be pasted
    catalog = Catalog.load(options.catalog) if options.catalog else None
    path = pull_run(options.model) if is_url(options.model) else options.model
    model = open_index_model(path, options.checkpoint)
    catalog = catalog or Catalog.load(model.catalog)
    settings = IndexSettings(options.split, weight, options.engine, options.switch, options.keep)
    with StageBars(console) as bars, _ray(options.ray) as ray:
        built = build_index(out, model, catalog, settings, ray=ray, progress=bars.show, log=line)
    found = "" if built.new else " had this model and catalog already, it"
    if options.switch:
        state = f"is the current version; now: search.py serve {out}"
    else:
        state = f"is complete: search.py switch {out} {built.version}"
    line(f"{out}: {built.version}{found} {state}")
    if built.removed:
        line(f"removed: {', '.join(built.removed)} (--keep {options.keep})")


def update(argv: Sequence[str], program: str) -> None:
    """Adds, replaces and deletes products of the current version. InputError as `update_index`."""
    text = "Adds, replaces and deletes products of an index, all at once. Products that it has already are skipped."
    options = parse_options(UpdateOptions, argv, program=program, description=text)
    path = _local(options.index)
    if not options.catalog and not options.delete:
        raise InputError("nothing to do: name a CATALOG with new and changed products, or ids with --delete")

    if options.delete_missing and not options.catalog:
        raise InputError("--delete-missing without a CATALOG would delete all products; name the catalog to keep")

    from make_jax.catalog.reader import Catalog
    from make_jax.console import LiteralConsole, StageBars
    from make_jax.runs.run_store import pull_run
    from make_jax.serving.index.model import find_model
    from make_jax.serving.index.update import update_index
    from make_jax.serving.index.versions import current_version

    console = LiteralConsole()
    line = partial(console.print, soft_wrap=True)
    current = current_version(path)
    catalog = Catalog.load(options.catalog) if options.catalog else None
    model = pull_run(options.model) if is_url(options.model) else options.model
    with StageBars(console) as bars, _ray(options.ray) as ray:
        done = update_index(
            path,
            partial(find_model, path=model),
            catalog,
            options.delete,
            delete_missing=options.delete_missing,
            ray=ray,
            progress=bars.show,
            log=line,
        )
    if done is None:
        line(f"{path}: {current} has all of it already, nothing was changed")
        return
    counts = f"{done.added:,} added, {done.replaced:,} replaced, {done.deleted:,} deleted, {done.unchanged:,} unchanged"
    line(f"{path}: {current}, update {done.number}: {counts}")


def switch(argv: Sequence[str], program: str) -> None:
    """Makes another version the current one, atomically. InputError for an unknown or damaged one."""
    text = "Makes another version of an index the current one. Servers open it without a restart."
    options = parse_options(SwitchOptions, argv, program=program, description=text)
    path = _local(options.index)

    from make_jax.serving.index.versions import switch_version

    previous = switch_version(path, options.version)
    print(f"{path}: {options.version} is the current version; before it was {previous or 'none'}")


def check(argv: Sequence[str], program: str) -> int:
    """Verifies all checksums and lists the versions; 2 if a file is damaged, which is named."""
    text = "Lists the versions of an index and verifies the checksums of all files."
    options = parse_options(CheckOptions, argv, program=program, description=text)

    from make_jax.console import LiteralConsole, StageBars
    from make_jax.serving.index.check import check_index

    console = LiteralConsole()
    with StageBars(console) as bars:
        checked = check_index(_local(options.index), bars.show)
    for text in checked.lines:
        console.print(text, soft_wrap=True)
    for problem in checked.problems:
        console.print(f"error: {problem}", soft_wrap=True)
    count = len(checked.problems)
    console.print(f"{options.index}: {count or 'no'} problem{'' if count == 1 else 's'}", soft_wrap=True)
    return 2 if count else 0


def _local(path: str) -> Path:
    if is_url(path):
        raise InputError(f"{path}: a URL, expected a local folder, because engines map its files into memory")
    return Path(path)


@contextlib.contextmanager
def _ray(address: str) -> Iterator[Any]:
    """The module of a connected Ray cluster; None without an address."""
    if not address:
        yield None
        return
    from make_jax.ray_cluster import connected

    with connected(address) as ray:
        yield ray
