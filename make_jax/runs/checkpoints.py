"""Checkpoints of a run, saved asynchronously and verified when loaded.

    RUN/checkpoints/last/000200/state/          Orbax: step, params, opt_state, ema
                               /meta.json       data position, training time, metrics, versions
                               /config.json ... further texts
                               /manifest.json   digests of all files, written last

A folder gets its number once it is complete on disk; until then its name starts with `files.PARTIAL` and it is never
read. Older checkpoints are deleted afterwards, so the newest complete one is readable at any instant.

`ocp.CheckpointManager` (0.12.8) falls short of this: a step must be deleted before it is saved again, so a kill leaves
neither; two files are written after its last hook, outside any manifest; old steps are deleted without syncing the new
one; and a failed save leaves its files.
"""

import concurrent.futures
import contextlib
import errno
import hashlib
import itertools
import json
import logging
import os
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
from flax.traverse_util import unflatten_dict
from jax.experimental import multihost_utils

from make_jax.errors import InputError
from make_jax.files import PARTIAL, sync_folder, write_atomically
from make_jax.runs import manifest, named_leaves, orbax_arrays

Kind = Literal["last", "best"]
KINDS: tuple[Kind, ...] = ("last", "best")

_LOG = logging.getLogger(__name__)
STATE = "state"  # subfolder of a checkpoint
_META = "meta.json"
_DIGEST_TIMEOUT = 1200  # seconds that a process waits for the digests of the others
_SAVES = itertools.count()  # the same in all processes: each saves in the same order


@dataclass(frozen=True)
class CheckpointInfo:
    """A checkpoint with every file verified; its arrays are not loaded."""

    path: Path
    kind: Kind
    step: int  # completed training steps
    meta: dict[str, Any]  # as passed to `save`
    files: dict[str, str]  # as passed to `save`: name -> text


