"""Where PyTorch computes."""

from make_jax.interop.libraries import library


def best_device() -> str:
    """A GPU if PyTorch has one. InputError without PyTorch."""
    return "cuda" if library("torch", "models").cuda.is_available() else "cpu"
