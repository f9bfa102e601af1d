"""An export of `convert.py export --to onnx` or `--to onnx-int8`, run by onnxruntime."""

from pathlib import Path
from typing import Any

import numpy as np

from make_jax.errors import InputError
from make_jax.evaluation.models.exported import Exported
from make_jax.extras import import_optional
from make_jax.inputs.batch import Batch
from make_jax.interop import bundle
from make_jax.interop.onnx_export import PRODUCT, QUERY


def matches(path: Path) -> bool:
    """Whether the folder is such an export."""
    return bundle.is_bundle(path) and (path / QUERY).is_file()


def load(path: Path) -> Exported:
    """The model, on CPU. Raises InputError for a missing or damaged file, and without onnxruntime."""
    path = Path(path)
    model_bundle = bundle.read_bundle(path)
    runtime = import_optional("onnxruntime", "onnx")
    queries, products = (_session(runtime, path / name) for name in (QUERY, PRODUCT))

    def query(batch: Batch) -> np.ndarray:
        return np.asarray(_run(queries, batch)[0])

    def product(batch: Batch) -> tuple[np.ndarray, np.ndarray]:
        vectors, weights = _run(products, batch)
        return vectors, weights

    return Exported(path, model_bundle, query, product)


def _session(runtime: Any, path: Path) -> Any:
    if not path.is_file():
        raise InputError(f"{path}: no such file, expected one that convert.py export wrote")
    try:
        return runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has no common base class
        raise InputError(f"{path}: onnxruntime cannot read it: {' '.join(str(error).split())[:200]}") from None


def _run(session: Any, batch: Batch) -> Any:
    """The outputs; a graph has only the inputs that it reads."""
    return session.run(None, {node.name: batch[node.name] for node in session.get_inputs()})
