"""Keyword evidence: the keyword dimensions of search embeddings, and the weights of the modalities in them."""

from dataclasses import replace
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from make_jax.model.keyword_evidence import (
    EPS,
    EXCLUSION,
    SCORE_NORM,
    KeywordEvidence,
    ModalityEmbedding,
    concat_keyword_scores,
    query_keyword_vector,
    unpack_keywords,
)
from make_jax.model.make import Make
from tests.model.test_make import FORMS, INPUTS, TINY, VOCABULARY, batch

V = 7
GROUPS = (0, 0, 1, 0, 2, 1, 3)
ROWS = ("title_tokens", "title_mask", "image", "has_title", "has_image")
SETS = [{0, 3}, set(), {6}, {1, 2, 4, 5}]
PACKED = jnp.asarray([[sum(1 << k for k in keywords)] for keywords in SETS], jnp.uint32)


@cache
def made(form: str, keywords: int = V) -> tuple[Make, Any]:
    """A model with random heads, as if they had been fitted."""
    model = Make(replace(TINY, adaptation=FORMS[form]), INPUTS, VOCABULARY, keywords, GROUPS)
    params = jax.jit(model.init)(jax.random.key(0), batch())["params"]
    heads = params["keyword_evidence"]
    for number, name in enumerate(name for name in heads if name != "known"):
        kernel = heads[name]["predict"]["kernel"]
        heads[name]["predict"]["kernel"] = jax.random.normal(jax.random.key(number), kernel.shape)
    heads["known"] = jnp.linspace(-4.0, 0.0, keywords)
    return model, params


@cache
def program(form: str) -> Any:
    """(parameters, rows) -> modality embeddings, and product embeddings without and with keyword scores."""
    model, _ = made(form)

    @jax.jit
    def run(params: Any, rows: Any) -> Any:
        p = {"params": params}
        return (
            model.apply(p, *(rows[n] for n in ROWS), method=Make.modality_embeddings),
            model.apply(p, *(rows[n] for n in ROWS), method=Make.product_outputs)[0],
            model.apply(p, *(rows[n] for n in ROWS), method=Make.product_embedding),
        )

    return run


def by_hand(heads: Any, directions: dict[str, Any], weights: np.ndarray | None) -> Any:
    """Keyword scores and weights, product by product."""
    evidence, shares = [], []
    for row in range(len(batch()["image"])):
        logits, unscaled = [], []
        for m, (name, found) in enumerate(directions.items()):
            d = np.asarray(found.vectors[row], np.float64)
            d = d / max(np.linalg.norm(d), 1e-12) * len(d) ** 0.5
            inner, outer = heads[name]["hidden"], heads[name]["predict"]
            z = np.asarray(jax.nn.gelu(d @ inner["kernel"] + inner["bias"])) @ outer["kernel"] + outer["bias"]
            weight = np.sqrt(np.maximum(z - heads["known"], 1)) if weights is None else np.full(V, weights[row, m])
            logits.append(z)
            unscaled.append(weight * np.asarray(found.present[row]))
        total = np.sum(unscaled, 0)
        z = np.sum(np.array(unscaled) * logits, 0) / total
        raised = z - heads["known"]
        strongest = np.array([max(raised[j] for j in range(V) if GROUPS[j] == GROUPS[k]) for k in range(V)])
        z = z - EXCLUSION * (strongest - raised)
        probabilities = 1 / (1 + np.exp(-z))
        evidence.append(np.log(1 + probabilities / EPS) / np.log(1 + 1 / EPS) / SCORE_NORM)
        shares.append(np.sum(np.array(unscaled) / total * probabilities, 1) / probabilities.sum())
    return np.array(evidence), np.array(shares)


@pytest.mark.parametrize("form", FORMS)
def test_search_embeddings_are_embedding_and_keyword_scores(form):
    model, params = made(form)
    directions, read, product = program(form)(params, batch())
    single = form in ("title", "image", "single stream")
    directions = {name: directions[name] for name in (["product"] if single else ["title", "image"])}
    weights = np.asarray(read.weights) if form in ("full", "no cross-attention", "mean") else None
    evidence, shares = by_hand(jax.tree.map(np.asarray, params["keyword_evidence"]), directions, weights)
    expected = np.concatenate([read.vectors, TINY.keyword_scale * evidence], axis=1)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    assert model.search_dim == TINY.embedding_dim + V
    np.testing.assert_allclose(product.vectors, expected, rtol=2e-3, atol=1e-5)
    np.testing.assert_allclose(product.weights, read.weights if single else shares, rtol=2e-3, atol=1e-5)


def test_query_embeddings_contain_the_keywords_of_the_query():
    model, params = made("per_keyword")
    rows = batch()
    given = (rows["query_tokens"], rows["query_mask"])
    vectors = jax.jit(lambda *a: model.apply({"params": params}, *a, method=Make.query_embedding))(*given, PACKED)
    plain = jax.jit(lambda *a: model.apply({"params": params}, *a, method=Make.query_outputs))(*given).vectors
    held = np.array([[k in keywords for k in range(V)] for keywords in SETS], np.float64)
    held /= np.maximum(1, np.linalg.norm(held, axis=1, keepdims=True))
    expected = np.concatenate([plain, TINY.keyword_scale * held], axis=1)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(vectors, expected, atol=1e-5)


