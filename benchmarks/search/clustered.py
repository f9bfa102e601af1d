"""Products of `engines.py`: vectors around centers, as those of a catalog are, with titles and attributes."""

from collections.abc import Iterator

import numpy as np

from make_jax.serving.engines import Rows

ROWS = 4096  # made at once
_WORDS = 5000
_TITLE_WORDS = 8
_NOISE = 1.0  # length of the deviation from a center, whose length is 1
_QUERY_NOISE = 0.7  # length of the deviation of a query from a product
_PRODUCTS_PER_CENTER = 200


class Clustered:
    """`count` products of unit vectors, a pure function of the seed and the position.

    Attributes: `percent` 0 to 99 and `permille` 0 to 999 at random, `number`: the position. A title has words of a Zipf
    distribution.
    """

    def __init__(self, count: int, width: int, seed: int) -> None:
        self.count, self.width, self._seed = count, width, seed
        rng = np.random.default_rng([seed, 0])
        self._centers = unit(rng.standard_normal((max(1, count // _PRODUCTS_PER_CENTER), width), np.float32))
        self._words = np.array([f"word{number}" for number in range(_WORDS)])
        shares = 1 / np.arange(1, _WORDS + 1)
        self._shares = np.cumsum(shares / shares.sum())

    def parts(self) -> Iterator[Rows]:
        """Yields the products."""
        for start in range(0, self.count, ROWS):
            rows = np.arange(start, min(start + ROWS, self.count))
            rng = np.random.default_rng([self._seed, 1, start])
            vectors = self._near(self._centers[rng.integers(len(self._centers), size=len(rows))], _NOISE, rng)
            percent, permille = rng.integers(100, size=len(rows)), rng.integers(1000, size=len(rows))
            titles = [" ".join(words) for words in self._random_words(rng, len(rows), _TITLE_WORDS)]
            attributes = [
                {"percent": a, "permille": b, "number": c}
                for a, b, c in zip(percent.tolist(), permille.tolist(), rows.tolist(), strict=True)
            ]
            yield Rows(rows, vectors, titles, attributes)

    def queries(self, count: int) -> tuple[np.ndarray, list[str]]:
        """Vectors near those of random products, and texts of two words."""
        rng = np.random.default_rng([self._seed, 2])
        centers = self._centers[rng.integers(len(self._centers), size=count)]
        vectors = self._near(self._near(centers, _NOISE, rng), _QUERY_NOISE, rng)
        return vectors, [" ".join(words) for words in self._random_words(rng, count, 2)]

    def _near(self, vectors: np.ndarray, noise: float, rng: np.random.Generator) -> np.ndarray:
        deviation = rng.standard_normal(vectors.shape, np.float32) * np.float32(noise / np.sqrt(self.width))
        return unit(vectors + deviation)

    def _random_words(self, rng: np.random.Generator, count: int, words: int) -> np.ndarray:
        return self._words[np.searchsorted(self._shares[:-1], rng.random((count, words)))]


def unit(vectors: np.ndarray) -> np.ndarray:
    """The vectors with length 1."""
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
