"""Checkpoints of a run: written in the background, verified when read. The one module that calls Orbax.

    RUN/checkpoints/last/000200/state/          Orbax: step, params, opt_state, ema
                               /meta.json       position, clock, metrics so far, versions
                               /config.json ... any other text that belongs to the state
                               /manifest.json   digests of all of these, written last

A folder has its number only once it is complete on the disk; until then its name starts with `files.PARTIAL` and
nobody reads it. Older ones are deleted after that, so that at any instant the newest complete one can be read.
"""

import concurrent.futures
import contextlib
import errno
import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from make_jax.errors import InputError
from make_jax.files import PARTIAL, sync_folder, write_atomically
from make_jax.runs import manifest, named
from make_jax.runs.failure_detection import silence_save_tracebacks

Kind = Literal["last", "best"]
KINDS: tuple[Kind, ...] = ("last", "best")

_LOG = logging.getLogger(__name__)
STATE = "state"  # subfolder of a checkpoint
_META = "meta.json"
_LEAST_SLICE = 1 << 20  # bytes, of an array that replicas share the writing of


@dataclass(frozen=True)
class CheckpointInfo:
    """A checkpoint whose every file was verified."""

    path: Path
    kind: Kind
    step: int  # completed training steps
    meta: dict[str, Any]  # what `save` was given
    files: dict[str, str]  # what `save` was given: name -> text