class Checkpoints:
    """Saves and loads the checkpoints in `folder`, usually RUN/checkpoints: the newest of `last`, and one `best`.

    `max_to_keep` is the number of `last` checkpoints kept. A checkpoint known to be damaged is not counted and is
    deleted after the next save. A save ends when `on_saved`, which is called in the background with its step, returns;
    what that raises fails the save. In a run of several processes, all must call `save`, `restore`, `latest_intact` and
    `load_params` in the same order, and share the file system.
    """

    def __init__(self, folder: str | Path, max_to_keep: int = 1, on_saved: Callable[[int], None] = lambda _: None):
        self.folder = Path(folder).absolute()  # Orbax requires absolute paths
        self._on_saved = on_saved
        self._max_to_keep = {"last": max_to_keep, "best": 1}
        self._damaged: set[Path] = set()  # as verified by this process
        self._writer: orbax_arrays.AsyncWriter | None = None
        self._thread = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: concurrent.futures.Future[None] | None = None

    def save(
        self, kind: Kind, step: int, state: Any, meta: Mapping[str, Any], files: Mapping[str, str] | None = None
    ) -> None:
        """Copies `state` to host memory and writes it in the background; its buffers may be donated right after.

        `state` is a tree of jax arrays; `meta` becomes meta.json; `files` maps further names to texts. Waits for the
        previous save. Raises InputError when that one, or the start of this one, failed.
        """
        self.wait()
        texts = {**(files or {}), _META: json.dumps(dict(meta), indent=2, ensure_ascii=False) + "\n"}
        partial = self.folder / kind / f"{PARTIAL}{step:06d}"
        try:
            if self._writer is None:
                self._writer = orbax_arrays.make_writer()
            self._writer.wait_until_finished()  # a `save` that Ctrl-C interrupted
            self._delete_partial()
            leaves = named_leaves.flatten(state)
            if jax.process_index() == 0:
                partial.mkdir(parents=True)
                _check_free_space(partial, _nbytes(leaves))
            orbax_arrays.start_save(self._writer, partial / STATE, leaves)
        except Exception as error:
            self._delete_partial()
            raise _save_error(partial, step, error) from error
        self._pending = self._thread.submit(self._finish, self._writer, partial, step, texts)

    def check_free_space(self, state: Any) -> None:
        """Raises InputError when the disk cannot hold a checkpoint of `state`; the run's folder must exist."""
        try:
            _check_free_space(self.folder.parent, _nbytes(named_leaves.flatten(state)))
        except OSError as error:
            raise InputError(f"{self.folder.parent}: {error.strerror}; set `run` to another disk") from error

    def wait(self) -> None:
        """Waits until the last save is complete. Raises InputError if it failed; earlier checkpoints are intact."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def close(self) -> None:
        """Waits like `wait` and ends the background threads."""
        try:
            self.wait()
        finally:
            self._thread.shutdown()
            if self._writer is not None:
                self._writer.close()
                self._writer = None

    def exists(self) -> bool:
        """Whether there is any checkpoint, intact or not; process 0 decides for all processes."""
        exists = self.newest() is not None
        return bool(multihost_utils.broadcast_one_to_all(exists)) if jax.process_count() > 1 else exists

    def newest(self) -> int | None:
        """Returns the step of the newest complete checkpoint, intact or not; None without any."""
        newest = max((_number(path) for kind in KINDS for path in self._complete(kind)), default=None)
        return None if newest is None else newest[0]

    def latest_intact(self, kind: Kind = "last") -> CheckpointInfo:
        """Returns the newest intact checkpoint: for "last" of both kinds, for "best" a best one if there is any.

        Logs a warning for each damaged file that made it fall back. Raises InputError with the first damaged file
        when no intact checkpoint is left, or with the folder when there is no checkpoint.
        """
        problem = ""
        path = None
        if jax.process_index() == 0:  # one process verifies, so that all load the same
            path, problem = self._select(kind)
        if jax.process_count() > 1:
            path = _broadcast(self.folder, path)
        if path is None:
            raise InputError(problem or f"{self.folder}: no intact checkpoint")
        return _read_info(path)

    def restore(self, template: Any, source: Kind | CheckpointInfo = "last") -> tuple[Any, dict[str, Any]]:
        """Returns (state, meta) with the structure, dtypes and shardings of `template`.

        `template` is a tree of arrays or of jax.ShapeDtypeStruct with shardings, over any number of devices; a leaf
        without a sharding is placed on the first device. Raises InputError that lists the leaves which the checkpoint
        lacks, has in addition, or has with another shape or dtype.
        """
        info = self.latest_intact(source) if isinstance(source, str) else source
        folder = info.path / STATE
        requested = {name: orbax_arrays.abstract(leaf) for name, leaf in named_leaves.flatten(template).items()}
        expected = "expected the state of this config; use the settings of the run, or another run folder"
        leaves = orbax_arrays.read_sharded(folder, orbax_arrays.stored_leaves(folder), requested, expected)
        return named_leaves.unflatten(template, leaves), info.meta

    def load_params(self, source: Kind | CheckpointInfo = "best") -> dict[str, Any]:
        """Returns the parameters as nested dicts of NumPy arrays, on any machine.

        Reads nothing else of the state: the averaged parameters (`ema`) if the run kept them, else `params`.
        """
        info = self.latest_intact(source) if isinstance(source, str) else source
        folder = info.path / STATE
        leaves = orbax_arrays.read_numpy(folder, orbax_arrays.stored_params(folder)[1])
        return dict(unflatten_dict({name[1:]: leaf for name, leaf in leaves.items()}))

    def restore_params(self, template: dict[str, Any], source: CheckpointInfo, exclude: str = "") -> dict[str, Any]:
        """Returns the parameters that `load_params` reads, with the structure, dtypes and shardings of `template`.

        The subtree `exclude` is taken from `template`, whether the checkpoint has it or not. Raises InputError that
        lists the leaves which the checkpoint lacks, has in addition, or has in another shape.
        """
        part, stored = orbax_arrays.stored_params(source.path / STATE)
        stored = {name: leaf for name, leaf in stored.items() if name[1] != exclude}
        included = {name: tree for name, tree in template.items() if name != exclude}
        leaves = named_leaves.flatten(included)
        requested = {(part, *name): orbax_arrays.abstract(leaf) for name, leaf in leaves.items()}
        expected = "expected the parameters of this config; use the source's settings for `model` and `inputs`"
        leaves = orbax_arrays.read_sharded(source.path / STATE, stored, requested, expected)
        return {**template, **named_leaves.unflatten(included, {name[1:]: leaf for name, leaf in leaves.items()})}

    def _finish(self, writer: orbax_arrays.AsyncWriter, partial: Path, step: int, texts: Mapping[str, str]) -> None:
        """Runs in the background: waits for Orbax, adds the texts and the manifest, and renames the folder."""
        try:
            writer.wait_until_finished()
            if jax.process_count() > 1:
                _digest_own_files(partial)
            if jax.process_index() != 0:
                return
            for name, text in texts.items():
                write_atomically(partial / name, text)
            manifest.write(partial)
            older = self._to_delete(_kind(partial))
            target = _free_name(partial.with_name(f"{step:06d}"))
            partial.rename(target)
            sync_folder(target.parent)
        except Exception as error:
            self._delete_partial()
            raise _save_error(partial, step, error) from error
        for path in older:
            # Renamed first: a half-deleted folder must not have a complete one's name.
            with contextlib.suppress(OSError):
                shutil.rmtree(path.rename(path.with_name(f"{PARTIAL}old-{path.name}")))
        self._on_saved(step)

    def _to_delete(self, kind: Kind) -> list[Path]:
        """The checkpoints to delete once one more is complete."""
        complete = self._complete(kind)
        intact = [path for path in complete if path not in self._damaged]
        kept = intact[: self._max_to_keep[kind] - 1]
        return [path for path in complete if path not in kept]

    def _delete_partial(self) -> None:
        """Deletes the remains of an interrupted or failed save."""
        if jax.process_index() == 0:
            for path in self.folder.glob(f"*/{PARTIAL}*"):
                shutil.rmtree(path, ignore_errors=True)

    def _complete(self, kind: Kind) -> list[Path]:
        """The complete checkpoints of a kind, newest first."""
        paths = [path for path in (self.folder / kind).glob("*") if re.fullmatch(r"\d{6,}(\.\d+)?", path.name)]
        return sorted(paths, key=_number, reverse=True)

    def _select(self, kind: Kind) -> tuple[Path | None, str]:
        """The checkpoint to load, or None and the reason."""
        problems: list[str] = []
        deleted: set[Path] = set()
        while True:
            last, best = self._complete("last"), self._complete("best")
            order = [*best, *last] if kind == "best" else sorted([*last, *best], key=_number, reverse=True)
            for path in order:
                try:
                    manifest.verify(path)
                except InputError as error:
                    if not path.exists() and path not in deleted:  # a running training replaced it: list again
                        deleted.add(path)
                        break
                    problems.append(str(error))
                    self._damaged.add(path)
                    continue
                for problem in problems:
                    _LOG.warning("%s; using %s instead", problem, path)
                if kind == "best" and _kind(path) != kind and not problems:
                    _LOG.warning("%s: no %s checkpoint; using %s", self.folder, kind, path)
                return path, ""
            else:
                none = f"{self.folder}: no checkpoint, expected one that train.py wrote"
                return None, f"{problems[0]}; no intact checkpoint is left" if problems else none


def _digest_own_files(partial: Path) -> None:
    """Digests what this process wrote; returns once all processes have, or have failed to."""
    process = jax.process_index()
    try:
        manifest.write_part(partial, orbax_arrays.written_by_process(partial / STATE, process), process)
    finally:
        orbax_arrays.wait_for_processes(f"make_jax digests {next(_SAVES)}", _DIGEST_TIMEOUT)


def read(folder: str | Path) -> CheckpointInfo:
    """Returns the checkpoint in the folder RUN/checkpoints/KIND/STEP. Raises InputError with its first damaged file."""
    path = Path(folder).absolute()
    manifest.verify(path)
    return _read_info(path)


def digest(info: CheckpointInfo) -> str:
    """SHA-256 of a checkpoint's manifest, and so of its content."""
    return hashlib.sha256((info.path / manifest.NAME).read_bytes()).hexdigest()


