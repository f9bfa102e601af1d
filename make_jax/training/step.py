"""One optimizer step, compiled once."""

from functools import partial

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from make_jax.config import Config
from make_jax.model.make import Make
from make_jax.planning.shapes import StepFunctions
from make_jax.runs.mesh import AnyMesh, batch_sharding, replicated_sharding
from make_jax.runs.sharding import state_shardings
from make_jax.runs.state import Params, TrainState
from make_jax.training.gradient_cache import make_encode, make_gradient
from make_jax.training.optimizer import lr_multipliers, make_optimizer

Batch = dict[str, jax.Array]
Step = jax.stages.Wrapped  # (state, batch) -> (state after it, metrics of it)
LARGEST_EMA_START = 10.0  # the update_ema forgets its random start: decay at step t is at most (1 + t) / (10 + t)


def init_params(model: Make, seed: int) -> Params:
    """Fresh parameters, a function of the seed alone: shapes come from the model's own settings."""
    i = model.inputs
    batch = {
        "query_tokens": jnp.zeros((1, i.max_query_tokens), jnp.int32),
        "query_mask": jnp.ones((1, i.max_query_tokens), bool),
        "title_tokens": jnp.zeros((1, i.max_title_tokens), jnp.int32),
        "title_mask": jnp.ones((1, i.max_title_tokens), bool),
        "image": jnp.zeros((1, i.image_height, i.image_width, 3), jnp.uint8),
        "has_title": jnp.ones(1, bool),
        "has_image": jnp.ones(1, bool),
    }
    return jax.jit(model.init)(jax.random.key(seed), batch)["params"]


def init_state(model: Make, config: Config, mesh: Mesh) -> TrainState:
    """The state before the first step, on the mesh, each part where `runs/sharding.py` says; none is ever whole."""

    def build() -> TrainState:
        return first_state(model, config, init_params(model, config.train.seed))

    return jax.jit(build, out_shardings=state_shardings(jax.eval_shape(build), mesh))()


def first_state(model: Make, config: Config, params: Params) -> TrainState:
    """The state before the first step, of parameters or of their shapes."""
    optimizer = make_optimizer(config.optim, config.train.steps, params)
    ema = jax.tree.map(jnp.copy, params) if config.optim.ema_decay else None
    return TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params), ema)


def make_step(model: Make, config: Config, mesh: AnyMesh, params: Params) -> Step:
    """The compiled step: (state, batch) -> (state after it, metrics of it). The old state's memory is reused.

    `params` gives the tree that rules are matched against; only its structure and shapes are read.
    """
    optimizer = make_optimizer(config.optim, config.train.steps, params)
    gradient = make_gradient(model, config, mesh, params, lr_multipliers(config.optim, params))
    seed = config.train.seed

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, jax.Array]]:
        key = jax.random.fold_in(jax.random.key(seed), state.step)
        loss, metrics, gradients = gradient(state.params, batch, key)
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        new = clamp_logit_scale(optax.apply_updates(state.params, updates), config.optim.max_logit_scale)
        ema = None if state.ema is None else update_ema(state.ema, new, state.step, config.optim.ema_decay)
        metrics = {
            "loss": loss,
            "logit_scale": jnp.exp(new["log_logit_scale"]),
            "gradient_norm": optax.tree.norm(gradients),
            **metrics,
        }
        return TrainState(state.step + 1, new, opt_state, ema), metrics

    states = state_shardings(jax.eval_shape(partial(first_state, model, config), params), mesh)
    return jax.jit(
        step,
        in_shardings=(states, batch_sharding(mesh)),
        out_shardings=(states, replicated_sharding(mesh)),
        donate_argnums=0,
    )


def clamp_logit_scale(params: Params, largest: float) -> Params:
    """The logit scale at most `largest`; done after the update, since a clip inside the loss bends its gradient."""
    return {**params, "log_logit_scale": jnp.minimum(params["log_logit_scale"], jnp.log(largest))}


def update_ema(ema: Params, new: Params, step: jax.Array, decay: float) -> Params:
    """Exponential moving update_ema of the parameters."""
    now = jnp.minimum(decay, (1.0 + step) / (LARGEST_EMA_START + step))
    return optax.incremental_update(new, ema, 1.0 - now)


STEP_FUNCTIONS = StepFunctions(init_params, first_state, make_encode, make_step)  # what a dry run traces
