"""Property tests: of random batches, exactly the negatives of a reference on Python sets, in every implementation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import PartitionSpec

from make_jax.objectives.false_negatives import ContrastiveInputs, has_query_keywords
from tests.objectives.contrasts import (
    AXES,
    B,
    V,
    agree,
    formula,
    loss_of,
    mesh_of,
    negatives,
    packed,
    plain_example,
)

IMPLEMENTATIONS = [("gather", 0, 2), ("gather", 8, 2), ("ring", 0, 7), ("ring", 8, 2)]  # implementation, devices, tile


@pytest.fixture(scope="module")
def masked_on():
    """Functions example -> pairs masked by keywords, by device count; compiled once."""

    def function(devices: int):
        rows = PartitionSpec(AXES)

        def local(queries, products):
            everything = jax.tree.map(lambda x: jax.lax.all_gather(x, AXES, tiled=True), products)
            return has_query_keywords(queries, everything)

        mapped = jax.jit(jax.shard_map(local, mesh=mesh_of(devices), in_specs=(rows, rows), out_specs=rows))
        return lambda e: mapped(
            ContrastiveInputs(e["q"], e["qid"], e["qk"]), ContrastiveInputs(e["p"], e["pid"], e["pk"])
        )

    return {devices: function(devices) for devices in (1, 8)}


def sets(count: int, most: int = 4):
    return st.lists(st.frozensets(st.integers(0, V - 1), max_size=most), min_size=count, max_size=count)


def numbers(count: int, least: int, most: int):
    return st.lists(st.integers(least, most), min_size=count, max_size=count)


@settings(max_examples=60)
@given(query_keywords=sets(B), extra=sets(B), answers=numbers(B, 0, B - 1))
def test_keywords_mask_exactly_the_pairs_of_the_reference_sets(masked_on, query_keywords, extra, answers):
    """Products hold random sets, joined with the keywords of a query, so that subsets are frequent."""
    product_keywords = [own | query_keywords[query] for own, query in zip(extra, answers, strict=True)]
    e = plain_example() | {"qk": packed(query_keywords), "pk": packed(product_keywords)}
    expected = np.array([[bool(q) and q <= p for p in product_keywords] for q in query_keywords])
    for devices in (1, 8):
        np.testing.assert_array_equal(np.asarray(masked_on[devices](e)), expected)


@settings(max_examples=25)
@given(
    query_ids=numbers(B, -1, 2 * B),
    product_ids=numbers(B, -1, 2 * B),
    query_keywords=sets(B, 2),
    extra=sets(B, 3),
    answers=numbers(B, 0, 3 * B),
    weights=numbers(B, 0, 3),
    swapped=numbers(B, -1, 0),
    seed=st.integers(0, 3),
)
def test_every_implementation_has_exactly_the_negatives_of_the_reference_sets(
    query_ids, product_ids, query_keywords, extra, answers, weights, swapped, seed
):
    """In value, gradient and masked share; at scale 1 every pair contributes visibly."""
    weights = [max(weights[0], 1), *weights[1:]]
    product_keywords = [
        own | (query_keywords[query] if query < B else set()) for own, query in zip(extra, answers, strict=True)
    ]
    arrays = {"qid": query_ids, "pid": product_ids, "sid": swapped}
    e = plain_example(seed) | {name: jnp.asarray(ids, jnp.int32) for name, ids in arrays.items()}
    e |= {name: jnp.asarray(packed(of)) for name, of in (("qk", query_keywords), ("pk", product_keywords))}
    e |= {"w": jnp.asarray(weights, jnp.float32), "s": jnp.float32(0.0)}
    weighted = (np.asarray(weights) > 0)[:, None] & (np.asarray(weights) > 0)[None, :] & ~np.eye(B, dtype=bool)
    masked = np.mean(weighted & ~negatives(e), axis=1)
    expected = formula("softmax", 0.2)(e)
    for implementation, devices, tile in IMPLEMENTATIONS:
        (value, metrics), gradients = loss_of(implementation, devices, tile=tile)(e)
        agree((value, gradients), expected)
        agree(metrics["masked"], np.sum(weights * masked) / np.sum(weights))
