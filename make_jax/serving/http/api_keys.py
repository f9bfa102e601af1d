"""API keys, of which the server keeps hashes only.

A line of a key file is `NAME sha256:HEX`; `#` begins a comment. `add_key` makes keys of 256 random bits. No search
finds such a key from its hash, so one SHA-256 is enough; a slow hash (scrypt) would cost 50 ms a request and protects
only keys that a person invents.
"""

import hashlib
import os
import re
import secrets
from collections.abc import Mapping
from pathlib import Path

from make_jax.errors import InputError

VARIABLE = "MAKE_JAX_API_KEYS"  # environment; lines as in a file, or separated by commas
_LINE = re.compile(r"([\w.-]{1,64})\s+sha256:([0-9a-f]{64})", re.ASCII)


class ApiKeys:
    """The hashes of the keys that a server accepts; without any every client may search."""

    def __init__(self, names: Mapping[str, str] | None = None) -> None:
        """`names` are the names of keys by SHA-256 of the key in hexadecimal."""
        self._names = dict(names or {})

    def __len__(self) -> int:
        return len(self._names)

    def name(self, key: str) -> str | None:
        """The name of a key; None for a wrong one.

        A lookup of the hash is safe: its time depends on the hash of the attempt, which a client cannot choose.
        """
        return self._names.get(_digest(key))


def read_keys(path: str) -> ApiKeys:
    """Returns the keys of a file, or, for "", of the environment variable. InputError for a wrong line."""
    if path:
        where, lines = path, Path(path).read_text(encoding="utf-8").splitlines()
    else:
        where, lines = VARIABLE, os.environ.get(VARIABLE, "").replace(",", "\n").splitlines()
    names: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        text = line.partition("#")[0].strip()
        if not text:
            continue
        match = _LINE.fullmatch(text)
        if match is None:  # without the text, which may be a key
            raise InputError(
                f"{where}, line {number}: expected NAME sha256:HEX (search.py serve --new-key makes such lines)"
            )
        names[match[2]] = match[1]
    if path and not names:
        raise InputError(f"{path}: no key; search.py serve --new-key NAME --api-keys {path} adds one")
    return ApiKeys(names)


def add_key(path: Path, name: str) -> str:
    """Appends a new key to a file, which only its owner may read, and returns the key. It is stored nowhere else."""
    if not _LINE.fullmatch(f"{name} sha256:{'0' * 64}"):
        raise InputError(f"name of the key: {name!r}, expected at most 64 letters, digits, '.', '_', '-'")
    key = secrets.token_urlsafe(32)
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    with os.fdopen(descriptor, "a", encoding="utf-8") as file:
        file.write(f"{name} sha256:{_digest(key)}\n")
    return key


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()
