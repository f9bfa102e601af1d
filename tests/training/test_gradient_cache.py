"""Micro-batches compared with all rows at once on one device: loss, metrics, every gradient; collectives; memory."""

import re
from dataclasses import replace
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from make_jax.config import (
    AdaptationConfig,
    Config,
    ImageConfig,
    InputsConfig,
    MatchingConfig,
    ModelConfig,
    ObjectivesConfig,
    TextConfig,
    TrainConfig,
    check,
)
from make_jax.errors import InputError
from make_jax.model.make import Make, Outputs
from make_jax.objectives.contrastive import ContrastiveInputs, contrastive_loss
from make_jax.objectives.keywords import keyword_loss
from make_jax.objectives.masked import mlm, patch_loss
from make_jax.objectives.matching import matching_losses
from make_jax.objectives.weighted_means import WeightedMean
from make_jax.runs.mesh import batch_sharding, check_micro_batch, make_mesh, replicated_sharding
from make_jax.runs.sharding import partition_specs
from make_jax.training.gradient_cache import make_gradient
from make_jax.training.step import init_params
from tests.training.tiny_batch import random_batch

VOCABULARY, KEYWORDS, B, GROUP = 44, 40, 32, 4
TEXT = TextConfig(layers=0, width=16, heads=2, mlp_width=32, dropout=0.3)
CONFIG = Config(
    inputs=InputsConfig(max_query_tokens=6, max_title_tokens=8, image_height=16, image_width=24),
    model=ModelConfig(
        query=TEXT,
        title=TEXT,
        image=ImageConfig(layers=0, width=16, heads=2, mlp_width=32, dropout=0.3),
        adaptation=AdaptationConfig(weights="gate", gate_width=8),
        matching=MatchingConfig(layers=1, width=16, heads=2, mlp_width=24, dropout=0.3),
        mlm=True,
        mpm="contrastive",
        embedding_dim=16,
    ),
    objectives=ObjectivesConfig(
        title_contrast=0.5, image_contrast=0.5, key=0.1, qim=0.7, qim2=0.3, mlm=0.4, mpm=0.6,
        matching_group=GROUP, margin=0.1,
    ),
    train=TrainConfig(batch_size=B),
)  # fmt: skip
MODEL = Make(CONFIG.model, CONFIG.inputs, VOCABULARY, KEYWORDS)
KEY = jax.random.key(7)


@cache
def batch() -> dict[str, np.ndarray]:
    return random_batch(CONFIG, VOCABULARY, KEYWORDS)


@cache
def params() -> Any:
    """Not the initial ones, whose zero biases and heads would hide errors."""
    rng = np.random.default_rng(2)
    start = jax.device_get(init_params(MODEL, 0))
    moved = jax.tree.map(lambda x: x + rng.normal(0, 0.05, x.shape).astype(np.float32), start)
    return {**moved, "log_logit_scale": np.float32(np.log(9.0))}


