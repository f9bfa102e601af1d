"""The fingerprint of the examples that a run has read."""

import jax
import numpy as np
import pytest

from make_jax.runs.mesh import make_mesh, shard_batch
from make_jax.training.data_fingerprint import make_fingerprint_update


def fingerprint(batches, devices=8, previous=0):
    mesh = make_mesh(devices=jax.devices()[:devices])
    update = make_fingerprint_update(mesh)
    for query, product in batches:
        batch = {"query_id": np.asarray(query, np.int32), "product_id": np.asarray(product, np.int32)}
        previous = update(np.uint32(previous), shard_batch(batch, mesh))
    return int(previous)


ROWS = np.arange(16)
BATCHES = [(ROWS, ROWS * 3), (ROWS + 5, ROWS)]


def test_the_fingerprint_does_not_depend_on_the_device_count():
    assert len({fingerprint(BATCHES, devices) for devices in (1, 2, 8)}) == 1


def test_continuing_from_a_fingerprint_equals_an_uninterrupted_run():
    assert fingerprint(BATCHES[1:], previous=fingerprint(BATCHES[:1])) == fingerprint(BATCHES)


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
def test_other_examples_have_another_fingerprint(other):
    assert fingerprint(other) != fingerprint(BATCHES)
