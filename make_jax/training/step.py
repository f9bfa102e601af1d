"""One optimizer step, compiled once."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from make_jax.config import Config
from make_jax.model.make import Make, Outputs
from make_jax.objectives.bank import empty, remember
from make_jax.objectives.pairs import Rows
from make_jax.objectives.total import make_loss
from make_jax.runs.mesh import bank_sharding, batch_sharding, replicated
from make_jax.runs.state import Params, TrainState
from make_jax.training.optimizer import freeze, make_optimizer, rule_factors

Batch = dict[str, jax.Array]
Step = Callable[[TrainState, Batch], tuple[TrainState, dict[str, jax.Array]]]
LARGEST_EMA_START = 10.0  # the average forgets its random start: decay at step t is at most (1 + t) / (10 + t)


def init_params(model: Make, seed: int) -> Params:
    """Fresh parameters, a function of the seed alone: shapes come from the model's own settings."""
    i = model.inputs
    batch = {
        "query_tokens": jnp.zeros((1, i.query_tokens), jnp.int32),
        "query_mask": jnp.ones((1, i.query_tokens), bool),
        "title_tokens": jnp.zeros((1, i.title_tokens), jnp.int32),
        "title_mask": jnp.ones((1, i.title_tokens), bool),
        "image": jnp.zeros((1, i.image_height, i.image_width, 3), jnp.uint8),
        "has_title": jnp.ones(1, bool),
        "has_image": jnp.ones(1, bool),
    }
    return jax.jit(model.init)(jax.random.key(seed), batch)["params"]


def init_state(model: Make, config: Config, mesh: Mesh) -> TrainState:
    """The state before the first step, on the mesh."""

    def build() -> TrainState:
        params = init_params(model, config.train.seed)
        optimizer = make_optimizer(config.optim, config.train.steps, params)
        ema = jax.tree.map(jnp.copy, params) if config.optim.ema_decay else None
        steps = config.objectives.bank
        words = max(1, -(-model.keywords // 32))
        bank = empty(steps, config.train.batch_size, config.model.embedding, words) if steps else None
        return TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params), ema, bank)

    return jax.jit(build, out_shardings=_shardings(mesh))()


def _shardings(mesh: Mesh) -> Any:
    """Where each part of the state lies: all of it everywhere, only the bank split as the batch is."""
    everywhere = replicated(mesh)
    return TrainState(everywhere, everywhere, everywhere, everywhere, bank_sharding(mesh))


def make_step(model: Make, config: Config, mesh: Mesh, params: Params) -> Step:
    """The compiled step: (state, batch) -> (state after it, metrics of it). The old state's memory is reused.

    `params` gives the tree that the optimizer rules are matched against; only its structure and shapes are read.
    """
    optimizer = make_optimizer(config.optim, config.train.steps, params)
    factors = rule_factors(config.optim, params)
    loss_of = make_loss(config.objectives, mesh)
    seed = config.train.seed

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, jax.Array]]:
        key = jax.random.fold_in(jax.random.key(seed), state.step)

        def loss_fn(params: Params) -> tuple[jax.Array, tuple[dict[str, jax.Array], jax.Array]]:
            variables = {"params": freeze(params, factors)}
            out: Outputs = model.apply(variables, batch, train=True, rngs={"dropout": key})  # type: ignore[assignment]

            def apply(method: Callable[..., Any], *args: Any) -> Any:
                again = {"dropout": jax.random.fold_in(key, 1)}  # a second reading drops other activations
                return model.apply(variables, *args, train=True, rngs=again, method=method)

            loss, metrics = loss_of(out, batch, state.bank, apply, key)
            both = (batch["has_title"] & batch["has_image"]).astype(jnp.float32) * batch["weight"]
            title_weight = jnp.sum(out.product.weights[:, 0] * both) / jnp.maximum(jnp.sum(both), 1.0)
            return loss, ({**metrics, "title_weight": title_weight}, out.product.vectors)

        (loss, (metrics, vectors)), gradients = jax.value_and_grad(loss_fn, has_aux=True)(state.params)
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        new = clamp_scale(optax.apply_updates(state.params, updates), config.optim.largest_scale)
        ema = None if state.ema is None else average(state.ema, new, state.step, config.optim.ema_decay)
        metrics = {
            "loss": loss,
            "scale": jnp.exp(new["log_scale"]),
            "gradient_norm": optax.tree.norm(gradients),
            **metrics,
        }
        bank = state.bank
        if bank is not None:
            products = Rows(vectors, batch["product_id"], batch["product_keywords"])
            bank = remember(bank, products, batch["weight"], state.step)
        return TrainState(state.step + 1, new, opt_state, ema, bank), metrics

    states = _shardings(mesh)
    return jax.jit(
        step,
        in_shardings=(states, batch_sharding(mesh)),
        out_shardings=(states, replicated(mesh)),
        donate_argnums=0,
    )


def clamp_scale(params: Params, largest: float) -> Params:
    """The logit scale at most `largest`; done after the update, since a clip inside the loss bends its gradient."""
    return {**params, "log_scale": jnp.minimum(params["log_scale"], jnp.log(largest))}


def average(ema: Params, new: Params, step: jax.Array, decay: float) -> Params:
    """Exponential moving average of the parameters."""
    now = jnp.minimum(decay, (1.0 + step) / (LARGEST_EMA_START + step))
    return optax.incremental_update(new, ema, 1.0 - now)