def test_a_product_with_both_keywords_beats_one_with_a_higher_probability_of_one():
    """The reason for a sum of logarithms: with a sum of probabilities the two products would tie."""
    query = query_keyword_vector(jnp.array([[3]], jnp.uint32), 2)
    nothing = jnp.zeros((1, 4))
    head = {"hidden": {"kernel": jnp.zeros((4, 8)), "bias": jnp.zeros(8)}}
    scores = []
    for p in ([0.5, 0.5], [0.99, 0.01]):
        bias = jnp.log(jnp.array(p)) - jnp.log1p(-jnp.array(p))
        params = {"known": jnp.zeros(2), "product": head | {"predict": {"kernel": jnp.zeros((8, 2)), "bias": bias}}}
        keywords = KeywordEvidence(2, (0, 1)).apply(
            {"params": params}, {"product": ModalityEmbedding(nothing, jnp.ones(1, bool))}, jnp.full((1, 2), 0.5)
        )
        vector = concat_keyword_scores(nothing, keywords.scores, 1.0)
        scores.append(float((concat_keyword_scores(nothing, query, 1.0) @ vector.T)[0, 0]))
    assert scores[0] > 1.4 * scores[1]


def test_a_stronger_keyword_lowers_those_of_its_exclusion_group_and_no_others():
    """The strongest keyword of a group, and a keyword alone in its group, are unchanged."""
    head = {"hidden": {"kernel": jnp.zeros((4, 8)), "bias": jnp.zeros(8)}}
    bias = jnp.array([3.0, 1.0, 1.0])
    params = {"known": jnp.zeros(3), "product": head | {"predict": {"kernel": jnp.zeros((8, 3)), "bias": bias}}}
    product = {"product": ModalityEmbedding(jnp.zeros((1, 4)), jnp.ones(1, bool))}
    separate = KeywordEvidence(3, (0, 1, 2)).apply({"params": params}, product, jnp.full((1, 2), 0.5)).scores[0]
    competing = KeywordEvidence(3, (0, 0, 1)).apply({"params": params}, product, jnp.full((1, 2), 0.5)).scores[0]
    assert separate[0] == competing[0] and separate[2] == competing[2]
    expected = jnp.log1p(jax.nn.sigmoid(1.0 - EXCLUSION * 2.0) / EPS) / jnp.log1p(1 / EPS) / SCORE_NORM
    np.testing.assert_allclose(competing[1], expected, rtol=1e-5)
    assert competing[1] < separate[1]


def test_unfitted_heads_change_no_ranking():
    model = Make(replace(TINY, adaptation=FORMS["per_keyword"]), INPUTS, VOCABULARY, V)
    params = jax.jit(model.init)(jax.random.key(0), batch())["params"]
    _, read, product = program("per_keyword")(params, batch())
    added = np.asarray(product.vectors)[:, TINY.embedding_dim :]
    assert (added == added[0, 0]).all()
    np.testing.assert_allclose(
        product.vectors[:, : TINY.embedding_dim] / product.vectors[0, 0],
        read.vectors / read.vectors[0, 0],
        rtol=1e-4,
        atol=1e-5,
    )


def test_without_cross_attention_embeddings_of_the_modalities_are_independent():
    before, _, _ = program("no cross-attention")(made("no cross-attention")[1], batch())
    changed = batch() | {"image": 255 - batch()["image"]}
    after, _, _ = program("no cross-attention")(made("no cross-attention")[1], changed)
    np.testing.assert_array_equal(before["title"].vectors, after["title"].vectors)
    assert not np.allclose(before["image"].vectors, after["image"].vectors)


@pytest.mark.parametrize(("evidence", "keywords", "width"), [(0, V, 16), (3, V, 19), (512, V, 16 + V), (512, 0, 16)])
def test_search_dim_follows_the_config_and_the_vocabulary(evidence, keywords, width):
    model = Make(replace(TINY, keyword_dims=evidence), INPUTS, VOCABULARY, keywords)

    def both() -> Any:
        rows = batch()
        params = model.init(jax.random.key(0), rows)
        query_keywords = jnp.zeros((4, -(-keywords // 32)), jnp.uint32)
        return (
            model.apply(params, rows["query_tokens"], rows["query_mask"], query_keywords, method=Make.query_embedding),
            model.apply(params, *(rows[n] for n in ROWS), method=Make.product_embedding).vectors,
        )

    query, product = jax.eval_shape(both)
    assert model.search_dim == width == query.shape[1] == product.shape[1]


def test_sets_are_unpacked_in_the_order_of_the_vocabulary():
    held = [[float(k in keywords) for k in range(V)] for keywords in SETS]
    np.testing.assert_array_equal(unpack_keywords(PACKED, V), held)
    np.testing.assert_array_equal(unpack_keywords(PACKED, 3), np.array(held)[:, :3])
