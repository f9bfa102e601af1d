"""Parquet files with the columns `id` and `vector`."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from make_jax.errors import InputError


@contextlib.contextmanager
def open_parquet(path: Path, advice: str) -> Iterator[Any]:
    """A `pyarrow.parquet.ParquetFile` whose pages are verified as they are read and which is not held in memory.

    Raises InputError for a missing or damaged file, also while it is read; `advice` ends the message.
    """
    import pyarrow  # type: ignore[import-untyped]
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(
            path, page_checksum_verification=True, pre_buffer=False, buffer_size=1 << 20, memory_map=False
        ) as file:
            yield file
    except FileNotFoundError:
        raise InputError(f"{path}: missing; {advice}") from None
    except (pyarrow.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{path}: damaged or cut short ({reason}); {advice}") from None


def check_columns(path: Path, schema: Any) -> None:
    """Raises InputError unless the file has the columns id and vector, and vector is of lists."""
    import pyarrow

    if not {"id", "vector"} <= set(schema.names):
        raise InputError(f"{path}: columns {', '.join(schema.names)}, expected the columns id and vector")
    types, column_type = pyarrow.types, schema.field("vector").type
    if not (types.is_fixed_size_list(column_type) or types.is_list(column_type) or types.is_large_list(column_type)):
        raise InputError(f"{path}: vector is of type {column_type}, expected lists of float16 or float32")


def vector_matrix(column: Any, path: Path, width: int | None = None) -> np.ndarray:
    """A column of lists as [n, width], where possible a view of what Parquet read; `width` None: that of the first.

    Raises InputError for nulls, for lists of another length, and for lists that hold no floats.
    """
    import pyarrow

    flat = column.flatten()
    if width is None:
        width = len(flat) // max(len(column), 1)
    ragged = len(flat) != len(column) * width
    if not pyarrow.types.is_fixed_size_list(column.type):
        ragged = ragged or not np.array_equal(column.value_lengths(), np.full(len(column), width))
    floats = pyarrow.types.is_floating(column.type.value_type)
    if ragged or not width or column.null_count or flat.null_count or not floats:
        raise InputError(
            f"{path}: vector has nulls, lists that are empty or of differing lengths, or no floats, expected lists of "
            f"{width or 'as many'} numbers"
        )
    rows: np.ndarray = flat.to_numpy(zero_copy_only=False).reshape(len(column), width)
    return rows
