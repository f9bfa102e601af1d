"""Enrichment of a query by the keywords that it predicts."""

import jax
import jax.numpy as jnp
import numpy as np

from make_jax.model.keyword_enhancement import INITIAL_BIAS, KeywordEnhancement

B, D, V = 3, 8, 5


def test_expected_embedding_joins_the_query_through_the_gate():
    module = KeywordEnhancement(V)
    pooled = jax.random.normal(jax.random.key(0), (B, D))
    params = module.init(jax.random.key(1), pooled)["params"]
    outputs = module.apply({"params": params}, pooled)
    probabilities = 1 / (1 + np.exp(-np.asarray(outputs.logits)))
    np.testing.assert_allclose(outputs.logits, pooled @ params["predict"]["kernel"] + INITIAL_BIAS, atol=1e-5)
    expected = probabilities @ params["embedding"] / np.maximum(probabilities.sum(1, keepdims=True), 1)
    np.testing.assert_allclose(outputs.pooled, pooled + outputs.gate[:, None] * expected, atol=1e-5)
    assert ((outputs.gate > 0) & (outputs.gate < 1)).all()


def test_many_probable_keywords_weigh_no_more_than_one():
    module = KeywordEnhancement(V)
    pooled = jnp.ones((1, D))
    params = module.init(jax.random.key(1), pooled)["params"]
    params["embedding"] = jnp.ones((V, D))
    params["predict"]["bias"] = jnp.full(V, 20.0)  # all of them certain
    outputs = module.apply({"params": params}, pooled)
    np.testing.assert_allclose(outputs.pooled - pooled, np.full((1, D), outputs.gate[0]), rtol=1e-4)
