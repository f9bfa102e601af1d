"""Sharding rules: matches, errors, and checkpoints across device counts."""

from dataclasses import replace
from functools import cache, partial
from typing import Any

import jax
import numpy as np
import pytest
from flax import linen as nn
from jax.sharding import PartitionSpec

from make_jax.config import (
    AdaptationConfig,
    Config,
    ImageConfig,
    InputsConfig,
    MatchingConfig,
    ModelConfig,
    OptimConfig,
    TextConfig,
)
from make_jax.errors import InputError
from make_jax.model.make import Make
from make_jax.runs import named_leaves
from make_jax.runs.mesh import make_mesh
from make_jax.runs.sharding import LAST_AXIS, PARTITION_RULES, partition_specs, state_shardings
from make_jax.training.step import first_state, init_params, init_state

VOCABULARY, KEYWORDS = 39, 40  # 39: no device count divides it
REPLICATED = PartitionSpec()
TEXT = TextConfig(layers=1, width=16, heads=2, mlp_width=32)
CONFIG = Config(
    inputs=InputsConfig(max_query_tokens=6, max_title_tokens=8, image_height=16, image_width=16),
    model=ModelConfig(
        query=TEXT,
        title=TEXT,
        image=ImageConfig(layers=1, width=16, heads=2, mlp_width=32),
        adaptation=AdaptationConfig(gate_width=8, cross_attention=True),
        matching=MatchingConfig(layers=1, width=16, heads=2, mlp_width=32),
        mlm=True,
        mpm="contrastive",
        embedding_dim=16,
    ),
    optim=OptimConfig(ema_decay=0.9, lr_multipliers=(("image_encoder", 0.0), ("query", 0.5))),
)


@cache
def params(**changed: Any) -> Any:
    """Shapes of the parameters of a model."""
    return jax.eval_shape(lambda: init_params(model(**changed), 0))


def model(**changed: Any) -> Make:
    return Make(replace(CONFIG.model, **changed), CONFIG.inputs, VOCABULARY, KEYWORDS)


def specs(tree: Any, fsdp: int = 4) -> dict[str, PartitionSpec]:
    by_name = partition_specs(tree, make_mesh(fsdp))
    return {"/".join(name): spec for name, spec in named_leaves.flatten(by_name).items()}


def test_large_matrices_of_every_encoder_are_sharded_and_small_ones_replicated():
    by_name = specs(params())
    for name in (
        "query_encoder/layer_0/attention/query/kernel",
        "title_encoder/layer_0/mlp/in/kernel",
        "image_encoder/layer_0/mlp/out/kernel",
        "image_encoder/patch/kernel",
        "title_encoder/word/embedding",
        "adaptation/title_attends_image/attention/out/kernel",
        "title_head/attends_image/mlp/in/kernel",
        "query_head/transform/kernel",
        "matching/layer_0/cross_attention/value/kernel",
        "matching/image/kernel",
    ):
        assert by_name[name] == LAST_AXIS, name
    for name in (
        "query_encoder/layer_0/attention_norm/scale",
        "query_encoder/layer_0/attention/query/bias",
        "query_encoder/position",
        "query_projection/kernel",
        "adaptation/title_projection/kernel",
        "enhancement/embedding",
        "keyword_evidence/title/predict/kernel",
        "patch_head/target/kernel",
        "matching/item_head/kernel",
        "log_logit_scale",
    ):
        assert by_name[name] == REPLICATED, name


def test_sharded_layers_compute_in_the_models_dtype():
    """Casting to it before the gather then changes no result: no float32 layer has a split kernel."""
    dtypes: dict[str, Any] = {}

    def note(next_fun: Any, args: Any, kwargs: Any, context: Any) -> Any:
        out = next_fun(*args, **kwargs)
        if hasattr(context.module, "dtype") and context.method_name == "__call__":
            dtypes["/".join(context.module.path)] = context.module.dtype
        return out

    with nn.intercept_methods(note):
        jax.eval_shape(lambda: init_params(model(dtype="bfloat16"), 0))
    for name, spec in specs(params()).items():
        if spec == LAST_AXIS:
            assert dtypes[name.rsplit("/", 1)[0]] == np.dtype("bfloat16"), name


