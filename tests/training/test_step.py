"""The compiled step: device counts, learning-rate multipliers, weight decay, averaging, clamping."""

from dataclasses import replace
from typing import Any

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from make_jax.config import Config, ObjectivesConfig, OptimConfig
from make_jax.errors import InputError
from make_jax.model.make import Make
from make_jax.runs.mesh import check_batch, make_mesh, shard_batch
from make_jax.training.optimizer import lr_multipliers, weight_decay_mask
from make_jax.training.step import init_params, init_state, make_step
from tests.training.tiny_run import tiny_config

VOCABULARY, KEYWORDS, STEPS = 60, 40, 20


@pytest.fixture(scope="module")
def full_config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """All terms of the contrastive loss: auxiliary terms, keywords, swaps."""
    c = tiny_config(tmp_path_factory.mktemp("step"), steps=STEPS)
    return replace(c, optim=OptimConfig(warmup_steps=2, learning_rate=3e-3))


@pytest.fixture(scope="module")
def small_config(full_config: Config) -> Config:
    """A model that compiles fast, for tests that do not depend on the objectives."""
    model = replace(full_config.model, enrichment=False, keyword_dims=0)
    return replace(full_config, model=model, objectives=ObjectivesConfig(keyword_swaps=False))


@pytest.fixture(scope="module")
def three_steps(full_config: Config) -> tuple[list[dict[str, float]], Any]:
    """The metrics of three steps on two devices, and the state after them."""
    optim = replace(full_config.optim, max_logit_scale=13.0, ema_decay=0.9)
    return run(replace(full_config, optim=optim, model=replace(full_config.model, initial_logit_scale=13.0)), 2, 3)


def batches(c: Config, count: int) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    b, i = c.train.batch_size, c.inputs
    made = [
        {
            "query_tokens": rng.integers(0, VOCABULARY, (b, i.max_query_tokens)).astype(np.int32),
            "query_mask": np.arange(i.max_query_tokens)[None] < rng.integers(1, 7, b)[:, None],
            "title_tokens": rng.integers(0, VOCABULARY, (b, i.max_title_tokens)).astype(np.int32),
            "title_mask": np.arange(i.max_title_tokens)[None] < rng.integers(1, 9, b)[:, None],
            "image": rng.integers(0, 256, (b, i.image_height, i.image_width, 3)).astype(np.uint8),
            "has_title": np.arange(b) % 5 != 0,
            "has_image": np.arange(b) % 5 != 1,
            "query_id": rng.integers(0, 12, b).astype(np.int32),
            "product_id": rng.integers(0, 12, b).astype(np.int32),
            "query_keywords": rng.integers(0, 4, (b, 2)).astype(np.uint32),
            "product_keywords": rng.integers(0, 8, (b, 2)).astype(np.uint32),
            "swap_tokens": rng.integers(0, VOCABULARY, (b, i.max_query_tokens)).astype(np.int32),
            "swap_mask": np.arange(i.max_query_tokens)[None] < rng.integers(0, 7, b)[:, None],
            "weight": (np.arange(b) != 3).astype(np.float32),
        }
        for _ in range(count)
    ]
    return [{k: v for k, v in b.items() if c.objectives.keyword_swaps or not k.startswith("swap")} for b in made]


def run(c: Config, devices: int, count: int = STEPS) -> tuple[list[dict[str, float]], Any]:
    mesh = make_mesh(devices=jax.devices()[:devices])
    model = Make(c.model, c.inputs, VOCABULARY, KEYWORDS)
    state = init_state(model, c, mesh)
    step = make_step(model, c, mesh, state.params)
    logged = []
    for batch in batches(c, count):
        state, metrics = step(state, shard_batch(batch, mesh))
        logged.append({name: float(value) for name, value in metrics.items()})
    return logged, state


def losses(c: Config, devices: int) -> np.ndarray:
    return np.array([metrics["loss"] for metrics in run(c, devices)[0]])


def test_losses_do_not_depend_on_the_device_count(full_config):
    one_device = losses(full_config, 1)
    assert one_device[-1] < one_device[0]
    for devices in (2, 8):
        np.testing.assert_allclose(losses(full_config, devices), one_device, rtol=1e-5)


def test_frozen_parameters_stay_and_others_change(small_config):
    c = replace(
        small_config,
        optim=replace(small_config.optim, lr_multipliers=(("title_encoder/layer", 0.0), ("title_encoder", 0.1))),
    )
    model = Make(c.model, c.inputs, VOCABULARY, KEYWORDS)
    before = flatten_dict(init_params(model, c.train.seed), sep="/")
    after = flatten_dict(run(c, 1, 2)[1].params, sep="/")
    for name, leaf in after.items():
        same = np.array_equal(leaf, before[name])
        if "title_encoder/layer" in name:
            assert same, name
        elif name.endswith("kernel") and "gate" not in name:
            assert not same, name


def test_the_first_matching_rule_counts_and_a_rule_without_a_match_is_an_error(small_config):
    params = init_params(Make(small_config.model, small_config.inputs, VOCABULARY, KEYWORDS), 0)
    rules = (("layer_0/attention", 0.0), ("query_encoder", 0.5))
    multipliers = flatten_dict(lr_multipliers(replace(small_config.optim, lr_multipliers=rules), params), sep="/")
    assert multipliers["query_encoder/layer_0/attention/out/bias"] == 0.0
    assert multipliers["query_encoder/layer_0/mlp/in/kernel"] == 0.5
    assert multipliers["image_encoder/patch/kernel"] == 1.0
    with pytest.raises(InputError, match=r"optim.lr_multipliers: 'nowhere' matches no parameter"):
        lr_multipliers(replace(small_config.optim, lr_multipliers=(("nowhere", 0.0),)), params)


def test_no_weight_decay_on_norms_biases_logit_scale_and_positions(small_config):
    params = init_params(Make(small_config.model, small_config.inputs, VOCABULARY, KEYWORDS), 0)
    for name, decays in flatten_dict(weight_decay_mask(params), sep="/").items():
        assert decays == name.endswith(("kernel", "embedding")), name


def test_the_logit_scale_is_clamped_after_the_update(three_steps):
    logged, state = three_steps
    assert np.exp(state.params["log_logit_scale"]) <= 13.0 * (1 + 1e-6)
    assert any(abs(step["logit_scale"] - 13.0) < 1e-4 for step in logged)  # the bound was reached


def test_objectives_are_logged_by_name_and_add_up_to_the_loss(full_config, three_steps):
    for step in three_steps[0]:
        parts = ("qic", "title_contrast", "image_contrast", "key")
        total = sum(getattr(full_config.objectives, name) * step[name] for name in parts)
        np.testing.assert_allclose(step["loss"], total, rtol=1e-5)


def test_averaged_parameters_are_between_initial_and_final_ones(full_config, three_steps):
    _, state = three_steps
    assert state.eval_params is state.ema
    kernel = lambda tree: np.asarray(tree["image_encoder"]["patch"]["kernel"])  # noqa: E731
    start = kernel(init_params(Make(full_config.model, full_config.inputs, VOCABULARY, KEYWORDS), 0))
    moved = np.abs(kernel(state.params) - start).mean()
    assert 0 < np.abs(kernel(state.ema) - start).mean() < moved


def test_a_batch_size_that_is_no_multiple_of_the_device_count_is_an_error():
    with pytest.raises(InputError, match=r"train.batch_size is 12, which 8 devices do not divide; set it to 8 or 16"):
        check_batch(12, make_mesh())
    with pytest.raises(InputError, match=r"train.fsdp is 3, which does not divide the 8 devices"):
        make_mesh(fsdp=3)