class Checkpoints:
    """The newest complete checkpoints below `folder`, usually RUN/checkpoints: `keep` of `last`, one of `best`.

    One that is known to be damaged does not count: it is deleted when the next one is complete. In a run of several
    processes all of them call `save`, `restore`, `latest_intact` and `load_params` alike, and share the file system.
    """

    def __init__(self, folder: str | Path, keep: int = 1):
        self.folder = Path(folder).absolute()  # Orbax takes absolute paths only
        self._keep = {"last": keep, "best": 1}
        self._damaged: set[Path] = set()  # that this process has found
        self._writer: ocp.AsyncCheckpointer | None = None
        self._thread = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: concurrent.futures.Future[None] | None = None

    def save(
        self, kind: Kind, step: int, state: Any, meta: Mapping[str, Any], files: Mapping[str, str] | None = None
    ) -> None:
        """Copies `state` to host memory and writes it in the background; its buffers may be donated right after.

        `state` is a tree of jax arrays; `meta` becomes meta.json; `files` maps further names to texts. A save waits
        for the one before it. Raises InputError when that one, or the beginning of this one, could not be written.
        """
        self.wait()
        texts = {**(files or {}), _META: json.dumps(dict(meta), indent=2, ensure_ascii=False) + "\n"}
        partial = self.folder / kind / f"{PARTIAL}{step:06d}"
        try:
            if self._writer is None:
                self._writer = _writer()
            self._writer.wait_until_finished()  # nothing, unless Ctrl-C left a `save` halfway
            self._clean()
            leaves = named.flatten(state)
            if jax.process_index() == 0:
                partial.mkdir(parents=True)
                _expect_room(partial, _size(leaves))
            tree = named.nest(leaves)
            self._writer.save(partial / STATE, args=ocp.args.PyTreeSave(tree))
        except Exception as error:
            self._clean()
            raise _not_written(partial, step, error) from error
        self._pending = self._thread.submit(self._finish, self._writer, partial, step, texts)

    def expect_room(self, state: Any) -> None:
        """Raises InputError when the disk has no room for a checkpoint of `state`; the run's folder must exist."""
        try:
            _expect_room(self.folder.parent, _size(named.flatten(state)))
        except OSError as error:
            raise InputError(f"{self.folder.parent}: {error.strerror}; set `run` to another disk") from error

    def wait(self) -> None:
        """Returns once nothing is being written. Raises InputError if the last save failed; the one before stands."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def close(self) -> None:
        """Waits as `wait` does and ends the background threads."""
        try:
            self.wait()
        finally:
            self._thread.shutdown()
            if self._writer is not None:
                self._writer.close()
                self._writer = None

    def exists(self) -> bool:
        """Whether any checkpoint is there, intact or not; where process 0 sees one, all processes are told so."""
        there = self.newest() is not None
        return bool(multihost_utils.broadcast_one_to_all(there)) if jax.process_count() > 1 else there

    def newest(self) -> int | None:
        """The step of the newest complete checkpoint, intact or not; None without any."""
        newest = max((_age(path) for kind in KINDS for path in self._candidates(kind)), default=None)
        return None if newest is None else newest[0]

    def latest_intact(self, kind: Kind = "last") -> CheckpointInfo:
        """Returns the newest checkpoint whose files are all unchanged: for "last" of both kinds, for "best" of the
        best ones, and of the others where there is no best one.

        Each damaged file that made it fall back is named in a logged warning. Raises InputError that names the first
        damaged file when nothing intact is left, or the folder when there is nothing at all.
        """
        problem = ""
        path = None
        if jax.process_index() == 0:  # one process verifies, and so all read the same
            path, problem = self._choose(kind)
        if jax.process_count() > 1:
            path = _broadcast(self.folder, path)
        if path is None:
            raise InputError(problem or f"{self.folder}: no intact checkpoint")
        return _found(path)

    def restore(self, template: Any, source: Kind | CheckpointInfo = "last") -> tuple[Any, dict[str, Any]]:
        """Returns (state, meta) with the structure, dtypes and shardings of `template`.

        `template` is a tree of arrays or of jax.ShapeDtypeStruct with shardings, over any number of devices; a leaf
        without a sharding goes to the first device. Raises InputError that lists the leaves which the checkpoint lacks,
        has besides, or has with another shape or dtype.
        """
        found = self.latest_intact(source) if isinstance(source, str) else source
        wanted = {name: _placed(leaf) for name, leaf in named.flatten(template).items()}
        with _reader() as reader:
            expected = "expected the state of this config; use the settings of the run, or another run folder"
            leaves = _read_placed(reader, found, _stored(reader, found), wanted, expected)
        return named.unflatten(template, leaves), found.meta

    def load_params(self, source: Kind | CheckpointInfo = "best") -> dict[str, Any]:
        """Returns the parameters as nested dicts of NumPy arrays, on any machine.

        Reads nothing else of the state: the averaged parameters (`ema`) if the run kept them, else `params`.
        """
        info = self.latest_intact(source) if isinstance(source, str) else source
        with _reader() as reader:
            _, chosen = _stored_params(reader, info)
            arguments = {name: ocp.RestoreArgs(restore_type=np.ndarray) for name in chosen}
            leaves = _read(reader, info, chosen, arguments)
        return named.nest({name[1:]: leaf for name, leaf in leaves.items()})

    def restore_params(self, template: dict[str, Any], source: CheckpointInfo, but: str = "") -> dict[str, Any]:
        """Returns what `load_params` reads, with the structure, dtypes and shardings of `template`, as `restore` does.

        The part named `but` is not read, whether the checkpoint has one or not, and stays as in `template`. Raises
        InputError that lists the leaves which the checkpoint lacks, has besides, or has in another shape.
        """
        with _reader() as reader:
            part, stored = _stored_params(reader, source)
            stored = {name: leaf for name, leaf in stored.items() if name[1] != but}
            asked = {name: tree for name, tree in template.items() if name != but}
            wanted = {(part, *name): _placed(leaf) for name, leaf in named.flatten(asked).items()}
            expected = "expected the parameters of this config; use the source's settings for `model` and `inputs`"
            leaves = _read_placed(reader, source, stored, wanted, expected)
        return {**template, **named.unflatten(asked, {name[1:]: leaf for name, leaf in leaves.items()})}

    def _finish(self, writer: ocp.AsyncCheckpointer, partial: Path, step: int, texts: Mapping[str, str]) -> None:
        """Runs in the background: after Orbax's commit adds the texts and the manifest, and lets the folder be seen."""
        try:
            writer.wait_until_finished()
            if jax.process_index() != 0:
                return
            for name, text in texts.items():
                write_atomically(partial / name, text)
            manifest.write(partial)
            older = self._superfluous(_kind(partial))
            target = _free_name(partial.with_name(f"{step:06d}"))
            partial.rename(target)
            sync_folder(target.parent)
        except Exception as error:
            self._clean()
            raise _not_written(partial, step, error) from error
        for path in older:
            # Renamed first: a folder that is being deleted must not be taken for a whole one.
            with contextlib.suppress(OSError):
                shutil.rmtree(path.rename(path.with_name(f"{PARTIAL}old-{path.name}")))

    def _superfluous(self, kind: Kind) -> list[Path]:
        """What is to be deleted once one more checkpoint is complete."""
        found = self._candidates(kind)
        intact = [path for path in found if path not in self._damaged]
        kept = intact[: self._keep[kind] - 1]
        return [path for path in found if path not in kept]

    def _clean(self) -> None:
        """Deletes what an interrupted or failed save left."""
        if jax.process_index() == 0:
            for path in self.folder.glob(f"*/{PARTIAL}*"):
                shutil.rmtree(path, ignore_errors=True)

    def _candidates(self, kind: Kind) -> list[Path]:
        """The complete checkpoints of a kind, newest first."""
        found = [path for path in (self.folder / kind).glob("*") if re.fullmatch(r"\d{6,}(\.\d+)?", path.name)]
        return sorted(found, key=_age, reverse=True)

    def _choose(self, kind: Kind) -> tuple[Path | None, str]:
        """The checkpoint to read, or None and why there is none."""
        problems: list[str] = []
        gone: set[Path] = set()
        while True:
            last, best = self._candidates("last"), self._candidates("best")
            order = [*best, *last] if kind == "best" else sorted([*last, *best], key=_age, reverse=True)
            for path in order:
                try:
                    manifest.verify(path)
                except InputError as error:
                    if not path.exists() and path not in gone:  # a running training just replaced it: look again
                        gone.add(path)
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
                nothing = f"{self.folder}: no checkpoint, expected one that train.py wrote"
                return None, f"{problems[0]}; no intact checkpoint is left" if problems else nothing


