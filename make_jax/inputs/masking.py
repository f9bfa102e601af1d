"""Masked modeling: which tokens of a text (MLM) and which patches of an image (MPM) are hidden.

Of n text tokens floor(ratio n + u) are predicted, u uniform in [0, 1), and at least one: `ratio` of them on average.
80 % of these become the mask token, 10 % a random token, 10 % stay (Devlin et al., arXiv 1810.04805). Of the P patches
of an image round(ratio P) are hidden, at least one, chosen at random (He et al., arXiv 2111.06377). The ratios are
`inputs.mlm_ratio` and `inputs.mpm_ratio`.
"""

import math

import numpy as np
from jaxtyping import Bool, Float, Int, Int32

from make_jax.config import InputsConfig
from make_jax.errors import InputError
from make_jax.inputs.batch import Batch
from make_jax.inputs.tokenizer import Tokenizer

IGNORE_LABEL = -1  # label of a token that is not predicted
# Upper bounds of a uniform number: mask token, random token; the original token above.
_MASK_TOKEN_BELOW, _RANDOM_TOKEN_BELOW = 0.8, 0.9


def max_masked_tokens(inputs: InputsConfig, length: int) -> int:
    """Returns the largest number of predicted tokens in a text of `length` tokens."""
    return max(1, math.ceil(inputs.mlm_ratio * length))


def num_masked_patches(inputs: InputsConfig, patches: int) -> int:
    """Returns how many of an image's patches are masked."""
    return max(1, round(inputs.mpm_ratio * patches))


class Masker:
    """Masks the tokens and patches of a batch from random numbers that each row drew. Picklable."""

    def __init__(self, tokenizer: Tokenizer, inputs: InputsConfig, *, tokens: bool, patch_size: int) -> None:
        """Creates a masker of tokens, if `tokens`, and of patches with `patch_size` pixels per side, unless that is 0.

        Raises:
            InputError: tokens are to be masked and the tokenizer has no mask token.
        """
        if tokens and tokenizer.mask_id is None:
            raise InputError(
                "inputs.tokenizer: the tokenizer has no token [MASK] or <mask>, expected one to hide tokens with; "
                "use another or set objectives.mlm to 0"
            )
        self._inputs, self._tokens, self._mask_id = inputs, tokens, tokenizer.mask_id
        self._is_text = np.ones(tokenizer.vocab_size, bool)
        self._is_text[sorted(tokenizer.special_ids)] = False
        self._text_ids = np.flatnonzero(self._is_text).astype(np.int32)
        rows, columns = (size // patch_size if patch_size else 0 for size in (inputs.image_height, inputs.image_width))
        self._patches = rows * columns

    def draw(self, rng: np.random.Generator) -> Float[np.ndarray, " numbers"]:
        """Returns all random numbers of a row, from one call: query, title (always), then patches."""
        lengths = self._inputs.max_query_tokens, self._inputs.max_title_tokens
        return rng.random(sum(map(_numbers_per_text, lengths)) + self._patches)

    def mask(self, batch: Batch, drawn: Float[np.ndarray, "B numbers"]) -> Batch:
        """Returns the keys marked M in `inputs/batch.py`; `batch` holds texts and images."""
        title_start, patch_start = np.cumsum(
            [_numbers_per_text(batch[f"{text}_tokens"].shape[1]) for text in ("query", "title")]
        ).tolist()
        masked: Batch = {}
        if self._tokens:
            for text, numbers in (("query", drawn[:, :title_start]), ("title", drawn[:, title_start:patch_start])):
                inputs, labels = self.mask_tokens(batch[f"{text}_tokens"], batch[f"{text}_mask"], numbers)
                masked |= {f"{text}_masked": inputs, f"{text}_labels": labels}
        if self._patches:
            chosen = _ranks(drawn[:, patch_start:]) < num_masked_patches(self._inputs, self._patches)
            masked["patch_mask"] = chosen & batch["has_image"][:, None]
        return masked

    def mask_tokens(
        self, tokens: Int32[np.ndarray, "B L"], mask: Bool[np.ndarray, "B L"], drawn: Float[np.ndarray, "B numbers"]
    ) -> tuple[Int32[np.ndarray, "B L"], Int32[np.ndarray, "B L"]]:
        """Returns (input ids, 0 at padding; labels: the original id, or `IGNORE_LABEL` where nothing is predicted)."""
        assert self._mask_id is not None
        order, action, replacement = np.split(drawn[:, 1:], 3, axis=1)
        is_text = mask & self._is_text[tokens]
        count = np.floor(self._inputs.mlm_ratio * is_text.sum(axis=1) + drawn[:, 0])
        count = np.clip(count, 1, max_masked_tokens(self._inputs, tokens.shape[1]))
        chosen = is_text & (_ranks(np.where(is_text, order, 1.0)) < count[:, None])
        random = self._text_ids[(replacement * len(self._text_ids)).astype(np.int32)]
        replaced = np.where(
            action < _MASK_TOKEN_BELOW, self._mask_id, np.where(action < _RANDOM_TOKEN_BELOW, random, tokens)
        )
        inputs = np.where(chosen, replaced, np.where(mask, tokens, 0))
        return inputs.astype(np.int32), np.where(chosen, tokens, IGNORE_LABEL).astype(np.int32)


def _numbers_per_text(length: int) -> int:
    """One number for the count of predicted tokens; per token three: rank, action, random replacement."""
    return 1 + 3 * length


def _ranks(values: Float[np.ndarray, "B n"]) -> Int[np.ndarray, "B n"]:
    """The rank of each value in its row, from 0."""
    return values.argsort(axis=1).argsort(axis=1)
