"""Finds the local files of images that a table names by path or URL, and writes what to download.

Nothing is downloaded here. A URL is found by its file name in the folder of the option --images; the file
fetch-images.curl in the catalog makes curl save all of them under these names.
"""

import hashlib
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from make_jax.catalog.images import MAX_BYTES
from make_jax.catalog.importers.image_folder import SUFFIXES, ImageFolder

CURL_FILE = "fetch-images.curl"
_URL = re.compile(r"(?:https?:)?//", re.IGNORECASE)
_CURL_OPTIONS = """\
# Saves the images of the products: curl --output-dir FOLDER --config fetch-images.curl
parallel
location
fail
globoff
create-dirs
proto = "=http,https"
proto-redir = "=http,https"
"""


def is_url(value: str) -> bool:
    """Whether a value is an http(s) URL instead of a path."""
    return bool(_URL.match(value))


def add_url(database: sqlite3.Connection, url: str) -> None:
    """Remembers a URL that a row names."""
    database.execute("INSERT OR IGNORE INTO url VALUES(?, ?, 0)", (url, _plain_name(url)))


def want_url(database: sqlite3.Connection, url: str) -> None:
    """Adds a URL to CURL_FILE."""
    database.execute("UPDATE url SET wanted = 1 WHERE url = ?", (url,))


def file_name(database: sqlite3.Connection, url: str) -> str:
    """The name of a URL's file in the folder of images: its own, or with a hash where several URLs have that name."""
    name = _plain_name(url)
    shared = database.execute("SELECT COUNT(*) FROM url WHERE name = ?", (name,)).fetchone()[0] > 1
    if name and not shared:
        return name
    path = PurePosixPath(name)
    digest = hashlib.sha256(url.encode()).hexdigest()[:12]
    return f"{path.stem}-{digest}{path.suffix}" if name else digest


def curl_config(database: sqlite3.Connection) -> Iterator[bytes]:
    """The content of CURL_FILE: every wanted URL and the name of its file."""
    yield _CURL_OPTIONS.encode()
    for (url,) in database.execute("SELECT url FROM url WHERE wanted ORDER BY rowid"):
        full = f"https:{url}" if url.startswith("//") else url
        yield f"\nurl = {_quoted(full)}\noutput = {_quoted(file_name(database, url))}\n".encode()


class LocalImages:
    """The local images of an import: below the folder of the table, or in the folder of --images."""

    def __init__(self, database: sqlite3.Connection, base: Path, images: Path | None) -> None:
        self._db, self._base, self._images = database, base, images
        self._by_name = ImageFolder(images) if images else None

    def read(self, value: str) -> tuple[bytes | None, str]:
        """The bytes of an image, and why there are none."""
        if is_url(value):
            name = file_name(self._db, value)
            if self._images is None or self._by_name is None:
                return None, "the image is a URL, and nothing is downloaded"
            file = self._images / name  # perhaps without extension, as its URL
            data = _read(file) if file.is_file() else self._by_name.read(name)
            return data, "" if data else "the URL of the image has no file in the folder of --images"
        if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:", value) and not re.match(r"[A-Za-z]:[\\/]", value):
            return None, "the image is neither a path nor an http(s) URL"
        path = value.replace("\\", "/")
        for folder in (self._images, self._base):
            local = folder and _inside(folder, path)
            if local and local.is_file():
                return _read(local), ""
        data = self._by_name.read(PurePosixPath(path).name) if self._by_name else None
        where = "in the folder of --images" if self._images else "next to the table (option --images)"
        return data, "" if data else f"the image's file is not {where}"


def _read(file: Path) -> bytes:
    """The bytes of a file; of one that is too large, so many that it is rejected as an image."""
    with file.open("rb") as opened:
        return opened.read(MAX_BYTES + 1)


def _inside(folder: Path, path: str) -> Path | None:
    """The file below `folder`; None for a path that leads out of it."""
    pure = PurePosixPath(path)
    return None if pure.is_absolute() or ".." in pure.parts or "\0" in path else folder / pure


def _plain_name(url: str) -> str:
    """The file name at the end of a URL's path, without characters that file systems reject."""
    try:
        path = urlsplit(url).path
    except ValueError:  # "http://[::1", which curl rejects too
        path = ""
    name = PurePosixPath(unquote(path)).name
    name = re.sub(r"[^\w.()+ -]", "_", name).lstrip(".-")
    suffix = PurePosixPath(name).suffix
    return (
        name if len(name) <= 120 else name[: 120 - len(suffix)] + suffix if suffix.lower() in SUFFIXES else name[:120]
    )


def _quoted(text: str) -> str:
    """A value of curl's configuration file. Control characters cannot stand in it."""
    text = re.sub(r"[\x00-\x1f\x7f]", "", text)
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
