"""Enrichment of a query by the keywords that it predicts."""

import jax
import jax.numpy as jnp
import numpy as np

from make_jax.model.keyword_enhancement import RARE, KeywordEnhancement

B, D, V = 3, 8, 5


def test_expected_embedding_joins_the_query_through_the_gate():
    module = KeywordEnhancement(V)
    pooled = jax.random.normal(jax.random.key(0), (B, D))
    params = module.init(jax.random.key(1), pooled)["params"]
    found = module.apply({"params": params}, pooled)
    likely = 1 / (1 + np.exp(-np.asarray(found.logits)))
    np.testing.assert_allclose(found.logits, pooled @ params["predict"]["kernel"] + RARE, atol=1e-5)
    expected = likely @ params["embedding"] / np.maximum(likely.sum(1, keepdims=True), 1)
    np.testing.assert_allclose(found.pooled, pooled + found.gate[:, None] * expected, atol=1e-5)
    assert ((found.gate > 0) & (found.gate < 1)).all()


def test_many_probable_keywords_weigh_no_more_than_one():
    module = KeywordEnhancement(V)
    pooled = jnp.ones((1, D))
    params = module.init(jax.random.key(1), pooled)["params"]
    params["embedding"] = jnp.ones((V, D))
    params["predict"]["bias"] = jnp.full(V, 20.0)  # all of them certain
    found = module.apply({"params": params}, pooled)
    np.testing.assert_allclose(found.pooled - pooled, np.full((1, D), found.gate[0]), rtol=1e-4)