@cache
def reference(size: int) -> Any:
    """(loss, parts), gradients: one device, all groups of `size` rows in parallel (vmap), no loop, no recomputation."""
    model, o, count = MODEL, CONFIG.objectives, B // size
    rows = {name: jnp.asarray(value) for name, value in batch().items()}
    sampling_key, dropout_key = jax.random.split(KEY)
    keys = jax.vmap(lambda i: jax.random.split(jax.random.fold_in(dropout_key, i)))(jnp.arange(count))
    split = lambda tree: jax.tree.map(lambda x: x.reshape(count, -1, *x.shape[1:]), tree)  # noqa: E731
    merged = lambda tree: jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), tree)  # noqa: E731

    def loss(params: Any) -> Any:
        def call(key: Any, arguments: Any, **named: Any) -> Any:
            return model.apply({"params": params}, *arguments, train=True, rngs={"dropout": key}, **named)

        out: Outputs = jax.vmap(lambda key, rows: call(key, (rows,)))(keys[:, 0], split(rows))
        out = merged(out._replace(log_logit_scale=out.log_logit_scale[:, None], logit_bias=out.logit_bias[:, None]))
        out = out._replace(log_logit_scale=out.log_logit_scale[0], logit_bias=out.logit_bias[0])

        def apply(method: Any, *arguments: Any) -> Any:
            words = tuple(x for x in arguments if isinstance(x, str))
            arrays = split(arguments[: len(arguments) - len(words)])
            return merged(jax.vmap(lambda key, part: call(key, (*part, *words), method=method))(keys[:, 1], arrays))

        def contrast(embeddings: Any, weights: Any, **more: Any) -> Any:
            queries = ContrastiveInputs(out.query.vectors, rows["query_id"], rows["query_keywords"])
            products = ContrastiveInputs(embeddings, rows["product_id"], rows["product_keywords"])
            return contrastive_loss(queries, products, out.log_logit_scale, weights=weights, margin=o.margin, **more)

        w = rows["weight"]
        swaps = ContrastiveInputs(out.swap.vectors, jnp.where(rows["swap_mask"].any(1), 0, -1))
        terms: dict[str, Any] = {}
        terms["qic"], metrics = contrast(out.product.vectors, w, swaps=swaps)
        terms |= metrics
        for name in ("title", "image"):
            terms[f"{name}_contrast"], _ = contrast(getattr(out.product, name), w * rows[f"has_{name}"])
        terms["key"] = keyword_loss(out.query.logits, rows["product_keywords"], w)
        losses, metrics = matching_losses(o, out, rows, apply, sampling_key, jnp.zeros((), jnp.int32))
        terms["mlm"], more = mlm(out, rows, apply)
        terms |= losses | metrics | more
        patches = apply(Make.predict_patches, rows["image"], rows["patch_mask"])
        each, more = jax.vmap(patch_loss)(split(patches), split(w))  # negatives come from rows encoded together
        terms |= {name: WeightedMean(m.total.sum(), m.weight.sum()) for name, m in ({"mpm": each} | more).items()}
        both = w * (rows["has_title"] & rows["has_image"])
        terms["title_weight"] = WeightedMean(jnp.sum(both * out.product.weights[:, 0]), jnp.sum(both))
        terms = {name: value.value if isinstance(value, WeightedMean) else value for name, value in terms.items()}
        return sum(getattr(o, name) * value for name, value in terms.items() if hasattr(o, name)), terms

    return jax.device_get(jax.jit(jax.value_and_grad(loss, has_aux=True))(params()))


@cache
def program(devices: int, fsdp: int, size: int, config: Config = CONFIG) -> Any:
    """The compiled function of (parameters, batch, key), with its arguments."""
    model = Make(config.model, config.inputs, VOCABULARY, KEYWORDS)
    start = params() if config == CONFIG else jax.device_get(init_params(model, 0))
    mesh = make_mesh(fsdp, jax.devices()[:devices])
    config = replace(config, train=replace(config.train, micro_batch_size=size))
    gradient = make_gradient(model, config, mesh, start, jax.tree.map(lambda _: 1.0, start))
    split = jax.tree.map(lambda spec: jax.sharding.NamedSharding(mesh, spec), partition_specs(start, mesh))
    places = (split, batch_sharding(mesh), replicated_sharding(mesh))
    arguments = jax.device_put((start, batch(), KEY), places)
    return jax.jit(gradient).lower(*arguments).compile(), arguments


def cached_result(*which: Any, seed: int = 0) -> Any:
    """(loss, metrics), gradients; with `seed`, of other initial parameters."""
    compiled, (start, *rest) = program(*which)
    if seed:
        other = init_params(Make(which[3].model, which[3].inputs, VOCABULARY, KEYWORDS), seed)
        start = jax.tree.map(lambda new, old: jax.device_put(np.asarray(new), old.sharding), other, start)
    loss, metrics, gradients = jax.device_get(compiled(start, *rest))
    return (loss, metrics), gradients


