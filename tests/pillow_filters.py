"""How far a resized image is from good answers, measured by how far those are from each other."""

import itertools
from collections.abc import Sequence

import numpy as np
from PIL.Image import Resampling

FILTERS = (Resampling.BOX, Resampling.BILINEAR, Resampling.HAMMING, Resampling.BICUBIC, Resampling.LANCZOS)  # Pillow's


def relative_difference(pixels: np.ndarray, answers: Sequence[np.ndarray]) -> float:
    """Mean difference of `pixels` to the closest answer, over the largest one between two answers.

    Below 1 `pixels` are as good an answer as those, such as the results of Pillow's filters, all of them antialiased.
    """
    signed = [answer.astype(int) for answer in answers]
    largest = max(np.abs(a - b).mean() for a, b in itertools.combinations(signed, 2))
    return float(min(np.abs(pixels - answer).mean() for answer in signed) / largest)
