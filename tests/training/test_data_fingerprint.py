"""The number that tells which examples a run has read."""

import jax
import numpy as np
import pytest

from make_jax.runs.mesh import make_mesh, shard_batch
from make_jax.training.data_fingerprint import make_fold


def fold(batches, devices=8, seen=0):
    mesh = make_mesh(devices=jax.devices()[:devices])
    compiled = make_fold(mesh)
    for query, product in batches:
        batch = {"query_id": np.asarray(query, np.int32), "product_id": np.asarray(product, np.int32)}
        seen = compiled(np.uint32(seen), shard_batch(batch, mesh))
    return int(seen)


ROWS = np.arange(16)
BATCHES = [(ROWS, ROWS * 3), (ROWS + 5, ROWS)]


def test_any_count_of_devices_tells_the_same_number():
    assert len({fold(BATCHES, devices) for devices in (1, 2, 8)}) == 1


def test_going_on_from_a_number_is_the_same_as_not_having_stopped():
    assert fold(BATCHES[1:], seen=fold(BATCHES[:1])) == fold(BATCHES)


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(BATCHES[::-1], id="order of batches"),
        pytest.param([(ROWS[::-1], ROWS[::-1] * 3), BATCHES[1]], id="order of rows"),
        pytest.param([(ROWS, np.where(ROWS == 7, 1, ROWS * 3)), BATCHES[1]], id="one product"),
        pytest.param([(np.where(ROWS == 0, 9, ROWS), ROWS * 3), BATCHES[1]], id="one query"),
        pytest.param(BATCHES[:1], id="one batch less"),
    ],
)
def test_another_number_for_other(other):
    assert fold(other) != fold(BATCHES)
