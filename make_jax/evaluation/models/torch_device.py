"""Where PyTorch computes."""

from make_jax.interop.optional_imports import import_optional


def best_device() -> str:
    """A GPU if PyTorch has one. InputError without PyTorch."""
    return "cuda" if import_optional("torch", "models").cuda.is_available() else "cpu"
