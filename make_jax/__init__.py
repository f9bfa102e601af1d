"""Product retrieval in JAX: a short text query finds products made of a title and an image.

The public surface is the four names below. Each is imported when it is first asked for, so that `import make_jax`,
`import make_jax.config` and a data worker stay free of jax.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from make_jax.catalog.reader import Catalog
    from make_jax.config import Config
    from make_jax.model.make import Make
    from make_jax.retrieval.retriever import Retriever

__version__ = "0.1.0"
__all__ = ["Catalog", "Config", "Make", "Retriever"]

_HOMES = {
    "Catalog": "make_jax.catalog.reader",
    "Config": "make_jax.config",
    "Make": "make_jax.model.make",
    "Retriever": "make_jax.retrieval.retriever",
}


def __getattr__(name: str) -> object:
    """The public name, imported from where it is defined and kept for the next time."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """The public names, whether they have been imported yet or not."""
    return sorted({*globals(), *__all__})
