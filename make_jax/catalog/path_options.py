"""Paths on the command line that must be local."""

import argparse
from functools import partial
from pathlib import Path
from typing import Any

from make_jax.errors import InputError
from make_jax.object_stores import is_url


def add_path(command: argparse.ArgumentParser, name: str, **settings: Any) -> None:
    """Adds an argument or option that is a local path. A URL is rejected as it was given: `Path` joins its slashes."""
    command.add_argument(name, type=partial(_local_path, settings.get("metavar", name)), **settings)


def _local_path(name: str, text: str) -> Path:
    if is_url(text):
        raise InputError(f"{text} is a URL, expected a path ({name}); {_ADVICE.get(name, 'download it first')}")
    return Path(text)


_ADVICE = {
    "SHEET.png": "copy the file there",
    "KEYWORDS.json": "copy the file there",
}
