"""Optional extras of make_jax: importing their libraries, and the command that installs an extra."""

import importlib
import importlib.metadata
import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

from make_jax.errors import InputError

PACKAGE = "make_jax"
TORCH_EXTRAS = ("torch", "models", "onnx")
CPU_TORCH = "pip install torch torchvision --index-url https://download.pytorch.org/whl/cpu"


def import_optional(module: str, extra: str, what: str = "this") -> Any:
    """Returns the imported module. InputError if it is missing: `what` needs it, and the command that installs it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        name = module.partition(".")[0]
        raise InputError(f"{what} needs {name} ({error}); install it: {install_advice(extra)}") from None


def install_advice(extra: str) -> str:
    """Returns the command that installs an extra, preceded by that of PyTorch without CUDA if PyTorch is missing.

    PyPI's PyTorch for Linux brings gigabytes of CUDA libraries.
    """
    command = install_command(extra)
    if extra in TORCH_EXTRAS and sys.platform == "linux" and importlib.util.find_spec("torch") is None:
        return f"{command} (without a GPU, first {CPU_TORCH}, or pip downloads gigabytes of CUDA libraries)"
    return command


def install_command(extra: str) -> str:
    """Returns the pip command that adds an extra to this installation: a clone, or a package from where it came."""
    root = Path(__file__).resolve().parents[1]
    project = root / "pyproject.toml"
    if project.is_file() and f'name = "{PACKAGE}"' in project.read_text(encoding="utf-8"):
        return f"pip install -e '{'.' if Path.cwd() == root else root}[{extra}]'"
    origin = _origin()
    return f"pip install '{PACKAGE}[{extra}]{f' @ {origin}' if origin else ''}'"


def _origin() -> str:
    """The URL of the file or repository that the package was installed from (PEP 610); "" for a package index."""
    try:
        text = importlib.metadata.distribution(PACKAGE).read_text("direct_url.json")
    except importlib.metadata.PackageNotFoundError:
        return ""
    origin = json.loads(text) if text else {}
    if "vcs_info" in origin:
        return f"{origin['vcs_info']['vcs']}+{origin['url']}@{origin['vcs_info']['commit_id']}"
    return str(origin.get("url", ""))