def _read_info(path: Path) -> CheckpointInfo:
    """Reads the texts of a verified checkpoint."""
    texts = {file.name: file.read_text("utf-8") for file in path.iterdir() if file.is_file()}
    texts.pop(manifest.NAME)
    meta = json.loads(texts.pop(_META))
    return CheckpointInfo(path, _kind(path), int(path.name.split(".")[0]), meta, texts)


def _number(path: Path) -> list[int]:
    """Sort key of checkpoints from old to new."""
    return [int(part) for part in path.name.split(".")]


def _kind(path: Path) -> Kind:
    """The kind of a checkpoint by its folder, complete or partial."""
    return "last" if path.parent.name == "last" else "best"


def _free_name(path: Path) -> Path:
    """`path`, or the first free one of path.1, path.2, ...: the same step may have been saved before."""
    copies = 0
    free = path
    while free.exists():
        copies += 1
        free = path.with_name(f"{path.name}.{copies}")
    return free


def _nbytes(leaves: Mapping[named_leaves.Name, Any]) -> int:
    return sum(getattr(leaf, "nbytes", 0) for leaf in leaves.values())


def _check_free_space(folder: Path, size: int) -> None:
    """Raises OSError when the disk has less than `size` bytes free; Orbax would write until it fails."""
    free = shutil.disk_usage(folder).free
    if free < size:
        raise OSError(errno.ENOSPC, f"{os.strerror(errno.ENOSPC)}: {size:,} bytes to write, {free:,} free")


def _save_error(partial: Path, step: int, error: Exception) -> InputError:
    """The one-line error of a failed save."""
    code = re.search(r"os_error_code='(\d+)'", str(error))  # how TensorStore reports an OSError
    if code:
        reason = os.strerror(int(code[1]))
    elif isinstance(error, OSError) and error.strerror:
        reason = error.strerror
    else:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
    advice = "older checkpoints are intact; free some space or set `run` to another disk"
    return InputError(f"{partial.parent}: the checkpoint of step {step} was not written ({reason}); {advice}")


def _broadcast(folder: Path, path: Path | None) -> Path | None:
    """Returns process 0's `path` in every process."""
    number = [-1, 0, 0]
    if path is not None:
        parts = _number(path)
        number = [KINDS.index(_kind(path)), *parts, *[-1] * (2 - len(parts))]
    kind, step, copy = (int(part) for part in multihost_utils.broadcast_one_to_all(np.array(number, np.int32)))
    if kind < 0:
        return None
    return folder / KINDS[kind] / (f"{step:06d}" if copy < 0 else f"{step:06d}.{copy}")
