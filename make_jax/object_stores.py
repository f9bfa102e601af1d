"""Folders in object stores (s3://, gs://), each with a mirror in a local folder, which all other code reads and writes.

    <cache>/mirrors/<digest of the URL>/NAME          the files; NAME is the last part of the URL
                                       /index.json    size and time here, and ETag there, of each transferred file

<cache> is $XDG_CACHE_HOME/make_jax or ~/.cache/make_jax. Object stores cannot rename. So a folder that must be complete
has a marker, a file such as manifest.json, that is uploaded after all its other files and deleted before them; readers
ignore the folder without it. Imports fsspec's s3fs and gcsfs only when a URL is used (extras [s3] and [gcs]).
"""

import contextlib
import errno
import fcntl
import functools
import hashlib
import json
import logging
import posixpath
import re
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from make_jax.errors import InputError
from make_jax.extras import import_optional
from make_jax.files import PARTIAL, cache_home, publish_folder, write_atomically

_SCHEMES = {  # scheme -> module, extra, what to check after an error
    "s3": ("s3fs", "s3", "the bucket, the credentials (AWS_ACCESS_KEY_ID, ~/.aws) and AWS_ENDPOINT_URL"),
    "gs": ("gcsfs", "gcs", "the bucket and the credentials (GOOGLE_APPLICATION_CREDENTIALS)"),
}
_PARALLEL = 16  # files transferred at once
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)  # of the local disk; stores raise others
_TIMEOUTS = {"connect_timeout": 10, "read_timeout": 60, "retries": {"mode": "standard", "max_attempts": 3}}


@dataclass(frozen=True)
class Layout:
    """Which files of a folder are stored, and which subfolders are complete only with a marker."""

    markers: tuple[tuple[str, str], ...] = ()  # (pattern of a subfolder, its marker); "" is the folder itself
    include: str = ".*"  # pattern of the stored names
    first: str = r"(?!)"  # pattern of files that others refer to, and that are uploaded before them

    def marker(self, name: str) -> str | None:
        """The marker of the subfolder that a file is in; None for a file in none."""
        for pattern, marker in self.markers:
            if match := re.match(pattern, name):
                return match[0] + marker
        return None

    def includes(self, name: str) -> bool:
        """Whether a file is stored; hidden and partial ones never are."""
        return re.fullmatch(self.include, name) is not None and not any(p.startswith(".") for p in name.split("/"))


FILES = Layout()  # of catalogs: any file may be read without the others
BUILDS = Layout(
    ((r"[^/]+-[0-9a-f]{16}/", "manifest.json"),), r"[^/]+-[0-9a-f]{16}/(manifest\.json|(columns|products)/.*)"
)
EMBEDDINGS = Layout(first=r"(.*/)?vectors\.json")
REPORT = Layout(
    (("", "report.json"),),
    r"report\.(json|md)|per_query\.jsonl|qrels\.txt|runs/[^/]+\.run\.gz|weights\.png|gallery\.png",
)
RUN = Layout(((r"checkpoints/(last|best)/\d{6,}(\.\d+)?/", "manifest.json"), (r"eval/[^/]+/", "report.json")))


class Stored(NamedTuple):
    """A file in the store."""

    size: int  # bytes
    etag: str  # changes with the content


class _Known(NamedTuple):
    """A file as of its last transfer."""

    size: int
    mtime_ns: int  # of the local file
    etag: str  # "": an upload began and may have been interrupted


def is_url(path: object) -> bool:
    """Whether a path is a URL, of any scheme."""
    return isinstance(path, str) and re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", path) is not None


def local_path(path: str | Path) -> Path:
    """A local path as it is; of a URL, the folder or file of its mirror. Transfers nothing.

    Raises InputError for a scheme other than s3 and gs, and for a URL without a name after the bucket.
    """
    return Mirror(str(path)).path if is_url(path) else Path(path)


