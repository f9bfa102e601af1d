"""An export of `convert.py export --to stablehlo`, run by JAX without the model's code."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import export

from make_jax.errors import InputError
from make_jax.evaluation.models.exported import Exported
from make_jax.inputs.batch import PRODUCT_INPUTS, Batch, pad_batch
from make_jax.interop import bundle
from make_jax.interop.stablehlo_export import PRODUCT, QUERY, check_libraries

_QUERY_INPUTS = ("query_tokens", "query_mask", "query_keywords")


def matches(path: Path) -> bool:
    """Whether the folder is such an export."""
    return bundle.is_bundle(path) and (path / QUERY).is_file()


def load(path: Path) -> Exported:
    """The model, on the first device. Raises InputError for a missing or damaged file."""
    path = Path(path)
    model_bundle = bundle.read_bundle(path)
    check_libraries()
    queries, products = (_function(path / name) for name in (QUERY, PRODUCT))

    def query(batch: Batch) -> np.ndarray:
        return np.asarray(_call(queries, batch, _QUERY_INPUTS))

    def product(batch: Batch) -> tuple[np.ndarray, np.ndarray]:
        vectors, weights = _call(products, batch, PRODUCT_INPUTS)
        return np.asarray(vectors), np.asarray(weights)

    return Exported(path, model_bundle, query, product)


def _function(path: Path) -> Any:
    if not path.is_file():
        raise InputError(f"{path}: no such file, expected one that convert.py export wrote")
    try:
        return jax.jit(export.deserialize(bytearray(path.read_bytes())).call)
    except Exception as error:  # jax.export has no common base class
        raise InputError(f"{path}: jax.export cannot read it: {' '.join(str(error).split())[:200]}") from None


def _call(function: Any, batch: Batch, names: tuple[str, ...]) -> Any:
    """The outputs of the batch, padded to a power of two of rows, because each row count compiles a program."""
    count = len(batch[names[0]])
    rows = pad_batch({name: batch[name] for name in names}, 1 << (count - 1).bit_length())
    return jax.tree.map(lambda output: output[:count], function(*rows.values()))
