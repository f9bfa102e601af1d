"""The StableHLO export, for XLA: query.stablehlo and product.stablehlo, loaded by `jax.export.deserialize`.

    query.stablehlo      query_tokens i32 [batch, Lq], query_mask bool [batch, Lq], query_keywords bool [batch, n]
                         -> vectors [batch, E + n]
    product.stablehlo    title_tokens i32 [batch, Lt], title_mask bool [batch, Lt], image u8 [batch, H, W, 3],
                         has_title bool [batch], has_image bool [batch] -> vectors [batch, E + n], weights [batch, 2]

The batch size is symbolic; lengths are those of the run. Parameters are constants inside, and make_jax is not needed to
run an artifact. One artifact runs on CPU, CUDA and TPU. Reading and writing need flatbuffers.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax import export

from make_jax.extras import import_optional
from make_jax.inputs.batch import PRODUCT_INPUTS
from make_jax.interop.bundle import ModelBundle
from make_jax.interop.tensor_names import Params
from make_jax.interop.torch_checkpoint import make_module, search_params
from make_jax.model.make import Make

QUERY, PRODUCT = "query.stablehlo", "product.stablehlo"
PLATFORMS = ("cpu", "cuda", "tpu")


def check_libraries() -> None:
    """Raises InputError that names the extra to install if flatbuffers is missing."""
    import_optional("flatbuffers", "stablehlo")


def write(folder: Path, params: Params, bundle: ModelBundle) -> None:
    """Writes both artifacts and the bundle's files into an existing folder."""
    make, variables = make_module(bundle), {"params": jax.tree.map(jnp.asarray, search_params(params))}

    def query(query_tokens: jax.Array, query_mask: jax.Array, query_keywords: jax.Array) -> Any:
        packed = _pack(query_keywords, bundle.keywords.packed_words)
        return make.apply(variables, query_tokens, query_mask, packed, method=Make.query_embedding)

    def product(*inputs: jax.Array) -> Any:
        output: Any = make.apply(variables, *inputs, method=Make.product_embedding)
        return output.vectors, output.weights

    queries, products = bundle.queries([""]), bundle.products([""], [None])
    (folder / QUERY).write_bytes(_serialize(query, list(queries.values())))
    (folder / PRODUCT).write_bytes(_serialize(product, [products[name] for name in PRODUCT_INPUTS]))
    bundle.write(folder)


def _serialize(function: Callable[..., Any], examples: list[Any]) -> bytes:
    """The artifact of `function` for any batch size."""
    (batch,) = export.symbolic_shape("batch")
    shapes = [jax.ShapeDtypeStruct((batch, *array.shape[1:]), array.dtype) for array in examples]
    return bytes(export.export(jax.jit(function), platforms=PLATFORMS)(*shapes).serialize())


def _pack(keywords: jax.Array, words: int) -> jax.Array:
    """bool [B, n] as bit-packed sets, the model's input: keyword k is bit k % 32 of word k // 32."""
    count = keywords.shape[1]
    padded = jnp.pad(keywords, ((0, 0), (0, 32 * words - count))).reshape(keywords.shape[0], words, 32)
    return jnp.sum(padded.astype(jnp.uint32) << jnp.arange(32, dtype=jnp.uint32)[None, None], axis=-1, dtype=jnp.uint32)
