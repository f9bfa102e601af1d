"""A Python file that defines `encoder`; docs/models.md has an example of 20 lines."""

import runpy
from pathlib import Path

from make_jax.errors import InputError
from make_jax.retrieval.embed import EmbeddingModel, Encoder, PrecomputedVectors


def matches(path: Path) -> bool:
    """Whether the path is a Python file."""
    return path.suffix == ".py" and path.is_file()


def load(path: Path) -> EmbeddingModel:
    """The `encoder` that the file defines. The file is executed: the user names it, no folder can.

    Exceptions of its code are not caught, because its author needs the traceback.
    """
    encoder = runpy.run_path(str(path)).get("encoder")
    if isinstance(encoder, PrecomputedVectors):
        return encoder
    if isinstance(encoder, Encoder):
        return encoder
    expected = "an object with modalities, encode_queries and encode_products (docs/models.md)"
    found = "nothing of that name" if encoder is None else f"a {type(encoder).__name__}"
    raise InputError(f"{path}: `encoder` is {found}, expected {expected}")
