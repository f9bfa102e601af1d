"""Loss and gradient of a batch, encoded all at once or one micro-batch at a time (gradient cache).

A contrastive loss over B rows needs all embeddings, but not all activations. With f the encoders, x_i micro-batch i
and L the loss of all embeddings (GradCache, Gao et al., arXiv 2101.06983):

    forward    v_i = f(x_i), activations discarded                                 for i = 1 .. n, in a loop
    loss       L(v_1 .. v_n), over all devices, and its cotangents dL/dv_i
    backward   recompute f(x_i), dparams += (dL/dv_i)^T df(x_i)/dparams             for i = n .. 1, in a loop

This is what autodiff makes of `scan(checkpoint(f))`. It is exact: dropout is a function of a key, and micro-batch i of
the global batch uses `fold_in(step key, i)` in both passes, so equal micro-batches give equal losses on any number of
devices. Inside `shard_map` the parameters vary over the mesh: each device accumulates the gradient of its own rows in
float32, and one reduction over the devices follows the loop.

| per device                | all at once    | micro-batches of m rows            |
|---------------------------|----------------|------------------------------------|
| activations               | O(b)           | O(m)                               |
| inputs, embeddings        | O(b)           | O(b)                               |
| encoder work              | forward + back | 2 forward + back: a third more     |
| parameter communication   | once a step    | once a step                        |
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from make_jax.config import Config
from make_jax.model.make import Make, Outputs
from make_jax.model.modal_adaptation import modality_weights
from make_jax.objectives.total import Embeddings, contrast_embeddings, local_means, total_loss
from make_jax.objectives.weighted_means import WeightedMean, weighted_mean
from make_jax.runs.mesh import BATCH_AXES, AnyMesh
from make_jax.runs.sharding import all_gather_params, partition_specs, reduce_scatter_grads
from make_jax.runs.state import Params
from make_jax.training.optimizer import freeze

Batch = dict[str, jax.Array]
Metrics = dict[str, jax.Array]
LossAndGradient = tuple[jax.Array, Metrics, Params]
Gradient = Callable[[Params, Batch, jax.Array], LossAndGradient]
Encoded = tuple[Embeddings, dict[str, WeightedMean]]  # inputs of the contrasts, sums of all other objectives
Encode = Callable[[Params, Batch, jax.Array, jax.Array], Encoded]


def make_gradient(model: Make, config: Config, mesh: AnyMesh, params: Params, multipliers: Params) -> Gradient:
    """Returns the function (parameters, batch, step key) -> (loss, metrics, gradient), for use inside `jax.jit`.

    Loss and metrics are those of the global batch; the gradient is sharded like the parameters, and 0 where the
    learning-rate multiplier is 0. Only the structure and shapes of `params` are read.
    """
    specs = partition_specs(params, mesh)
    rows, replicated = PartitionSpec(BATCH_AXES), PartitionSpec()
    encode = make_encode(model, config)

    def local(shards: Params, batch: Batch, key: jax.Array) -> LossAndGradient:
        def loss_of(params: Params) -> tuple[jax.Array, Metrics]:
            params = freeze(params, multipliers)
            size = config.train.micro_batch_size or batch["weight"].shape[0]
            embeddings, means = encode_rows(encode, params, batch, key, size, jax.lax.axis_index(BATCH_AXES))
            scale = params["log_logit_scale"], params["logit_bias"]
            return total_loss(config.objectives, embeddings, means, batch, *scale, BATCH_AXES)

        params = all_gather_params(shards, specs, config.model.dtype)
        (loss, metrics), gradients = jax.value_and_grad(loss_of, has_aux=True)(params)
        return loss, metrics, reduce_scatter_grads(gradients, specs)

    return jax.shard_map(
        local,
        mesh=mesh,
        in_specs=(specs, rows, replicated),
        out_specs=(replicated, replicated, specs),
        check_vma=True,
    )


def make_encode(model: Make, config: Config) -> Encode:
    """Returns the function (parameters, rows, step key, micro-batch index in the global batch) -> (embeddings, sums).

    Embeddings are the inputs of the contrastive losses; sums are those of all objectives that need no other rows.
    """
    # Weights that are not learned are constant in training. Those per keyword need the keyword heads, which are fitted
    # after the encoders; validation logs them.
    logs_title_weight = model.has_title_weight and modality_weights(config.model.adaptation.weights).learned

    def encode(params: Params, batch: Batch, key: jax.Array, index: jax.Array) -> Encoded:
        sampling_key, dropout_key = jax.random.split(key)
        first_key, second_key = jax.random.split(jax.random.fold_in(dropout_key, index))
        variables = {"params": params}
        out: Outputs = model.apply(variables, batch, train=True, rngs={"dropout": first_key})  # type: ignore[assignment]

        def apply(method: Callable[..., Any], *args: Any) -> Any:  # further passes drop other activations
            return model.apply(variables, *args, train=True, rngs={"dropout": second_key}, method=method)

        means = local_means(config.objectives, out, batch, apply, sampling_key, index)
        if logs_title_weight:
            both = (batch["has_title"] & batch["has_image"]).astype(jnp.float32) * batch["weight"]
            means["title_weight"] = weighted_mean(out.product.weights[:, 0], both)
        return contrast_embeddings(config.objectives, out), means

    return encode


def encode_rows(encode: Encode, params: Params, batch: Batch, key: jax.Array, size: int, device: jax.Array) -> Encoded:
    """Returns `encode` of all rows of a device, `size` rows at a time, without their activations if micro-batched."""
    count = batch["weight"].shape[0] // size
    if count == 1:
        return encode(params, batch, key, device)

    def encode_micro_batch(_: None, micro_batch: tuple[Batch, jax.Array]) -> tuple[None, Encoded]:
        rows, i = micro_batch
        # XLA cannot merge the recomputation with the forward pass across scan iterations: no CSE barrier is needed.
        return None, jax.checkpoint(encode, prevent_cse=False)(params, rows, key, device * count + i)

    micro_batches = jax.tree.map(lambda x: x.reshape(count, size, *x.shape[1:]), batch)
    _, (embeddings, means) = jax.lax.scan(encode_micro_batch, None, (micro_batches, jnp.arange(count)))
    embeddings = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), embeddings)
    return embeddings, jax.tree.map(lambda x: jnp.sum(x, axis=0), means)
