"""Scaled dot-product attention: one function, and the table of its implementations.

    attention(Q, K, V) = softmax(Q K^T / sqrt(d)) V        softmax in float32, over the real keys

To add an implementation: write an `AttentionFunction`, here or in a file of its own, and enter it in
`ATTENTION_IMPLEMENTATIONS`; `model.attention` selects it by its name there.

| name | function | dropout on probabilities | runs on |
|---|---|---|---|
| xla | two products and a softmax, the fastest on CPU | yes | any device |
| dot_product | `jax.nn.dot_product_attention` with the implementation that JAX selects | no | any device |
| cudnn | the same with cuDNN's flash attention, bfloat16 only | no | NVIDIA GPUs |

A fused implementation never stores the probabilities, so it cannot drop any: set `model.attention_dropout` to False.
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from make_jax.config import ModelConfig
from make_jax.errors import InputError, lookup

MASKED = -1e30  # logit of a masked key: softmax gives exactly 0 in float32 if any key is not masked
Drop = Callable[[Array], Array]  # applies dropout to attention probabilities


class AttentionFunction(Protocol):
    """Attention of every head. Rows whose mask has no real key may have any finite output and gradient."""

    def __call__(
        self,
        query: Float[Array, "B L H d"],
        key: Float[Array, "B M H d"],
        value: Float[Array, "B M H d"],
        mask: Bool[Array, "B M"] | None,  # real keys; None: all are
        drop: Drop,  # for the probabilities; the identity unless `supports_dropout`
    ) -> Float[Array, "B L H d"]:
        """Returns the attended values in the dtype of `value`."""


class AttentionImplementation(NamedTuple):
    """An entry of the table."""

    function: AttentionFunction
    supports_dropout: bool  # whether it calls `drop`
    platforms: tuple[str, ...] = ()  # JAX's names of the platforms that it runs on; none: all


def xla_attention(
    query: Float[Array, "B L H d"],
    key: Float[Array, "B M H d"],
    value: Float[Array, "B M H d"],
    mask: Bool[Array, "B M"] | None,
    drop: Drop,
) -> Float[Array, "B L H d"]:
    """Returns attention as plain matrix products, which XLA compiles for any device."""
    # Heads are transposed before the products: three times as fast on CPU as leaving it to einsum.
    query, key, value = (states.transpose(0, 2, 1, 3) for states in (query, key, value))
    logits = jnp.einsum("bhld,bhmd->bhlm", query, key, preferred_element_type=jnp.float32)
    logits = logits * (query.shape[-1] ** -0.5)
    if mask is not None:
        logits = jnp.where(mask[:, None, None, :], logits, MASKED)
    weights = drop(jax.nn.softmax(logits, axis=-1).astype(value.dtype))
    return jnp.einsum("bhlm,bhmd->bhld", weights, value).transpose(0, 2, 1, 3)


def dot_product_attention(
    query: Float[Array, "B L H d"],
    key: Float[Array, "B M H d"],
    value: Float[Array, "B M H d"],
    mask: Bool[Array, "B M"] | None,
    drop: Drop,  # part of the protocol
) -> Float[Array, "B L H d"]:
    """Returns attention by JAX's own function, with the implementation that JAX selects for the device."""
    return jax.nn.dot_product_attention(query, key, value, mask=None if mask is None else mask[:, None, None])


def cudnn_attention(
    query: Float[Array, "B L H d"],
    key: Float[Array, "B M H d"],
    value: Float[Array, "B M H d"],
    mask: Bool[Array, "B M"] | None,
    drop: Drop,  # part of the protocol
) -> Float[Array, "B L H d"]:
    """Returns attention by cuDNN, which stores no [L, M] array of probabilities.

    Its backward pass needs even lengths, so that odd ones are padded. Raises InputError for what cuDNN does not
    support: a dtype other than bfloat16, heads that are too wide, no cuDNN.
    """
    (length, keys), real, mask_4d = (query.shape[1], key.shape[1]), None, None
    query, key, value = (_pad_to_even(states) for states in (query, key, value))
    if mask is not None:
        mask_4d = jnp.broadcast_to(_pad_to_even(mask)[:, None, None], (len(mask), 1, query.shape[1], key.shape[1]))
    elif key.shape[1] > keys:
        real = jnp.full(len(key), keys, jnp.int32)
    try:
        out = jax.nn.dot_product_attention(
            query, key, value, mask=mask_4d, key_value_seq_lengths=real, implementation="cudnn"
        )
    except (NotImplementedError, RuntimeError) as error:
        expected = "expected model.dtype bfloat16 and an NVIDIA GPU with cuDNN, or model.attention 'dot_product'"
        raise InputError(f"model.attention is 'cudnn': {error}; {expected}") from None
    return out[:, :length]


ATTENTION_IMPLEMENTATIONS: dict[str, AttentionImplementation] = {
    "xla": AttentionImplementation(xla_attention, supports_dropout=True),
    "dot_product": AttentionImplementation(dot_product_attention, supports_dropout=False),
    "cudnn": AttentionImplementation(cudnn_attention, supports_dropout=False, platforms=("gpu",)),
}


def attention_implementation(name: str) -> AttentionImplementation:
    """Returns the entry `name`; raises InputError, with the nearest name, for one that does not exist."""
    return lookup(ATTENTION_IMPLEMENTATIONS, name, "model.attention")


def check_attention(model: ModelConfig) -> None:
    """Raises InputError for an unknown `model.attention`, or for one that cannot apply the dropout of the config."""
    implementation = attention_implementation(model.attention)
    m = model.adaptation
    sections = {
        "query": True,
        "title": m.modalities != "image",
        "image": m.modalities != "title" and not m.single_stream,
        "matching": model.matching.layers > 0,
    }
    rates = {f"model.{name}.dropout": getattr(model, name).dropout for name, used in sections.items() if used}
    dropping = ", ".join(f"{name} {rate}" for name, rate in rates.items() if rate)
    if dropping and model.attention_dropout and not implementation.supports_dropout:
        raise InputError(
            f"model.attention is {model.attention!r}, which cannot drop attention probabilities, with {dropping}; "
            "set --model.no-attention-dropout (dropout then applies to hidden states only), or model.attention 'xla'"
        )


def traceable_attention(name: str) -> str:
    """Returns `name`, or "dot_product" for an implementation that cannot be traced on this process's devices."""
    platforms = attention_implementation(name).platforms
    return name if not platforms or jax.default_backend() in platforms else "dot_product"


def _pad_to_even(states: Array) -> Array:
    """[B, L, ...] with a row of zeros (False) appended if L is odd."""
    return jnp.pad(states, [(0, 0), (0, states.shape[1] % 2), *[(0, 0)] * (states.ndim - 2)])