def assert_equal(actual: Any, expected: Any, tolerance: float, sizes: dict[str, float] | None = None) -> None:
    """max|difference| / max|reference| of the loss, of each metric and of the gradient of each parameter.

    `sizes` gives the reference of metrics whose own value is near 0.
    """
    (loss, metrics), gradients = actual
    (expected_loss, expected_metrics), expected_gradients = expected
    assert abs(loss - expected_loss) <= tolerance * abs(expected_loss)
    assert metrics.keys() == expected_metrics.keys()
    for name, value in expected_metrics.items():
        assert abs(metrics[name] - value) <= tolerance * max(abs(value), (sizes or {}).get(name, 1e-30)), name
    assert not {name: e for name, e in errors_of(gradients, expected_gradients).items() if not e <= tolerance}


def errors_of(gradients: Any, expected: Any) -> dict[str, float]:
    """max|difference| / max|reference| of each parameter's gradient; 0 where both are 0."""
    if not expected:
        return {}
    ours, largest = flatten_dict(gradients, sep="/"), max(np.abs(x).max() for x in jax.tree.leaves(expected))
    errors = {}
    theirs = flatten_dict(expected, sep="/")
    for name, gradient in theirs.items():
        scale = np.abs(gradient).max()
        if name.endswith("key/bias"):  # a softmax is invariant to a constant added to all logits: 0 up to rounding
            scale = largest
        elif name.endswith("gate/bias"):  # one number, a sum over rows that cancel to a fiftieth of the kernel's
            scale = np.abs(theirs[name.removesuffix("bias") + "kernel"]).max()
        difference = np.abs(ours[name] - gradient).max()
        errors[name] = float(difference / scale) if scale else float(difference > 0)
    return errors


@pytest.mark.parametrize(
    ("devices", "fsdp", "size"),
    [(1, 1, 4), (4, 2, 4), (8, 4, 4), (2, 1, 8)],  # micro-batches per device: 8, 2, 1, 2
)
def test_equals_all_rows_at_once_with_dropout_and_every_objective(devices, fsdp, size):
    assert_equal(cached_result(devices, fsdp, size), reference(size), 1e-5)


def test_bfloat16_remat_and_split_parameters_by_ring_equal_all_rows_at_once():
    """Without dropout, whose keys depend on the micro-batches."""
    text, image = (replace(tower, layers=1, dropout=0.0) for tower in (CONFIG.model.query, CONFIG.model.image))
    model = replace(CONFIG.model, query=text, title=text, image=image, matching=MatchingConfig(), mlm=False, mpm="none")
    objectives = ObjectivesConfig(title_contrast=0.5, key=0.1)
    plain = replace(CONFIG, model=replace(model, dtype="bfloat16"), objectives=objectives)
    cached = replace(
        plain, model=replace(plain.model, remat=True), objectives=replace(objectives, implementation="ring", tile=3)
    )
    float32 = replace(plain, model=replace(plain.model, dtype="float32"))
    excess: list[dict[str, float]] = []
    for seed in range(8):
        ours, theirs = cached_result(4, 2, 4, cached, seed=seed), cached_result(1, 1, 0, plain, seed=seed)
        exact = cached_result(1, 1, 0, float32, seed=seed)
        # The mean of cosines of either sign is near 0 here: the tolerance is relative to their size.
        assert_equal((ours[0], {}), (theirs[0], {}), 2**-7, {"positive": 1.0})
        errors, plain_errors = errors_of(ours[1], exact[1]), errors_of(theirs[1], exact[1])
        excess.append({name: errors[name] - plain_errors[name] for name in errors})
    # Both round, each parameter by chance more or less: on average micro-batches differ from float32 no more than all
    # rows at once do, within 2^-8.
    means = {name: float(np.mean([each[name] for each in excess])) for name in excess[0]}
    assert not {name: mean for name, mean in means.items() if not mean <= 2**-8}


def collectives(text: str) -> list[tuple[str, str, str]]:
    """(computation, operation, result type) of every collective in a compiled program."""
    made, computation = [], ""
    for line in text.splitlines():
        if line.endswith("{") and " -> " in line:
            computation = line.split()[0]
        if named := re.search(r"= (.*?) (all-reduce|reduce-scatter|all-gather)(-start)?\(", line):
            made.append((computation, named[2], named[1]))
    return made


