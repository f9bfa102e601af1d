"""The services of a server that compares two models: two indexes, or two versions of one.

services = open_services("runs/a/index", "runs/b/index", OpenOptions(), log=print)
services = open_services("runs/a/index", "v2", OpenOptions(), log=print)      # built with `index --no-switch`
"""

import contextlib
import re
from pathlib import Path

from make_jax.errors import InputError
from make_jax.serving.index.reader import open_index
from make_jax.serving.index.versions import check_version, current_version
from make_jax.serving.opened import Log, OpenOptions
from make_jax.serving.service import IndexService

_VERSION = re.compile(r"v\d+")


def open_services(index: str, other: str, options: OpenOptions, other_model: str, log: Log) -> dict[str, IndexService]:
    """The services by name: that of `index`, and that of `other`, a folder or a version of `index`; "": none.

    `options` are those of `index`; `other` is opened with their engine, and its model from `other_model` if that was
    moved. Raises InputError as `IndexService.open`, and if both are the same.
    """
    path, version = _parse(index, other)
    with contextlib.ExitStack() as opened:
        first = opened.enter_context(IndexService.open(index, options, log))
        services = {name_of(index): first}
        if other:
            _check_collections(index, path, options)
            settings = OpenOptions(options.engine, version, other_model, warm_up=options.warm_up)
            name = _other_name(index, path, version)
            services[name] = opened.enter_context(IndexService.open(path, settings, log, like=first))
            both = " with ".join(f"{name} ({s.info.model}, {s.info.version})" for name, s in services.items())
            log(f"comparing {both}")
        opened.pop_all()
    return services


def name_of(index: str | Path) -> str:
    """The name of an index: that of its folder."""
    return Path(index).resolve().name or "index"


def _parse(index: str, other: str) -> tuple[Path, str]:
    """Folder and version of `--compare`; InputError if it is what `index` opens."""
    if _VERSION.fullmatch(other):
        current = current_version(Path(index))
        if other == current:
            raise InputError(f"--compare {other}: the current version of {index}, expected another one")
        check_version(Path(index), other)
        return Path(index), other
    if other and Path(other).resolve() == Path(index).resolve():
        raise InputError(f"--compare {other}: the same index, expected another one, or a version such as v2")
    return Path(other), ""


def _check_collections(index: str, path: Path, options: OpenOptions) -> None:
    """Raises InputError if two indexes would use the same collections of a Qdrant server, which the names decide."""
    if path.resolve() == Path(index).resolve() or name_of(path) != name_of(index):
        return
    if (options.engine or open_index(path).manifest.engine.name) == "cluster":
        raise InputError(f"--compare {path}: engine cluster needs another folder name than {index}; rename one")


def _other_name(index: str, path: Path, version: str) -> str:
    if version:
        return f"{name_of(index)}-{version}"
    return name_of(path) if name_of(path) != name_of(index) else f"{name_of(path)}-2"
