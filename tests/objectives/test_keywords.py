"""KEY against a plain reference."""

import jax.numpy as jnp
import numpy as np

from make_jax.model.keyword_evidence import unpack_keywords
from make_jax.objectives.keywords import keyword_loss

V = 40
SETS = [{0, 31, 32, 39}, set(), {5}, {33, 34}]
PACKED = jnp.asarray(
    [[sum(1 << k % 32 for k in keywords if k // 32 == word) for word in range(2)] for keywords in SETS], jnp.uint32
)


def test_unpacked_sets_hold_a_one_for_each_member():
    np.testing.assert_array_equal(
        unpack_keywords(PACKED, V), [[float(k in keywords) for k in range(V)] for keywords in SETS]
    )


def test_loss_is_the_weighted_mean_of_summed_cross_entropies():
    rng = np.random.default_rng(0)
    logits, weights = rng.normal(size=(4, V)).astype(np.float32), np.array([1, 2, 0, 0.5], np.float32)
    likely = 1 / (1 + np.exp(-logits.astype(np.float64)))
    wanted = [
        -sum(np.log(likely[row, k] if k in keywords else 1 - likely[row, k]) for k in range(V))
        for row, keywords in enumerate(SETS)
    ]
    found = keyword_loss(jnp.asarray(logits), PACKED, jnp.asarray(weights)).value
    np.testing.assert_allclose(found, np.dot(weights, wanted) / weights.sum(), rtol=1e-5)
    assert keyword_loss(jnp.asarray(logits), PACKED, jnp.zeros(4, jnp.float32)).value == 0