class Mirror:
    """The local mirror of a URL. Methods may be called by several processes at once; one transfers at a time.

    Every method raises InputError, one line with the URL and the reason, when the store cannot be used.
    """

    def __init__(self, url: str, layout: Layout = FILES) -> None:
        scheme, _, rest = url.partition("://")
        if scheme not in _SCHEMES:
            raise InputError(f"{url}: unknown scheme {scheme}://, expected a local path, s3:// or gs://")
        self.root = posixpath.normpath(rest).strip("/")  # bucket/name
        if "/" not in self.root or ".." in rest.split("/") or rest.startswith("/"):
            raise InputError(f"{url}: expected {scheme}://BUCKET/NAME")
        self.url, self.layout = f"{scheme}://{self.root}", layout
        self._module, self._extra, self._check = _SCHEMES[scheme]
        self._home = cache_home() / "mirrors" / hashlib.sha256(self.url.encode()).hexdigest()[:16]
        self.path = self._home / posixpath.basename(self.root)  # a folder, or the file of a URL of a file

    def pull(
        self, chosen: Callable[[str], bool] = lambda _: True, *, exact: bool = False, file: bool = False
    ) -> dict[str, Stored]:
        """Downloads the complete files that are missing here or changed there, and returns those in the store.

        Keeps files that were changed here and not there; with `exact` it replaces them, and removes what the store
        lacks. With `file` the URL may be of a single file, whose name is then "". A subfolder with a marker appears
        completely or not at all.
        """
        with self._locked(), self._errors("read"):
            stored = self._list()
            if "" in stored and not file:
                raise InputError(f"{self.url}: is a file, expected a folder")
            complete = {n: each for n, each in stored.items() if self._is_complete(n, stored) and chosen(n)}
            index = self._read_index()
            wanted = [name for name, each in complete.items() if self._differs(name, each, index.get(name), exact)]
            folders = {marker for name in wanted if (marker := self.layout.marker(name)) == name}
            single = {*wanted}
            wanted = [n for n in complete if n in single or self.layout.marker(n) in folders]
            if exact:
                for name in self._local(chosen).keys() - complete.keys():
                    (self.path / name).unlink()
            self._download(wanted, folders, complete)
            for name in wanted:
                status = (self.path / name if name else self.path).stat()
                index[name] = _Known(status.st_size, status.st_mtime_ns, complete[name].etag)
            self._write_index(index)
        return complete

    def push(self, chosen: Callable[[str], bool] = lambda _: True, *, delete: bool = False) -> None:
        """Uploads what is missing or older in the store, markers last.

        With `delete` it deletes from the store, markers first, what was transferred before and no longer exists here.
        A kill at any instant leaves every subfolder with a marker as it was, complete as it is here, or without its
        marker; the next call completes it.
        """
        with self._locked(), self._errors("write"):
            stored, index, local = self._list(), self._read_index(), self._local(chosen)
            self._recognize_uploaded(local, stored, index)
            changed = [n for n, known in local.items() if not _is_current(known, index.get(n), stored.get(n))]
            markers = [name for name in changed if self.layout.marker(name) == name]
            replaced = [m for m in markers if m in stored and any(self.layout.marker(n) == m != n for n in changed)]
            gone = [n for n in stored if n not in local and chosen(n) and self._is_obsolete(n, markers, index, delete)]
            self._write_index(index | {name: local[name] for name in changed})
            self._delete(replaced)
            first = [name for name in changed if re.fullmatch(self.layout.first, name)]
            self._upload(first)
            self._upload([name for name in changed if name not in markers and name not in first])
            self._check_sizes([n for n in changed if n not in markers and self.layout.marker(n)], local)
            self._delete([name for name in gone if self.layout.marker(name) in markers])
            self._upload(markers)
            gone_markers = [name for name in gone if self.layout.marker(name) == name]
            self._delete(gone_markers)  # now that newer folders are complete
            self._delete([n for n in gone if n not in gone_markers and self.layout.marker(n) not in markers])
            after = self._list() if changed else stored
            for name in changed:
                if name in after:
                    index[name] = local[name]._replace(etag=after[name].etag)
            self._write_index({name: known for name, known in index.items() if name not in gone})

    def delete_incomplete(self, chosen: Callable[[str], bool] = lambda _: True) -> None:
        """Deletes what killed uploads left in subfolders without marker; for the only process that writes there."""
        with self._locked(), self._errors("write"):
            stored = self._list()
            self._delete([n for n in stored if n and chosen(n) and not self._is_complete(n, stored)])

    def read(self, name: str) -> bytes:
        """The content of a small file, from the store."""
        with self._errors("read"):
            content: bytes = self._store.cat_file(self._key(name))
            return content

    def stored(self) -> dict[str, Stored]:
        """The complete files in the store; the name of a single file is ""."""
        with self._errors("read"):
            stored = self._list()
            return {name: each for name, each in stored.items() if self._is_complete(name, stored)}

    def foreign(self) -> str | None:
        """The name of a file in the store that the layout does not include; None without one."""
        with self._errors("read"):
            names = [key.removeprefix(self.root).lstrip("/") for key in self._find()]
        return next((name for name in names if not self.layout.includes(name)), None)

    # --- the store ---

    @functools.cached_property
    def _store(self) -> Any:
        """The fsspec file system."""
        module = import_optional(self._module, self._extra, self.url)
        if self._module == "s3fs":
            return module.S3FileSystem(config_kwargs=_TIMEOUTS, use_listings_cache=False)
        logging.getLogger(self._module).setLevel(logging.CRITICAL)  # it logs tracebacks of errors, which it raises too
        return module.core.GCSFileSystem(use_listings_cache=False)  # not the subclass that requests buckets' types

    def _key(self, name: str) -> str:
        return f"{self.root}/{name}" if name else self.root

    def _find(self) -> dict[str, Any]:
        """Key -> what fsspec knows of it. Raises FileNotFoundError for a missing bucket."""
        try:
            found: dict[str, Any] = self._store.find(self.root, detail=True)
        except FileNotFoundError:
            found = {}
        bucket = self.root.partition("/")[0]
        if not found and not self._store.exists(bucket):
            raise FileNotFoundError(f"no bucket {bucket}")
        return found

    def _list(self) -> dict[str, Stored]:
        """All files in the store, complete or not."""
        stored = {}
        for key, info in self._find().items():
            name = key.removeprefix(self.root).lstrip("/")
            if info["type"] == "file" and (not name or self.layout.includes(name)):
                stored[name] = Stored(int(info["size"]), str(info.get("ETag") or info.get("etag") or ""))
        return stored

    def _download(self, names: Sequence[str], folders: Iterable[str], stored: Mapping[str, Stored]) -> None:
        """Downloads files: each one, and each folder of a marker in `folders`, appears complete."""
        work = self._home / f"{PARTIAL}{uuid.uuid4().hex}"
        for old in self._home.glob(f"{PARTIAL}*"):  # of killed processes: the caller holds the lock
            shutil.rmtree(old, ignore_errors=True)

        def fetch(name: str) -> None:
            target = work / name if name else work / self.path.name
            target.parent.mkdir(parents=True, exist_ok=True)
            self._store.get_file(self._key(name), str(target))
            if target.stat().st_size != stored[name].size:
                raise OSError(f"{name}: {target.stat().st_size} bytes, expected {stored[name].size}")

        try:
            self._each(fetch, names, sum(stored[name].size for name in names), "downloading")
            for marker in folders:
                self._place_folder(work, posixpath.dirname(marker))
            for name in names:
                if (self.layout.marker(name) or "") not in folders:
                    target = self.path / name if name else self.path
                    target.parent.mkdir(parents=True, exist_ok=True)
                    (work / name if name else work / self.path.name).replace(target)
        finally:
            shutil.rmtree(work, ignore_errors=True)

    def _place_folder(self, work: Path, name: str) -> None:
        target = self.path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists():
            shutil.rmtree(target.rename(self._home / f"{PARTIAL}{uuid.uuid4().hex}"))
        publish_folder(work / name, target)

    def _upload(self, names: Sequence[str]) -> None:
        def send(name: str) -> None:
            self._store.put_file(str(self.path / name), self._key(name))

        size = sum((self.path / name).stat().st_size for name in names)
        self._each(send, names, size, "uploading")

    def _check_sizes(self, names: Sequence[str], local: Mapping[str, _Known]) -> None:
        stored = self._list() if names else {}
        for name in names:
            found = stored.get(name)
            if found is None or found.size != local[name].size:
                raise OSError(f"{name}: {found.size if found else 'no'} bytes arrived, expected {local[name].size}")

    def _delete(self, names: Sequence[str]) -> None:
        if names:
            self._store.rm([self._key(name) for name in names])

    def _each(self, transfer: Callable[[str], None], names: Sequence[str], size: int, what: str) -> None:
        """Calls `transfer` for each name, in threads, and shows a bar on a terminal."""
        from make_jax.console import file_bar  # rich is slow to import

        with (
            ThreadPoolExecutor(_PARALLEL, thread_name_prefix="transfer") as pool,
            file_bar(f"{what} {self.url}, {size / 1e6:,.1f} MB", len(names)) as advance,
        ):
            for done in [pool.submit(transfer, name) for name in names]:
                done.result()
                advance()

    @contextlib.contextmanager
    def _errors(self, verb: str) -> Iterator[None]:
        """Makes the errors of the store's libraries, which share no type, one line; those of the disk stay."""
        try:
            yield
        except InputError:
            raise
        except OSError as error:
            if error.errno in _DISK_ERRORS:
                raise
            raise self._error(verb, error) from None
        except Exception as error:
            raise self._error(verb, error) from None

    def _error(self, verb: str, error: Exception) -> InputError:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        return InputError(f"{self.url}: cannot {verb} it ({reason}); check {self._check}")

    # --- the mirror ---

    def _is_complete(self, name: str, stored: Mapping[str, Stored]) -> bool:
        marker = self.layout.marker(name)
        return not name or marker is None or marker in stored

    def _differs(self, name: str, stored: Stored, known: _Known | None, exact: bool) -> bool:
        """Whether the store's file replaces the local one."""
        path = self.path / name if name else self.path
        if not path.is_file():
            return True
        if known is None or not known.etag:  # written here, or an upload that did not end
            return exact
        status = path.stat()
        return known.etag != stored.etag or (exact and (status.st_size, status.st_mtime_ns) != known[:2])

    def _recognize_uploaded(
        self, local: Mapping[str, _Known], stored: Mapping[str, Stored], index: dict[str, _Known]
    ) -> None:
        """Notes complete folders whose upload was killed before it was noted: their marker must not be deleted."""
        for marker in [n for n in local if self.layout.marker(n) == n and n in stored]:
            files = [name for name in local if self.layout.marker(name) == marker]
            unnoted = marker in index and not index[marker].etag
            arrived = unnoted and all(name in stored and stored[name].size == local[name].size for name in files)
            if arrived and self._store.cat_file(self._key(marker)) == (self.path / marker).read_bytes():
                index |= {name: local[name]._replace(etag=stored[name].etag) for name in files}

    def _is_obsolete(self, name: str, markers: Sequence[str], index: Mapping[str, _Known], delete: bool) -> bool:
        """Whether a file that is not here is of an older form of an uploaded folder, or was deleted here."""
        return self.layout.marker(name) in markers or (delete and name in index)

    def _local(self, chosen: Callable[[str], bool]) -> dict[str, _Known]:
        """The files of the mirror that are stored."""
        found = {}
        for path in sorted(self.path.rglob("*")) if self.path.is_dir() else []:
            name = path.relative_to(self.path).as_posix()
            if path.is_file() and self.layout.includes(name) and chosen(name):
                status = path.stat()
                found[name] = _Known(status.st_size, status.st_mtime_ns, "")
        return found

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        self._home.mkdir(parents=True, exist_ok=True)
        with (self._home / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _read_index(self) -> dict[str, _Known]:
        try:
            stored = json.loads((self._home / "index.json").read_bytes())
            return {name: _Known(*values) for name, values in stored["files"].items()}
        except (OSError, ValueError, KeyError, TypeError):
            return {}

    def _write_index(self, index: Mapping[str, _Known]) -> None:
        write_atomically(self._home / "index.json", json.dumps({"url": self.url, "files": index}))


def _is_current(local: _Known, known: _Known | None, stored: Stored | None) -> bool:
    """Whether the store has the local file, as of its last transfer."""
    return known is not None and stored is not None and local[:2] == known[:2] and known.etag == stored.etag != ""
