"""Paths on the command line of an import, which must be local."""

import argparse
import re
from functools import partial
from pathlib import Path
from typing import Any

from make_jax.errors import InputError

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")


def add_path(command: argparse.ArgumentParser, name: str, **settings: Any) -> None:
    """Adds an argument or option that is a local path. A URL is rejected as it was given: `Path` joins its slashes."""
    command.add_argument(name, type=partial(_local_path, settings.get("metavar", name)), **settings)


def _local_path(name: str, text: str) -> Path:
    if _URL.match(text):
        raise InputError(f"{text} is a URL, expected a path ({name}); {_ADVICE.get(name, 'download it first')}")
    return Path(text)


_ADVICE = {"OUT": "copy the folder there after the import"}
