"""An export for XLA: query.stablehlo and product.stablehlo, run by `jax.export.deserialize` without make_jax's model.

    query.stablehlo      query_tokens i32 [batch, Lq], query_mask bool [batch, Lq], query_keywords bool [batch, n]
                         -> vectors [batch, E + n]
    product.stablehlo    title_tokens i32 [batch, Lt], title_mask bool [batch, Lt], image u8 [batch, H, W, 3],
                         has_title bool [batch], has_image bool [batch] -> vectors [batch, E + n], weights [batch, 2]

Any batch; lengths are the run's. Parameters are constants inside. One artifact runs on CPU, CUDA and TPU. Artifacts are
written and read with flatbuffers.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax import export

from make_jax.interop.bundle import ModelBundle
from make_jax.interop.optional_imports import import_optional
from make_jax.interop.tensor_names import Params
from make_jax.interop.torch_checkpoint import make_module, search_params
from make_jax.model.make import Make

QUERY, PRODUCT = "query.stablehlo", "product.stablehlo"
PLATFORMS = ("cpu", "cuda", "tpu")


def check_libraries() -> None:
    """InputError that says what to install where something is missing by which artifacts are written and read."""
    import_optional("flatbuffers", "stablehlo")


def write(folder: Path, params: Params, served: ModelBundle) -> None:
    """Writes both artifacts and what belongs to them, but the card, into an existing folder."""
    make, variables = make_module(served), {"params": jax.tree.map(jnp.asarray, search_params(params))}
    words = served.keywords.packed_words

    def query(query_tokens: jax.Array, query_mask: jax.Array, query_keywords: jax.Array) -> Any:
        packed = _pack(query_keywords, words)
        return make.apply(variables, query_tokens, query_mask, packed, method=Make.query_embedding)

    def product(*inputs: jax.Array) -> Any:
        made: Any = make.apply(variables, *inputs, method=Make.product_embedding)
        return made.vectors, made.weights

    queries, products = served.queries([""]), served.products([""], [None])
    order = ("title_tokens", "title_mask", "image", "has_title", "has_image")
    (folder / QUERY).write_bytes(_exported(query, list(queries.values())))
    (folder / PRODUCT).write_bytes(_exported(product, [products[name] for name in order]))
    served.write(folder)


def _exported(function: Callable[..., Any], examples: list[Any]) -> bytes:
    """`function` for any batch."""
    (batch,) = export.symbolic_shape("batch")
    shapes = [jax.ShapeDtypeStruct((batch, *array.shape[1:]), array.dtype) for array in examples]
    return bytes(export.export(jax.jit(function), platforms=PLATFORMS)(*shapes).serialize())


def _pack(keywords: jax.Array, words: int) -> jax.Array:
    """bool [B, n] as the packed sets that the model reads: keyword k is bit k % 32 of word k // 32."""
    count = keywords.shape[1]
    padded = jnp.pad(keywords, ((0, 0), (0, 32 * words - count))).reshape(keywords.shape[0], words, 32)
    return jnp.sum(padded.astype(jnp.uint32) << jnp.arange(32, dtype=jnp.uint32)[None, None], axis=-1, dtype=jnp.uint32)
