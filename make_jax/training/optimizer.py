"""AdamW with warm-up and cosine decay, gradient clipping, and per-parameter learning-rate multipliers."""

import re

import jax
import optax
from flax import traverse_util

from make_jax.config import OptimConfig
from make_jax.errors import InputError
from make_jax.runs.state import Params


def warmup_steps(config: OptimConfig, steps: int) -> int:
    """Returns the steps of warm-up in a run of `steps`: the setting, but at most all steps except the last."""
    return min(config.warmup_steps, steps - 1)


def learning_rate_schedule(config: OptimConfig, steps: int) -> optax.Schedule:
    """Returns the learning rate by step: linear warm-up, then a cosine to `final_lr_ratio` of the peak at `steps`.

    Another schedule is another return value here; its settings are fields of `OptimConfig` in config.py.
    """
    return optax.warmup_cosine_decay_schedule(
        init_value=0.0,
        peak_value=config.learning_rate,
        warmup_steps=warmup_steps(config, steps),
        decay_steps=steps,
        end_value=config.learning_rate * config.final_lr_ratio,
    )


def make_optimizer(config: OptimConfig, steps: int, params: Params) -> optax.GradientTransformation:
    """Returns global-norm clipping followed by AdamW, with one parameter group per learning-rate multiplier.

    Parameters with multiplier 0 are frozen: no update and no optimizer memory. Raises InputError as `lr_multipliers`.
    """
    multipliers = lr_multipliers(config, params)
    schedule = learning_rate_schedule(config, steps)

    def group(multiplier: float) -> optax.GradientTransformation:
        if multiplier == 0.0:
            return optax.set_to_zero()
        return optax.adamw(
            lambda count: multiplier * schedule(count),
            b1=config.beta1,
            b2=config.beta2,
            eps=config.eps,
            weight_decay=config.weight_decay,
            mask=weight_decay_mask,
        )

    groups = {str(multiplier): group(multiplier) for multiplier in set(jax.tree.leaves(multipliers))}
    labels = jax.tree.map(str, multipliers)
    clip = optax.clip_by_global_norm(config.clip_norm) if config.clip_norm else optax.identity()
    return optax.chain(clip, optax.partition(groups, labels))


def lr_multipliers(config: OptimConfig, params: Params) -> Params:
    """Returns the learning-rate multiplier of every parameter: that of the first matching rule, else 1.

    `config.lr_multipliers` are (regex, multiplier) rules, searched in paths like
    `query_encoder/layer_0/attention/query/kernel`. Raises InputError for a rule that matches no parameter.
    """
    rules = config.lr_multipliers
    paths = list(traverse_util.flatten_dict(params, sep="/"))
    for pattern, _ in rules:
        if not any(re.search(pattern, path) for path in paths):
            examples = ", ".join(paths[:5])
            raise InputError(
                f"optim.lr_multipliers: {pattern!r} matches no parameter; parameters have names like {examples}"
            )
    by_path = {path: next((value for pattern, value in rules if re.search(pattern, path)), 1.0) for path in paths}
    return traverse_util.unflatten_dict(by_path, sep="/")


def weight_decay_mask(params: Params) -> Params:
    """Returns True for matrices: no decay on norms, biases, the logit scale, positions and other vectors."""
    # Not traverse_util: optax.partition puts MaskedNodes, which only jax.tree_util skips, in place of other groups.
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: leaf.ndim >= 2 and path[-1].key in ("kernel", "embedding"), params
    )


def freeze(params: Params, multipliers: Params) -> Params:
    """Returns `params` with `stop_gradient` where the multiplier is 0: no backward work, no part in the norm."""
    return jax.tree.map(lambda leaf, value: leaf if value else jax.lax.stop_gradient(leaf), params, multipliers)
