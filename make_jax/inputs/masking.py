"""What masked modelling hides of a row: tokens of its texts (MLM), patches of its picture (MPM).

Of n tokens that are text, floor(share n + u) are predicted, u uniform in [0, 1), and at least one: `share` of them on
average. Of those 80 % are replaced by the mask token, 10 % by a random token, and 10 % stay (Devlin et al., arXiv
1810.04805). Of a picture's P patches round(share P) are hidden, at least one, chosen at random (He et al., arXiv
2111.06377). The shares are `inputs.masked_tokens` and `inputs.masked_patches`.
"""

import math

import numpy as np
from jaxtyping import Bool, Int32

from make_jax.config import InputsConfig
from make_jax.errors import InputError
from make_jax.inputs.tokenizer import Tokenizer

NOT_PREDICTED = -1  # the label of a token that nobody is asked for
_TO_MASK, _TO_RANDOM = 0.8, 0.9  # upper ends of the shares that become the mask token, and a random one

Text = tuple[Int32[np.ndarray, " _"], Bool[np.ndarray, " _"]]  # tokens and the mask of real ones


def most_predicted(inputs: InputsConfig, length: int) -> int:
    """The most tokens that are predicted of a text of `length` tokens."""
    return max(1, math.ceil(inputs.masked_tokens * length))


def hidden_patches(inputs: InputsConfig, patches: int) -> int:
    """How many of a picture's patches are hidden."""
    return max(1, round(inputs.masked_patches * patches))


class Masker:
    """Draws what is hidden of a row. Can be sent to other processes."""

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
        self._plain = np.flatnonzero(self._is_text)
        self._patches = (inputs.image_height // patch) * (inputs.image_width // patch) if patch else 0

    def draw(self, query: Text, title: Text, picture: bool, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """The row's `query_masked`, `query_labels`, `title_masked`, `title_labels` and `patch_mask`, where asked for.

        One number is drawn from `rng` whatever is hidden, so that hiding tokens does not change which patches are.
        """
        seed = int(rng.integers(2**63))
        row: dict[str, np.ndarray] = {}
        if self._tokens:
            own = np.random.default_rng([0, seed])
            row["query_masked"], row["query_labels"] = self.hide_tokens(*query, own)
            row["title_masked"], row["title_labels"] = self.hide_tokens(*title, own)
        if self._patches:
            row["patch_mask"] = np.zeros(self._patches, bool)
            if picture:
                order = np.random.default_rng([1, seed]).permutation(self._patches)
                row["patch_mask"][order[: hidden_patches(self._inputs, self._patches)]] = True
        return row

    def hide_tokens(
        self, tokens: Int32[np.ndarray, " L"], mask: Bool[np.ndarray, " L"], rng: np.random.Generator
    ) -> tuple[Int32[np.ndarray, " L"], Int32[np.ndarray, " L"]]:
        """The tokens with some hidden, 0 at padding, and what stood there: `NOT_PREDICTED` wherever nobody asks."""
        assert self._mask_id is not None
        shown = np.where(mask, tokens, 0).astype(np.int32)
        labels = np.full(len(tokens), NOT_PREDICTED, np.int32)
        text = np.flatnonzero(mask & self._is_text[tokens])
        if len(text):
            count = math.floor(self._inputs.masked_tokens * len(text) + rng.random())
            count = min(max(1, count), most_predicted(self._inputs, len(tokens)))
            chosen, kind = rng.permutation(text)[:count], rng.random(count)
            others = self._plain[rng.integers(len(self._plain), size=count)]
            labels[chosen] = tokens[chosen]
            shown[chosen] = np.where(kind < _TO_RANDOM, others, tokens[chosen])
            shown[chosen[kind < _TO_MASK]] = self._mask_id
        return shown, labels
