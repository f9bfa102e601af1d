"""Safe, bounded reading of a catalog's files in a folder or a .zip."""

import abc
import functools
import hashlib
import io
import os
import re
import stat
import threading
import unicodedata
import zipfile
import zlib
from pathlib import Path
from typing import Any

from make_jax.errors import InputError
from make_jax.object_stores import Mirror, is_url

MAX_FILES = 20_000_000
MAX_FILE_BYTES = 16 << 30  # of one file, uncompressed
MAX_TOTAL_BYTES = 4 << 40  # of all files of a zip, uncompressed
MAX_RATIO = 250  # uncompressed over compressed bytes of one file of a zip ...
RATIO_FREE_BYTES = 1 << 20  # ... that is larger than this
_UTF8_FLAG = 0x800  # of the name of an entry of a zip

_UNPACK = "unpack it and give the folder"
_IMPORT = "python -m make_jax.catalog import {} OUT"
_OWN = {".tar": "webdataset FILE", ".xml": "google-merchant FILE"}  # by extension; others are tables
_BENCHMARKS = (  # published file names
    (r"styles\.csv", "fashion"),
    (r"(product|query|label)\.csv", "wands"),
    (r"query_\d_product_id_\d\.csv", "marqo-gs"),
    (r".*_imgs\.tsv", "muge"),
    (r"shopping_queries_.*\.parquet", "esci"),
)
_KINDS = (
    (b"\x1f\x8b", f"a gzip file: {_UNPACK}"),
    (b"BZh", f"a bzip2 file: {_UNPACK}"),
    (b"\xfd7zXZ\0", f"an xz file: {_UNPACK}"),
    (b"7z\xbc\xaf\x27\x1c", f"a 7z archive: {_UNPACK}"),
    (b"Rar!", f"a rar archive: {_UNPACK}"),
)


class Source(abc.ABC):
    """Read-only access to files by name ("images/a.png"). Thread-safe and picklable."""

    path: Path
    sizes: dict[str, int]  # bytes of each regular file, by name
    stamp: str  # hex; changes with the path, and the names, sizes and times of the files, which are not read
    links: frozenset[str] = frozenset()  # names of symbolic links, which are not followed

    @functools.cached_property
    def _by_normal_form(self) -> dict[str, str]:
        """Names by their composed form (NFC); macOS writes decomposed names."""
        return {unicodedata.normalize("NFC", name): name for name in self.sizes}

    @functools.cached_property
    def _by_folded_form(self) -> dict[str, str]:
        """Names by a form that ignores case, width and white space, for messages."""
        return {_folded(name): name for name in self.sizes}

    def find(self, name: str) -> str | None:
        """The name of the file that is `name` or has the same letters, composed or decomposed; None without one."""
        if name in self.sizes:
            return name
        return None if name.isascii() else self._by_normal_form.get(unicodedata.normalize("NFC", name))

    def similar(self, name: str) -> str | None:
        """A name that differs from `name` in case, width or white space only; None without one."""
        return self._by_folded_form.get(_folded(name))

    @abc.abstractmethod
    def open(self, name: str) -> io.BufferedReader:
        """A binary stream of one file."""

    @abc.abstractmethod
    def checksum(self, name: str) -> int:
        """CRC-32 of one file."""

    def read(self, name: str, limit: int) -> bytes:
        """All bytes of one file. Raises InputError if it is missing, unreadable or larger than `limit` bytes."""
        if name not in self.sizes:
            raise InputError(f"{self.path}: {name}: not in the catalog")
        try:
            with self.open(name) as file:
                data = file.read(limit + 1)
        except READ_ERRORS as error:
            raise unreadable(self.path, name, error) from None
        if len(data) > limit:
            raise InputError(f"{self.path}: {name}: more than {limit:,} bytes, expected a smaller file")
        return data


def _folded(name: str) -> str:
    return "".join(unicodedata.normalize("NFKC", name).casefold().split())


# What zipfile raises for damaged members; NotImplementedError: unsupported compression.
READ_ERRORS = (OSError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError)


def unreadable(path: Path, name: str, error: Exception) -> InputError:
    """The InputError for an existing file that cannot be read completely."""
    return InputError(f"{path}: {name}: cannot be read ({error}), expected an undamaged file")


