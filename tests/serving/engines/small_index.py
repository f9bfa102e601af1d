"""A random index that all tests of engines share, with ties, lists, missing values and products without a vector."""

import numpy as np

from make_jax.catalog.attributes import AttributeValue
from make_jax.serving.engines import EngineResult, Rows

WIDTH = 16
ROUNDING = 1e-6  # of float32 scores of at most 2
COUNT = 150
BRANDS = ("Nike", "nike", "Adidas", "Ünder", "")
WORDS = ("red", "blue", "running", "shoes", "t-shirt", "watch", "红色", "连衣裙", "women's", "2024")


def small_rows(count: int = COUNT, seed: int = 0, first: int = 0) -> Rows:
    """Rows `first`, `first + 1`, ...; a third of the vectors repeat, and one in 19 is zero."""
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((count, WIDTH)).astype(np.float32)
    vectors[2::3] = vectors[: len(vectors[2::3])]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors[7::19] = 0
    titles = [" ".join(rng.choice(WORDS, rng.integers(0, 6))) for _ in range(count)]
    return Rows(first + np.arange(count), vectors, titles, [_attributes(rng) for _ in range(count)])


def _attributes(rng: np.random.Generator) -> dict[str, AttributeValue]:
    values: dict[str, AttributeValue] = {
        "brand": str(rng.choice(BRANDS)),
        "price": float(rng.integers(5, 20)) + float(rng.choice([0, 0.5, 0.99])),
        "year": int(rng.integers(2010, 2015)),
        "sizes": tuple(str(size) for size in rng.choice(["S", "M", "L", "10"], rng.integers(1, 4))),
        "mixed": [3, 3.5, "3", "Three", True][rng.integers(5)],
        "in stock": bool(rng.integers(2)),
        'odd".name[0]': "x",
    }
    return {name: value for name, value in values.items() if value != "" and rng.random() < 0.8}


def queries(count: int, seed: int = 1) -> np.ndarray:
    """Unit vectors."""
    vectors = np.random.default_rng(seed).standard_normal((count, WIDTH)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def assert_same(result: EngineResult, expected: EngineResult, ordered_by: str = "score") -> None:
    """Equal results; scores are equal within their summation order, and rows may change places within that."""
    assert (result.total, result.total_is_exact) == (expected.total, expected.total_is_exact)
    if ordered_by == "score":
        assert_same_ranking(result, expected)
    else:
        np.testing.assert_array_equal(result.rows, expected.rows)
    for name in ("scores", "dense", "lexical"):
        found, right = (dict(zip(side.rows.tolist(), getattr(side, name), strict=True)) for side in (result, expected))
        both = sorted(found.keys() & right.keys())
        np.testing.assert_allclose(
            [found[row] for row in both], [right[row] for row in both], rtol=2e-6, atol=ROUNDING, err_msg=name
        )
    assert [(name, list(facet.items())) for name, facet in result.facets.items()] == [
        (name, list(facet.items())) for name, facet in expected.facets.items()
    ]
    assert result.facet_stats == expected.facet_stats


def assert_same_ranking(result: EngineResult, expected: EngineResult) -> None:
    """The scores descend as expected; rows differ only where scores are within rounding; equal scores go by row."""
    np.testing.assert_allclose(result.scores, expected.scores, rtol=2e-6, atol=ROUNDING)
    places = {row: place for place, row in enumerate(expected.rows.tolist())}
    for place, (row, score) in enumerate(zip(result.rows.tolist(), result.scores, strict=True)):
        if expected.rows[place] != row:
            other = expected.scores[places[row]] if row in places else expected.scores[[0, -1]]
            assert np.abs(other - score).min() <= 4 * ROUNDING, f"row {row} at place {place}"
    ties = np.diff(result.scores) == 0
    assert (np.diff(result.rows)[ties] > 0).all(), "equal scores are not ordered by row"