def read(folder: str | Path) -> CheckpointInfo:
    """The checkpoint in the very folder RUN/checkpoints/KIND/STEP; InputError that names its first damaged file."""
    path = Path(folder).absolute()
    manifest.verify(path)
    return _found(path)


def digest(found: CheckpointInfo) -> str:
    """SHA-256 of a checkpoint's manifest, and so of all that is in it."""
    return hashlib.sha256((found.path / manifest.NAME).read_bytes()).hexdigest()


def _found(path: Path) -> CheckpointInfo:
    """A verified checkpoint with its texts."""
    texts = {file.name: file.read_text("utf-8") for file in path.iterdir() if file.is_file()}
    texts.pop(manifest.NAME)
    meta = json.loads(texts.pop(_META))
    return CheckpointInfo(path, _kind(path), int(path.name.split(".")[0]), meta, texts)


def _age(path: Path) -> list[int]:
    """What sorts checkpoints from old to new."""
    return [int(part) for part in path.name.split(".")]


def _kind(path: Path) -> Kind:
    """The kind of a checkpoint's folder, complete or partial."""
    return "last" if path.parent.name == "last" else "best"


def _free_name(path: Path) -> Path:
    """`path`, or the first of path.1, path.2, ... that is free: a damaged folder of the same step may stand there."""
    taken = 0
    free = path
    while free.exists():
        taken += 1
        free = path.with_name(f"{path.name}.{taken}")
    return free


def _size(leaves: Mapping[named.Name, Any]) -> int:
    return sum(getattr(leaf, "nbytes", 0) for leaf in leaves.values())


def _expect_room(folder: Path, size: int) -> None:
    """Raises OSError before anything is written where `size` bytes cannot fit: writing until it fails takes long."""
    free = shutil.disk_usage(folder).free
    if free < size:
        raise OSError(errno.ENOSPC, f"{os.strerror(errno.ENOSPC)}: {size:,} bytes to write, {free:,} free")


