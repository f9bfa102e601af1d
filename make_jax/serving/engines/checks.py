"""Checks of what engines are given, the same for all of them."""

import numpy as np
from jaxtyping import Int64

from make_jax.errors import InputError
from make_jax.serving.engines import EngineQuery, Rows


def check_vector(query: EngineQuery, width: int) -> None:
    """Raises InputError for a query vector of another width, or with values that are not finite."""
    if query.vector is None:
        return
    if query.vector.shape != (width,):
        raise InputError(f"the query's vector has shape {query.vector.shape}, expected ({width},) as in the index")
    if not np.isfinite(query.vector).all():
        raise InputError("the query's vector has values that are not finite numbers")


def count_after(count: int, replaced: Rows, deleted: Int64[np.ndarray, " n"]) -> int:
    """The number of rows after an update of `count` rows. Raises InputError for a row that is none of them."""
    after = max(count, 1 + int(replaced.rows.max(initial=-1)))
    if deleted.max(initial=-1) >= after or min(deleted.min(initial=0), replaced.rows.min(initial=0)) < 0:
        raise InputError(f"an update names a row that is not among the {after:,} of the index")
    return after
