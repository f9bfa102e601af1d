"""The loss and its gradient, with the rows of a batch encoded all at once or one micro-batch after another.

A contrast over B rows needs all their vectors, but not all their activations. With f the encoders, x_i micro-batch i
and L the loss of all vectors (GradCache, Gao et al., arXiv 2101.06983):

    forward    v_i = f(x_i), activations forgotten                                 for i = 1 .. n, in a loop
    loss       L(v_1 .. v_n), over all devices, and its cotangents dL/dv_i
    backward   f(x_i) once more, dparams += (dL/dv_i)^T df(x_i)/dparams             for i = n .. 1, in a loop

which is what autodiff makes of `scan(checkpoint(f))`. It is exact: dropout is a function of a key, and the key of
micro-batch i, of the global batch, is `fold_in(key of the step, i)` both times. So the same micro-batches give the same
losses on any number of devices. Parameters vary over the mesh inside, which leaves every device the gradient of its own
rows, summed in float32; they are added up over the devices once, behind the loop.

| a device holds            | all at once    | micro-batches of m rows            |
|---------------------------|----------------|------------------------------------|
| activations               | O(b)           | O(m)                               |
| inputs, vectors           | O(b)           | O(b)                               |
| encoder work              | forward + back | 2 forward + back: a third more     |
| exchanged of parameters   | once a step    | once a step                        |
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from make_jax.config import Config
from make_jax.model.make import Make, Outputs
from make_jax.objectives.means import Mean, mean
from make_jax.objectives.total import Embeddings, contrast_embeddings, local_means, total_loss
from make_jax.runs.mesh import BATCH_AXES, AnyMesh
from make_jax.runs.sharding import all_gather_params, partition_specs, reduce_scatter_grads
from make_jax.runs.state import Params
from make_jax.training.optimizer import freeze

Batch = dict[str, jax.Array]
Metrics = dict[str, jax.Array]
Found = tuple[jax.Array, Metrics, Params]
Gradient = Callable[[Params, Batch, jax.Array], Found]
Encode = Callable[[Params, Batch, jax.Array, jax.Array], tuple[Embeddings, dict[str, Mean]]]


def make_gradient(model: Make, config: Config, mesh: AnyMesh, params: Params, factors: Params) -> Gradient:
    """A function of (parameters, batch, key of the step), all on the mesh, for use inside `jax.jit`.

    It gives the loss over the global batch, its metrics and the gradient, which lies as the parameters do. Those whose
    factor is 0 get none. `params` tells names and shapes.
    """
    specs = partition_specs(params, mesh)
    rows, whole = PartitionSpec(BATCH_AXES), PartitionSpec()
    encode = make_encode(model, config)

    def local(parts: Params, batch: Batch, key: jax.Array) -> Found:
        def loss_of(params: Params) -> tuple[jax.Array, Metrics]:
            params = freeze(params, factors)
            size = config.train.micro_batch_size or batch["weight"].shape[0]
            vectors, means = encode_rows(encode, params, batch, key, size, jax.lax.axis_index(BATCH_AXES))
            scale = params["log_logit_scale"], params["logit_bias"]
            return total_loss(config.objectives, vectors, means, batch, *scale, BATCH_AXES)

        params = all_gather_params(parts, specs, config.model.dtype)
        (loss, metrics), gradients = jax.value_and_grad(loss_of, has_aux=True)(params)
        return loss, metrics, reduce_scatter_grads(gradients, specs)

    return jax.shard_map(
        local,
        mesh=mesh,
        in_specs=(specs, rows, whole),
        out_specs=(whole, whole, specs),
        check_vma=True,
    )


def make_encode(model: Make, config: Config) -> Encode:
    """A function of (parameters, rows, key of the step, number of these rows among all micro-batches).

    It gives what the loss needs of rows: their vectors, and the sums of all objectives that need no other rows.
    """

    def encode(params: Params, batch: Batch, key: jax.Array, number: jax.Array) -> tuple[Embeddings, dict[str, Mean]]:
        drawing, dropping = jax.random.split(key)
        reading, again = jax.random.split(jax.random.fold_in(dropping, number))
        variables = {"params": params}
        out: Outputs = model.apply(variables, batch, train=True, rngs={"dropout": reading})  # type: ignore[assignment]

        def apply(method: Callable[..., Any], *args: Any) -> Any:  # a second reading drops other activations
            return model.apply(variables, *args, train=True, rngs={"dropout": again}, method=method)

        means = local_means(config.objectives, out, batch, apply, drawing, number)
        both = (batch["has_title"] & batch["has_image"]).astype(jnp.float32) * batch["weight"]
        means["title_weight"] = mean(out.product.weights[:, 0], both)
        return contrast_embeddings(config.objectives, out), means

    return encode


def encode_rows(
    encode: Encode, params: Params, batch: Batch, key: jax.Array, size: int, device: jax.Array
) -> tuple[Embeddings, dict[str, Mean]]:
    """`encode` of all rows of a device, `size` at once, without their activations if that takes several turns."""
    count = batch["weight"].shape[0] // size
    if count == 1:
        return encode(params, batch, key, device)

    def turn(_: None, micro: tuple[Batch, jax.Array]) -> tuple[None, tuple[Embeddings, dict[str, Mean]]]:
        rows, i = micro
        # A scan runs its turns in order, so nothing can merge the second reading with the first.
        again = jax.checkpoint(encode, prevent_cse=False)
        return None, again(params, rows, key, device * count + i)

    micro_batches = jax.tree.map(lambda x: x.reshape(count, size, *x.shape[1:]), batch)
    _, (vectors, means) = jax.lax.scan(turn, None, (micro_batches, jnp.arange(count)))
    vectors = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), vectors)
    return vectors, jax.tree.map(lambda x: jnp.sum(x, axis=0), means)