def open_source(path: str | Path) -> Source:
    """Opens the folder or .zip at `path`. Raises InputError if it is missing, damaged or unsafe.

    A URL of an object store is opened in its mirror, to which what has changed is downloaded; its `stamp` depends on
    the URL and what is stored there alone, and so is the same on all machines.
    """
    if isinstance(path, str) and is_url(path):
        mirror = Mirror(path)
        stored = mirror.pull(exact=True, file=True)
        if not stored:
            raise InputError(f"{path}: not found, expected a catalog folder or .zip (setting data.catalog)")
        source = open_source(mirror.path)
        source.stamp = hashlib.blake2b(repr((mirror.url, sorted(stored.items()))).encode(), digest_size=16).hexdigest()
        return source
    path = Path(path)
    if path.is_dir():
        return Folder(path)
    if not path.exists():
        raise InputError(f"{path}: not found, expected a catalog folder or .zip (setting data.catalog)")
    if kind := _other_kind(path):
        raise InputError(f"{path}: {kind}; expected a catalog folder or .zip (docs/catalog.md)")
    return Zip(path)


def _other_kind(path: Path) -> str:
    """What a file is that is no .zip, and what to do with it; "" for what may be a damaged .zip."""
    suffix = path.suffix.lower()
    if suffix != ".xlsx" and zipfile.is_zipfile(path):  # a workbook is a zip too
        return ""
    with path.open("rb") as file:
        head = file.read(512)
    for magic, kind in _KINDS:
        if head.startswith(magic):
            return kind
    name = next((name for pattern, name in _BENCHMARKS if re.fullmatch(pattern, path.name)), "")
    imported = f"import it ({_IMPORT.format(f'{name} FOLDER' if name else _OWN.get(suffix, 'table FILE'))})"
    if head[257:262] == b"ustar" or suffix == ".tar":
        return f"a .tar archive: {_UNPACK}, or {imported}"
    if suffix in (".csv", ".tsv", ".xlsx", ".xml"):
        return f"{'an' if suffix.startswith('.x') else 'a'} {suffix} file: {imported}"
    if head.startswith(b"PAR1"):
        return f"a Parquet file: {imported}"
    if suffix == ".jsonl":
        return f"a .jsonl file: give its folder, or {imported}"
    return "" if suffix == ".zip" or head.startswith(b"PK") else "no .zip"


def unsafe_name(name: str) -> str | None:
    """Why a name is unsafe (it could point outside the catalog); None if it is safe."""
    if "\\" in name or "\0" in name:
        return "has a backslash or a NUL"
    if name.startswith("/") or (len(name) > 1 and name[1] == ":"):
        return "is absolute"
    if any(part in ("", ".", "..") for part in name.split("/")):
        return "has an empty, '.' or '..' part"
    return None


class Folder(Source):
    """A catalog in a folder. Symbolic links are listed in `links` and not followed; hidden files are ignored."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.sizes = {}
        links: set[str] = set()
        stamp = _Stamp(path)
        pending = [("", os.fspath(path))]
        while pending:
            prefix, folder = pending.pop()
            with os.scandir(folder) as entries:
                for entry in entries:
                    name = prefix + entry.name
                    if entry.name.startswith("."):
                        continue
                    if entry.is_symlink():
                        links.add(name)
                    elif entry.is_dir(follow_symlinks=False):
                        pending.append((name + "/", entry.path))
                    elif entry.is_file(follow_symlinks=False):
                        status = entry.stat(follow_symlinks=False)
                        self.sizes[name] = status.st_size
                        stamp.add(name, status)
            if len(self.sizes) > MAX_FILES:
                raise InputError(f"{path}: more than {MAX_FILES:,} files, expected a smaller catalog")
        self.links = frozenset(links)
        self.stamp = stamp.hexdigest()

    def open(self, name: str) -> io.BufferedReader:
        """A binary stream of one file."""
        return (self.path / name).open("rb")

    def checksum(self, name: str) -> int:
        """CRC-32 of one file, computed by reading it."""
        crc = 0
        try:
            with self.open(name) as file:
                while block := file.read(1 << 20):
                    crc = zlib.crc32(block, crc)
        except OSError as error:
            raise unreadable(self.path, name, error) from None
        return crc


class Zip(Source):
    """A catalog in a .zip, at the top level or in a single top folder. All entries are checked before any is read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        stamp = _Stamp(path)
        stamp.add("", path.stat())
        self.stamp = stamp.hexdigest()
        self._lock = threading.Lock()
        self._opened: tuple[int, zipfile.ZipFile] | None = None  # process id and its archive
        archive = self._archive()
        names = {id(entry): _utf8_name(entry) for entry in archive.infolist()}
        prefix = _top_folder(list(names.values()))
        self._entries: dict[str, zipfile.ZipInfo] = {}
        entries = archive.infolist()
        if len(entries) > MAX_FILES:
            raise InputError(f"{path}: {len(entries):,} entries, expected at most {MAX_FILES:,}")
        for entry in entries:
            _check_entry(path, entry)
            if entry.is_dir() or not names[id(entry)].startswith(prefix):
                continue
            name = names[id(entry)][len(prefix) :]
            if name in self._entries:
                raise InputError(f"{path}: {name}: duplicate name in the zip, expected unique names")
            self._entries[name] = entry
        total = sum(entry.file_size for entry in entries)
        if total > MAX_TOTAL_BYTES:
            raise InputError(f"{path}: {total:,} bytes uncompressed, expected at most {MAX_TOTAL_BYTES:,}")
        self.sizes = {name: entry.file_size for name, entry in self._entries.items()}

    def open(self, name: str) -> io.BufferedReader:
        """A binary stream of one file; its CRC-32 is verified at the end."""
        stream = self._archive().open(self._entries[name])
        return io.BufferedReader(stream, 1 << 16)  # type: ignore[arg-type]  # iterating a bare ZipExtFile is slow

    def checksum(self, name: str) -> int:
        """CRC-32 of one file, as recorded in the zip."""
        return self._entries[name].CRC

    def _archive(self) -> zipfile.ZipFile:
        """The archive opened by this process; a forked process must not share the file position."""
        with self._lock:
            if self._opened is None or self._opened[0] != os.getpid():
                try:
                    self._opened = (os.getpid(), zipfile.ZipFile(self.path))
                # NotImplementedError: a multi-disk archive or an unsupported version.
                except (zipfile.BadZipFile, EOFError, ValueError, NotImplementedError) as error:
                    text = f"{self.path}: damaged .zip ({error}), expected a catalog folder or .zip"
                    raise InputError(text + "; copy or download it again") from None
            return self._opened[1]

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key not in ("_lock", "_opened")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.Lock(), _opened=None)