def shape_of(name: str, parts: int = 1) -> str:
    """A parameter's shape in HLO text, its last axis split into `parts`."""
    *rest, last = flatten_dict(params(), sep="/")[name].shape
    return f"f32[{','.join(map(str, (*rest, last // parts)))}]"


SHARDED, REPLICATED = "matching/layer_0/mlp/in/kernel", "enhancement/embedding"  # with shapes that no other array has


def test_gradients_are_all_reduced_once_and_outside_the_loop():
    made = collectives(program(2, 1, 8)[0].as_text())
    [(where, operation, what)] = [each for each in made if shape_of(REPLICATED) in each[2]]
    assert (where, operation) == ("ENTRY", "all-reduce")
    sizes = [int(np.prod([int(n) for n in dims.split(",") if n])) for dims in re.findall(r"f32\[([\d,]*)\]", what)]
    trained = {name: tree for name, tree in params().items() if name != "keyword_evidence"}  # fitted afterwards
    assert sum(sizes) >= sum(leaf.size for leaf in jax.tree.leaves(trained))
    assert not [each for each in made if each[0] != "ENTRY"]


def test_split_gradients_are_scattered_once_and_split_parameters_gathered_once():
    made = collectives(program(4, 2, 4)[0].as_text())
    assert not [each for each in made if each[0] != "ENTRY"]
    by_operation = {name: [each[2] for each in made if each[1] == name] for name in ("all-gather", "reduce-scatter")}
    assert sum(shape_of(SHARDED) in what for what in by_operation["all-gather"]) == 1
    assert sum(shape_of(SHARDED, 2) in what for what in by_operation["reduce-scatter"]) == 1
    assert not any(shape_of(REPLICATED) in what for what in by_operation["all-gather"])
    assert sum(shape_of(REPLICATED) in each[2] for each in made) == 1


def test_memory_does_not_grow_with_the_batch_except_for_embeddings():
    """Temporary buffers of one device; the ring loss has no B x B matrix that would hide the rest."""
    objectives = ObjectivesConfig(implementation="ring", tile=16)
    config = replace(CONFIG, objectives=objectives, train=replace(CONFIG.train, micro_batch_size=16))
    model, mesh = Make(CONFIG.model, CONFIG.inputs, VOCABULARY, KEYWORDS), make_mesh(devices=jax.devices()[:1])
    gradient = make_gradient(model, config, mesh, params(), jax.tree.map(lambda _: 1.0, params()))

    def temporary(count: int) -> int:
        rows = random_batch(replace(config, train=replace(config.train, batch_size=count)), VOCABULARY, KEYWORDS)
        return jax.jit(gradient).lower(params(), rows, KEY).compile().memory_analysis().temp_size_in_bytes

    small, large = temporary(64), temporary(1024)
    vectors = 5 * 16 * 4  # bytes a row: three embeddings, each with its cotangent, in float32
    assert small < large < small + 4 * vectors * (1024 - 64)


def test_a_micro_batch_size_that_does_not_divide_a_devices_rows_is_an_error():
    mesh = make_mesh()
    check_micro_batch(256, 0, mesh)
    check_micro_batch(256, 32, mesh)
    with pytest.raises(InputError) as caught:
        check_micro_batch(256, 12, mesh)
    assert str(caught.value) == (
        "train.micro_batch_size is 12, which does not divide the 32 rows that each of 8 devices has of "
        "train.batch_size 256; set it to 8 or 16"
    )
    with pytest.raises(InputError, match=r"set it to 32$"):
        check_micro_batch(256, 64, mesh)
    with pytest.raises(
        InputError, match=r"micro_batch_size is 6, expected a multiple of .*matching_group 4, like 4 or 8"
    ):
        check(replace(CONFIG, train=replace(CONFIG.train, micro_batch_size=6)))
