"""Clicks of users in the catalog's format, for the next training."""

import json
import os
import threading
from pathlib import Path

from make_jax.errors import InputError


class ClickFile:
    """Appends lines of clicks.jsonl to a file. Safe to call from several threads and processes."""

    def __init__(self, path: Path) -> None:
        """InputError if the file cannot be opened."""
        try:
            self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        except OSError as error:
            raise InputError(f"--clicks {path}: {error.strerror}; expected a file that can be written") from None
        self._lock = threading.Lock()

    def add(self, query: str, product: str, lang: str) -> None:
        """Appends one click. A line is written in one call, so that lines of several writers never mix."""
        record = {"query": query, "product": product, **({"lang": lang} if lang else {})}
        line = (json.dumps(record, ensure_ascii=False) + "\n").encode()
        with self._lock:
            written = os.write(self._descriptor, line)
            if written < len(line):  # the disk is full: an incomplete line would damage the file
                os.ftruncate(self._descriptor, os.fstat(self._descriptor).st_size - written)
                raise OSError(28, "no space left for clicks")
