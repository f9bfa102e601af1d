"""What training changes and a checkpoint holds."""

from typing import Any

import jax
from flax import struct

Params = Any  # a tree of dicts with arrays as leaves


@struct.dataclass
class TrainState:
    """Parameters, optimizer state, optional averaged parameters, and the count of steps taken.

    Dropout needs no key here: step `i` uses `fold_in(key(seed), i)`, so a resumed run draws what it would have drawn.
    """

    step: Any  # int32 [], steps taken
    params: Params
    opt_state: Any
    ema: Params | None  # averaged parameters, None without averaging

    @property
    def eval_params(self) -> Params:
        """The parameters that evaluation uses: the averaged ones where there are any."""
        return self.params if self.ema is None else self.ema


def parameter_count(params: Params) -> int:
    """How many numbers the parameters are."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))
