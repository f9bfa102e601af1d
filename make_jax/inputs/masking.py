"""What masked modelling hides of a row: tokens of its texts (MLM), patches of its picture (MPM).

Of n tokens that are text, floor(share n + u) are predicted, u uniform in [0, 1), and at least one: `share` of them on
average. Of those 80 % are replaced by the mask token, 10 % by a random token, and 10 % stay (Devlin et al., arXiv
1810.04805). Of a picture's P patches round(share P) are hidden, at least one, chosen at random (He et al., arXiv
2111.06377). The shares are `inputs.masked_tokens` and `inputs.masked_patches`.
"""

import math

import numpy as np
from jaxtyping import Bool, Float, Int, Int32

from make_jax.config import InputsConfig
from make_jax.errors import InputError
from make_jax.inputs.batch import Batch
from make_jax.inputs.tokenizer import Tokenizer

NOT_PREDICTED = -1  # the label of a token that nobody is asked for
_TO_MASK, _TO_RANDOM = 0.8, 0.9  # upper ends of the shares that become the mask token, and a random one


def most_predicted(inputs: InputsConfig, length: int) -> int:
    """The most tokens that are predicted of a text of `length` tokens."""
    return max(1, math.ceil(inputs.masked_tokens * length))


def hidden_patches(inputs: InputsConfig, patches: int) -> int:
    """How many of a picture's patches are hidden."""
    return max(1, round(inputs.masked_patches * patches))


class Masker:
    """Decides what is hidden, from random numbers that each row drew. Can be sent to other processes."""

    def __init__(self, tokenizer: Tokenizer, inputs: InputsConfig, *, tokens: bool, patch: int) -> None:
        """Hides tokens if `tokens`, and patches of `patch` pixels a side unless that is 0.

        Raises:
            InputError: tokens are to be hidden and the tokenizer has no mask token.
        """
        if tokens and tokenizer.mask_id is None:
            raise InputError(
                "inputs.tokenizer: the tokenizer has no token [MASK] or <mask>, expected one to hide tokens with; "
                "use another or set objectives.mlm to 0"
            )
        self._inputs, self._tokens, self._mask_id = inputs, tokens, tokenizer.mask_id
        self._is_text = np.ones(tokenizer.vocabulary_size, bool)
        self._is_text[sorted(tokenizer.special_ids)] = False
        self._plain = np.flatnonzero(self._is_text).astype(np.int32)
        self._patches = (inputs.image_height // patch) * (inputs.image_width // patch) if patch else 0

    def draw(self, rng: np.random.Generator) -> Float[np.ndarray, " numbers"]:
        """All that a row needs to draw, in one call; those of the texts whatever is hidden, those of patches last."""
        texts = self._inputs.query_tokens, self._inputs.title_tokens
        return rng.random(sum(map(_numbers, texts)) + self._patches)

    def hide(self, batch: Batch, drawn: Float[np.ndarray, "B numbers"]) -> Batch:
        """What `batch`, which has texts and pictures, gains: the keys of `inputs/batch.py` that are asked for."""
        middle, end = np.cumsum([_numbers(batch[f"{text}_tokens"].shape[1]) for text in ("query", "title")]).tolist()
        added: Batch = {}
        if self._tokens:
            for text, numbers in (("query", drawn[:, :middle]), ("title", drawn[:, middle:end])):
                shown, labels = self.hide_tokens(batch[f"{text}_tokens"], batch[f"{text}_mask"], numbers)
                added |= {f"{text}_masked": shown, f"{text}_labels": labels}
        if self._patches:
            chosen = _ranks(drawn[:, end:]) < hidden_patches(self._inputs, self._patches)
            added["patch_mask"] = chosen & batch["has_image"][:, None]
        return added

    def hide_tokens(
        self, tokens: Int32[np.ndarray, "B L"], mask: Bool[np.ndarray, "B L"], drawn: Float[np.ndarray, "B numbers"]
    ) -> tuple[Int32[np.ndarray, "B L"], Int32[np.ndarray, "B L"]]:
        """The tokens with some hidden, 0 at padding, and what stood there: `NOT_PREDICTED` wherever nobody asks."""
        assert self._mask_id is not None
        order, kind, other = np.split(drawn[:, 1:], 3, axis=1)
        text = mask & self._is_text[tokens]
        count = np.floor(self._inputs.masked_tokens * text.sum(axis=1) + drawn[:, 0])
        count = np.clip(count, 1, most_predicted(self._inputs, tokens.shape[1]))
        chosen = text & (_ranks(np.where(text, order, 1.0)) < count[:, None])
        random = self._plain[(other * len(self._plain)).astype(np.int32)]
        replaced = np.where(kind < _TO_MASK, self._mask_id, np.where(kind < _TO_RANDOM, random, tokens))
        shown = np.where(chosen, replaced, np.where(mask, tokens, 0))
        return shown.astype(np.int32), np.where(chosen, tokens, NOT_PREDICTED).astype(np.int32)


def _numbers(length: int) -> int:
    """Numbers that a row draws for a text: how many are predicted; then, a token: whether it, how, and by which."""
    return 1 + 3 * length


def _ranks(values: Float[np.ndarray, "B n"]) -> Int[np.ndarray, "B n"]:
    """How many of a row's values are less than each."""
    return values.argsort(axis=1).argsort(axis=1)
