"""The training state, which checkpoints hold."""

from typing import Any

import jax
from flax import struct

Params = Any  # nested dicts of arrays


@struct.dataclass
class TrainState:
    """Parameters, optimizer state, optional averaged parameters, and the number of steps taken.

    There is no dropout key: step `i` uses `fold_in(key(seed), i)`, so a resumed run draws the same numbers.
    """

    step: Any  # int32 [], steps taken
    params: Params
    opt_state: Any
    ema: Params | None  # averaged parameters, None without averaging

    @property
    def eval_params(self) -> Params:
        """The parameters for evaluation: the averaged ones if there are any."""
        return self.params if self.ema is None else self.ema


def parameter_count(params: Params) -> int:
    """Returns the number of parameters."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))
