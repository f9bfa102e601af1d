"""The training step: gradient, optimizer update, logit-scale clamp, parameter average; compiled once."""

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
Metrics = dict[str, jax.Array]
Step = jax.stages.Wrapped  # (state, batch) -> (next state, metrics)
EMA_WARMUP = 10.0  # decay at step t is at most (1 + t) / (EMA_WARMUP + t), so the average forgets its random start


def init_params(model: Make, seed: int) -> Params:
    """Returns freshly initialized parameters; they depend on `seed` only."""
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
    """Returns the state before the first step, created with its shardings, so that no device ever holds all of it."""

    def build() -> TrainState:
        return first_state(model, config, init_params(model, config.train.seed))

    return jax.jit(build, out_shardings=state_shardings(jax.eval_shape(build), mesh))()


def first_state(model: Make, config: Config, params: Params) -> TrainState:
    """Returns the state before the first step; `params` are arrays, or their shapes under `jax.eval_shape`."""
    optimizer = make_optimizer(config.optim, config.train.steps, params)
    ema = jax.tree.map(jnp.copy, params) if config.optim.ema_decay else None
    return TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params), ema)


def make_step(model: Make, config: Config, mesh: AnyMesh, params: Params) -> Step:
    """Returns the jitted step (state, batch) -> (next state, metrics); it donates the old state's memory.

    Only the structure and shapes of `params` are read. Raises InputError for an lr_multipliers rule without a match.
    """
    optimizer = make_optimizer(config.optim, config.train.steps, params)
    gradient = make_gradient(model, config, mesh, params, lr_multipliers(config.optim, params))
    seed = config.train.seed

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        key = jax.random.fold_in(jax.random.key(seed), state.step)
        loss, metrics, gradients = gradient(state.params, batch, key)
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        params = clamp_logit_scale(optax.apply_updates(state.params, updates), config.optim.max_logit_scale)
        ema = None if state.ema is None else update_ema(state.ema, params, state.step, config.optim.ema_decay)
        metrics = {
            "loss": loss,
            "logit_scale": jnp.exp(params["log_logit_scale"]),
            "gradient_norm": optax.tree.norm(gradients),
            **metrics,
        }
        return TrainState(state.step + 1, params, opt_state, ema), metrics

    shardings = state_shardings(jax.eval_shape(partial(first_state, model, config), params), mesh)
    return jax.jit(
        step,
        in_shardings=(shardings, batch_sharding(mesh)),
        out_shardings=(shardings, replicated_sharding(mesh)),
        donate_argnums=0,
    )


def clamp_logit_scale(params: Params, maximum: float) -> Params:
    """Returns `params` with the logit scale at most `maximum`; a clip inside the loss would change its gradient."""
    return {**params, "log_logit_scale": jnp.minimum(params["log_logit_scale"], jnp.log(maximum))}


def update_ema(ema: Params, params: Params, step: jax.Array, decay: float) -> Params:
    """Returns the exponential moving average of the parameters, with a warm-up of the decay."""
    decay_now = jnp.minimum(decay, (1.0 + step) / (EMA_WARMUP + step))
    return optax.incremental_update(params, ema, 1.0 - decay_now)


STEP_FUNCTIONS = StepFunctions(init_params, first_state, make_encode, make_step)  # what a dry run traces