def _not_written(partial: Path, step: int, error: Exception) -> InputError:
    """One line about a failed save."""
    code = re.search(r"os_error_code='(\d+)'", str(error))  # TensorStore's way to say which OSError it met
    if code:
        reason = os.strerror(int(code[1]))
    elif isinstance(error, OSError) and error.strerror:
        reason = error.strerror
    else:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
    advice = "an older one was not touched; free some space or set `run` to another disk"
    return InputError(f"{partial.parent}: the checkpoint of step {step} was not written ({reason}); {advice}")


def _broadcast(folder: Path, path: Path | None) -> Path | None:
    """Process 0's `path`, in every process."""
    number = [-1, 0, 0]
    if path is not None:
        words = path.name.split(".")
        number = [KINDS.index(_kind(path)), *map(int, words), *[-1] * (2 - len(words))]
    kind, step, copy = (int(part) for part in multihost_utils.broadcast_one_to_all(np.array(number, np.int32)))
    if kind < 0:
        return None
    return folder / KINDS[kind] / (f"{step:06d}" if copy < 0 else f"{step:06d}.{copy}")


def _writer() -> ocp.AsyncCheckpointer:
    silence_save_tracebacks()
    # Replicas share the writing of an array, each a slice of it, for which each shape and device compiles a program of
    # its own: 7 s for 20 shapes on 8 devices, and the first save halts the training for them.
    of_arrays = ocp.type_handlers.ArrayHandler(min_slice_bytes_for_replica_parallel=_LEAST_SLICE)
    arrays = ocp.type_handlers.create_type_handler_registry((jax.Array, of_arrays))
    # Float noise hardly shrinks (240 MB to 212), and compression takes processor time from the training.
    return ocp.AsyncCheckpointer(ocp.PyTreeCheckpointHandler(use_compression=False, type_handler_registry=arrays))


def _reader() -> ocp.Checkpointer:
    return ocp.Checkpointer(ocp.PyTreeCheckpointHandler())


def _stored(reader: ocp.Checkpointer, found: CheckpointInfo) -> dict[named.Name, Any]:
    """Shape and dtype of every stored leaf, by name."""
    return named.flatten(reader.metadata(found.path / STATE).item_metadata.tree)


def _stored_params(reader: ocp.Checkpointer, found: CheckpointInfo) -> tuple[str, dict[named.Name, Any]]:
    """("ema" or "params", shape and dtype of its leaves): the averaged parameters where there are any."""
    stored = _stored(reader, found)
    part = "ema" if any(name[0] == "ema" for name in stored) else "params"
    chosen = {name: leaf for name, leaf in stored.items() if name[0] == part}
    if not chosen:
        raise InputError(f"{found.path}: holds no parameters")
    return part, chosen


def _read_placed(
    reader: ocp.Checkpointer,
    found: CheckpointInfo,
    stored: Mapping[named.Name, Any],
    wanted: Mapping[named.Name, jax.ShapeDtypeStruct],
    expected: str,
) -> dict[named.Name, Any]:
    """Reads leaves under the shardings of `wanted`; InputError that ends with `expected` when `stored` has others."""
    differences = named.differences(stored, wanted)
    if differences:
        raise InputError(f"{found.path}: {'; '.join(differences)}; {expected}")
    arguments = {
        name: ocp.ArrayRestoreArgs(sharding=leaf.sharding, global_shape=leaf.shape, dtype=leaf.dtype)
        for name, leaf in wanted.items()
    }
    return _read(reader, found, wanted, arguments)


def _read(
    reader: ocp.Checkpointer,
    found: CheckpointInfo,
    leaves: Mapping[named.Name, Any],
    arguments: Mapping[named.Name, Any],
) -> dict[named.Name, Any]:
    """Reads the named leaves and no others."""
    request = ocp.args.PyTreeRestore(
        item=named.nest({name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for name, leaf in leaves.items()}),
        restore_args=named.nest(arguments),
        partial_restore=True,
    )
    return named.flatten(reader.restore(found.path / STATE, args=request))


def _placed(leaf: Any) -> jax.ShapeDtypeStruct:
    """Shape, dtype and sharding under which a leaf of a template is read."""
    sharding = getattr(leaf, "sharding", None) or jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)