class _Stamp:
    """A digest of the names, sizes and times of files, in any order."""

    def __init__(self, path: Path) -> None:
        self._path = path.resolve()
        self._sum = 0

    def add(self, name: str, status: os.stat_result) -> None:
        """Adds one file."""
        text = f"{name}\0{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"
        self._sum += int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=16).digest())

    def hexdigest(self) -> str:
        """The digest."""
        text = f"{self._path}\0{self._sum % (1 << 128)}"
        return hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()


def _utf8_name(entry: zipfile.ZipInfo) -> str:
    """The name of an entry. Programs of macOS write UTF-8 without its flag, which zipfile decodes as code page 437."""
    if entry.flag_bits & _UTF8_FLAG or entry.filename.isascii():
        return entry.filename
    try:
        return entry.filename.encode("cp437").decode("utf-8")
    except UnicodeError:
        return entry.filename


def _top_folder(names: list[str]) -> str:
    """The top folder ("mine/") that contains products.jsonl; "" if products.jsonl is at the top level."""
    if "products.jsonl" in names:
        return ""
    tops = [name.removesuffix("products.jsonl") for name in names if name.endswith("/products.jsonl")]
    return tops[0] if len(tops) == 1 and tops[0].count("/") == 1 else ""


def _check_entry(path: Path, entry: zipfile.ZipInfo) -> None:
    """Raises InputError for an entry with an unsafe name, a link, an encrypted entry, or a decompression bomb."""
    name = _utf8_name(entry).removesuffix("/") if entry.is_dir() else _utf8_name(entry)
    where = f"{path}: entry {entry.orig_filename[:200]!r}"
    if reason := unsafe_name(name) or unsafe_name(entry.orig_filename.removesuffix("/")):
        raise InputError(f"{where} {reason}, expected a path inside the zip")
    if stat.S_ISLNK(entry.external_attr >> 16):
        raise InputError(f"{where} is a symbolic link, expected a file")
    if entry.flag_bits & 1:
        raise InputError(f"{where} is encrypted, expected a plain file")
    if entry.file_size > MAX_FILE_BYTES:
        raise InputError(f"{where} has {entry.file_size:,} bytes uncompressed, expected at most {MAX_FILE_BYTES:,}")
    if entry.file_size > RATIO_FREE_BYTES and entry.file_size > MAX_RATIO * max(entry.compress_size, 1):
        ratio = entry.file_size // max(entry.compress_size, 1)
        raise InputError(f"{where} unpacks to {ratio:,} times its size, expected at most {MAX_RATIO} times")
