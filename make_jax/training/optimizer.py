"""AdamW with warm-up, cosine decay, clipping, and ordered rules for freezing and learning rates."""

import re
from typing import Any

import jax
import optax

from make_jax.config import OptimConfig
from make_jax.errors import InputError
from make_jax.runs.state import Params


def learning_rate_schedule(config: OptimConfig, steps: int) -> optax.Schedule:
    """Linear warm-up to `learning_rate_schedule`, then a cosine to its `final_lr_ratio` share at step `steps`."""
    return optax.warmup_cosine_decay_schedule(
        init_value=0.0,
        peak_value=config.learning_rate,
        warmup_steps=config.warmup_steps,
        decay_steps=steps,
        end_value=config.learning_rate * config.final_lr_ratio,
    )


def make_optimizer(config: OptimConfig, steps: int, params: Params) -> optax.GradientTransformation:
    """Clipping by the global norm, then AdamW with a factor on the learning rate for each parameter.

    Parameters that a rule freezes get no update and cost no optimizer memory. Raises InputError for a rule that
    matches nothing.
    """
    factors = lr_multipliers(config, params)
    schedule = learning_rate_schedule(config, steps)

    def group(factor: float) -> optax.GradientTransformation:
        if factor == 0.0:
            return optax.set_to_zero()
        return optax.adamw(
            lambda count: factor * schedule(count),
            b1=config.beta1,
            b2=config.beta2,
            eps=config.eps,
            weight_decay=config.weight_decay,
            mask=weight_decay_mask,
        )

    groups = {str(factor): group(factor) for factor in set(jax.tree.leaves(factors))}
    labels = jax.tree.map(str, factors)
    clip = optax.clip_by_global_norm(config.clip_norm) if config.clip_norm else optax.identity()
    return optax.chain(clip, optax.partition(groups, labels))


def lr_multipliers(config: OptimConfig, params: Params) -> Params:
    """The learning rate factor of every parameter: of the first rule whose regex is found in its path, else 1."""
    paths = [path for path, _ in named_leaves(params)]
    unmatched = {pattern for pattern, _ in config.lr_multipliers}
    found: dict[str, float] = {}
    for path in paths:
        for pattern, factor in config.lr_multipliers:
            if re.search(pattern, path):
                unmatched.discard(pattern)
                found.setdefault(path, factor)
    if unmatched:
        near = ", ".join(paths[:5])
        raise InputError(
            f"optim.lr_multipliers: {sorted(unmatched)[0]!r} matches no parameter; parameters have names like {near}"
        )
    return jax.tree_util.tree_map_with_path(lambda path, _: found.get(path_name(path), 1.0), params)


def weight_decay_mask(params: Params) -> Params:
    """True for the matrices: no decay on norms, biases, scale, positions and other vectors that share no input."""
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: leaf.ndim >= 2 and path_name(path).rsplit("/", 1)[-1] in ("kernel", "embedding"), params
    )


def freeze(params: Params, factors: Params) -> Params:
    """`params` with no gradient where the factor is 0: frozen parameters neither cost work nor enter the norm."""
    return jax.tree.map(lambda leaf, factor: leaf if factor else jax.lax.stop_gradient(leaf), params, factors)


def named_leaves(params: Params) -> list[tuple[str, Any]]:
    """(path, leaf) pairs, paths like `query_encoder/layer_0/attention/query/kernel`."""
    return [(path_name(path), leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(params)]


def path_name(path: tuple[Any, ...]) -> str:
    """A key path as text."""
    return jax.tree_util.keystr(path, simple=True, separator="/")
