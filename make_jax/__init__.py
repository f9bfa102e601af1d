"""Product retrieval in JAX: a short text query finds products made of a title and an image.

The public API is the four names below. They are imported lazily, on first use: `import make_jax`,
`import make_jax.config` and data workers do not import jax. The import sets an XLA flag (`xla_flags.py`).
"""

import importlib
from typing import TYPE_CHECKING

from make_jax.xla_flags import disable_ynn_fusion

if TYPE_CHECKING:
    from make_jax.catalog.reader import Catalog
    from make_jax.config import Config
    from make_jax.model.make import Make
    from make_jax.retrieval.retriever import Retriever

__version__ = "0.1.0"
__all__ = ["Catalog", "Config", "Make", "Retriever"]

disable_ynn_fusion()  # here, since every program and every module of the package runs this file first

_MODULES = {
    "Catalog": "make_jax.catalog.reader",
    "Config": "make_jax.config",
    "Make": "make_jax.model.make",
    "Retriever": "make_jax.retrieval.retriever",
}


def __getattr__(name: str) -> object:
    """Imports a public name from its module on first use."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Returns all public names, imported or not."""
    return sorted({*globals(), *__all__})
