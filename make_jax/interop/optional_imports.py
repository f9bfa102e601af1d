"""Imports of libraries that are optional extras of make_jax."""

import importlib
from typing import Any

from make_jax.errors import InputError


def import_optional(module: str, extra: str, what: str = "this") -> Any:
    """Returns the imported module. InputError if it is missing: `what` needs it, and which extra to install."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        name = module.partition(".")[0]
        raise InputError(f"{what} needs {name} ({error}); install it: pip install 'make_jax[{extra}]'") from None
