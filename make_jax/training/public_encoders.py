"""What a run's first state begins with, beside what is random. A run that has a checkpoint never comes here."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import jax
import numpy as np

from make_jax.config import Config
from make_jax.inputs.tokenizer import Tokenizer
from make_jax.interop.encoder_files import PretrainedEncoder
from make_jax.interop.init_encoders import init_from_encoders
from make_jax.runs.state import Params, TrainState


def with_encoders(
    state: TrainState,
    encoders: Mapping[str, PretrainedEncoder],
    config: Config,
    tokenizer: Tokenizer,
    note: Callable[[str], None],
) -> TrainState:
    """The fresh `state` with public encoders in its parameters and their average, placed as the state's were.

    `encoders`, `note` and errors are those of `interop.starting.start_from`.
    """
    new = init_from_encoders(state.params, encoders, config, tokenizer, note)
    ema = (
        None
        if state.ema is None
        else _placed(init_from_encoders(state.ema, encoders, config, tokenizer, _say_nothing), state.ema)
    )
    return replace(state, params=_placed(new, state.params), ema=ema)


def _placed(new: Params, old: Params) -> Params:
    """Every NumPy array of `new` on the devices where `old` has it; what is there already stays."""

    def place(array: Any, there: jax.Array) -> jax.Array:
        if isinstance(array, jax.Array):
            return array
        whole = np.asarray(array, there.dtype)
        return jax.make_array_from_callback(whole.shape, there.sharding, lambda index: whole[index])

    return jax.tree.map(place, new, old)


def _say_nothing(_: str) -> None:
    """The average has been told of already."""