@pytest.mark.parametrize("modalities", ["title", "image"])
def test_models_without_an_encoder_match_every_rule(modalities):
    adaptation = AdaptationConfig(modalities=modalities)
    small = params(adaptation=adaptation, matching=MatchingConfig(), mlm=False, mpm="none")
    assert LAST_AXIS in specs(small).values()
    assert LAST_AXIS in specs(params(adaptation=AdaptationConfig(single_stream=True), mpm="none")).values()


def test_moments_and_averages_are_sharded_like_their_parameters():
    state = jax.eval_shape(partial(first_state, model(), CONFIG), params())
    by_name = specs(params())
    placed = {"/".join(name): s for name, s in named_leaves.flatten(state_shardings(state, make_mesh(4))).items()}
    moments = 0
    for name, sharding in placed.items():
        owner = next((path for path in by_name if name.endswith(f"/{path}")), None)
        if owner is None:
            assert sharding.spec == REPLICATED, name
        else:
            assert sharding.spec == by_name[owner], name
            moments += "/mu/" in name
    assert moments > 20
    assert not any("/mu/image_encoder" in name for name in placed)  # frozen


def test_a_rule_that_matches_nothing_is_an_error_with_near_paths():
    rules = (("query_encoder/layer_9/mlp/in/kernel", LAST_AXIS), *PARTITION_RULES)
    with pytest.raises(InputError) as caught:
        partition_specs(params(), make_mesh(4), rules)
    assert "the rule 'query_encoder/layer_9/mlp/in/kernel' matches nothing" in str(caught.value)
    assert "query_encoder/layer_0/mlp/in/kernel" in str(caught.value)
    with pytest.raises(InputError, match="no rule matches adaptation/"):
        partition_specs(params(), make_mesh(4), PARTITION_RULES[:1])


def test_the_first_matching_rule_applies():
    rules = (("query_encoder/.*mlp", REPLICATED), *PARTITION_RULES)
    by_name = named_leaves.flatten(partition_specs(params(), make_mesh(4), rules))
    assert by_name["query_encoder", "layer_0", "mlp", "in", "kernel"] == REPLICATED
    assert by_name["title_encoder", "layer_0", "mlp", "in", "kernel"] == LAST_AXIS


def test_a_width_that_fsdp_does_not_divide_is_an_error():
    with pytest.raises(InputError) as caught:
        specs(params(image=ImageConfig(layers=1, width=12, heads=2, mlp_width=32)), fsdp=8)
    assert "train.fsdp is 8, which does not divide axis 1 of " in str(caught.value)
    assert "set it to 6" in str(caught.value)


def test_state_sharded_over_4_devices_restores_on_1_and_2(checkpoints):
    config = replace(CONFIG, train=replace(CONFIG.train, batch_size=8))
    state = init_state(model(mlm=False, mpm="none", matching=MatchingConfig()), config, make_mesh(4))
    kernel = state.opt_state[1].inner_states["1.0"].inner_state[0].mu["title_encoder"]["layer_0"]["mlp"]["in"]["kernel"]
    assert kernel.addressable_shards[0].data.shape == (16, 8)  # of [16, 32]
    checkpoints.save("last", 0, state, {})
    checkpoints.wait()
    for fsdp, devices in ((1, 1), (2, 2), (2, 8)):
        mesh = make_mesh(fsdp, jax.devices()[:devices])
        shardings = state_shardings(jax.eval_shape(lambda: state), mesh)
        template = jax.tree.map(
            lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), state, shardings
        )
        restored, _ = checkpoints.restore(template)
        assert restored.params["title_encoder"]["word"]["embedding"].sharding.mesh.shape["fsdp"] == fsdp
        jax.tree.map(np.testing.assert_array_equal, jax.device_get(restored), jax.device_get(state))
