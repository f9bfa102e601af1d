"""Libraries of extras: not everybody has them."""

import importlib
from typing import Any

from make_jax.errors import InputError


def import_optional(module: str, extra: str, what: str = "this") -> Any:
    """The library, imported, for `what` needs it. InputError that says what to install where it is missing."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        name = module.partition(".")[0]
        raise InputError(f"{what} needs {name} ({error}); install it: pip install 'make_jax[{extra}]'") from None
