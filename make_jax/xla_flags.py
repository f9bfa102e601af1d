"""Sets the XLA flag without which jaxlib 0.10.2 miscomputes on CPU; called at `import make_jax`. Imports no jax.

XLA offloads reductions and matrix products on CPU to YNNPACK. In jaxlib 0.10.2 (not in 0.10.1, not from 0.11.0 on) a
product followed by a reduction gives wrong values, as in `jax.vmap(lambda row: jnp.sum((matrix @ row) ** 2))` over
32,769 rows, and a reduction of an array of rank 7 can end the process by a segmentation fault:
https://github.com/jax-ml/jax/issues/39103 and https://github.com/jax-ml/jax/issues/40412.
"""

import importlib.metadata
import os
import sys
import warnings
from pathlib import Path

AFFECTED = "0.10.2"  # of jaxlib
FLAG = "--xla_cpu_experimental_ynn_fusion_type"
_DISABLED = f"{FLAG}="  # an empty list of fusions
_PROBLEM = f"jaxlib {AFFECTED} miscomputes some reductions on CPU"


def disable_ynn_fusion() -> None:
    """Appends the flag that disables YNNPACK fusions to XLA_FLAGS, for this process and those that it starts.

    Changes nothing with another jaxlib, or where XLA_FLAGS has the flag with any value. Warns where it has no effect:
    jax has already started its backends, which read XLA_FLAGS once, or XLA_FLAGS names a file of flags.
    """
    if _jaxlib_version() != AFFECTED:
        return
    flags = os.environ.get("XLA_FLAGS", "").strip()
    if flags and not flags.startswith("--"):  # XLA reads it as the name of a file
        if FLAG not in _read(Path(flags)):
            _warn(f"{_PROBLEM}: add the line {_DISABLED} to {flags}, which XLA_FLAGS names")
        return
    if FLAG in flags:
        return
    os.environ["XLA_FLAGS"] = f"{flags} {_DISABLED}".strip()
    if _backends_are_initialized():
        _warn(f"{_PROBLEM}, and jax has already started: import make_jax before, or set XLA_FLAGS={_DISABLED}")


def _jaxlib_version() -> str:
    """The installed version; "" without jaxlib."""
    try:
        return importlib.metadata.version("jaxlib")
    except importlib.metadata.PackageNotFoundError:
        return ""


def _backends_are_initialized() -> bool:
    """Whether jax has read XLA_FLAGS. A private module of jax, but of one version only."""
    bridge = sys.modules.get("jax._src.xla_bridge")
    return bridge is not None and bool(bridge.backends_are_initialized())


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        return ""  # XLA reports a missing file itself


def _warn(message: str) -> None:
    warnings.warn(message, RuntimeWarning, stacklevel=3)
