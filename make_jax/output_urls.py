"""New folders that programs write to a local path or to a URL, of which the mirror is written and then uploaded."""

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

from make_jax.errors import InputError
from make_jax.object_stores import Layout, Mirror, is_url


@contextlib.contextmanager
def output_folder(path: str, last: str) -> Iterator[Path]:
    """Yields the local folder to write; of a URL its mirror, which is uploaded after a block without an error.

    The file `last`, without which the folder is not used, is uploaded after all others.

    Raises InputError when the store cannot be used or has files there already. If an earlier call was interrupted
    during the upload, it uploads the rest of that result and raises InputError that states so.
    """
    if not is_url(path):
        yield Path(path)
        return
    mirror = Mirror(path, Layout(first=rf"(?!{re.escape(last)}$).*"))
    stored = mirror.stored()
    if last in stored or (stored and not mirror.path.exists()):
        raise InputError(f"{mirror.url}: exists already, expected a new name; remove it or choose another")
    if (mirror.path / last).exists():
        mirror.push()
        raise InputError(f"{mirror.url}: an earlier result, whose upload was interrupted, is complete there now")
    yield mirror.path
    mirror.push()
