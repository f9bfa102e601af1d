"""Libraries of extras: not everybody has them."""

import importlib
from typing import Any

from make_jax.errors import InputError


def library(module: str, extra: str) -> Any:
    """The library, imported. InputError that says what to install where it is missing."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        name = module.partition(".")[0]
        raise InputError(f"this needs {name} ({error}); install it: pip install 'make_jax[{extra}]'") from None
