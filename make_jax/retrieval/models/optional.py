"""Libraries that only some models need."""

import importlib
from types import ModuleType
from typing import Any

from make_jax.errors import InputError


def needed(module: str, what: str) -> Any:
    """The library, imported. InputError, with what to install, when it is missing."""
    try:
        found: ModuleType = importlib.import_module(module)
    except ImportError as error:
        raise InputError(f"{what} needs {module} ({error}); install it: pip install 'make_jax[models]'") from None
    return found


def best_device() -> str:
    """Where PyTorch computes: on a GPU if it has one."""
    torch = needed("torch", "this model")
    return "cuda" if torch.cuda.is_available() else "cpu"
