"""The dry run against a real initialization and the compiler, on eight simulated devices."""

import importlib.util
import runpy
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from make_jax.cli.train_options import split_dry_run
from make_jax.config import Config, ImageConfig, ObjectivesConfig, TextConfig
from make_jax.errors import InputError
from make_jax.planning.compile import compile_for_tpu
from make_jax.planning.dry_run import DryRunReport, dry_run, trace_step
from make_jax.planning.hardware import MACHINES, machine_name, tpu_topology
from make_jax.planning.live_memory import peak_live_bytes
from make_jax.planning.report import format_report
from make_jax.planning.roofline import step_time_bounds
from make_jax.planning.shapes import batch_shapes, bytes_per_device, largest_model, state_shapes
from make_jax.runs.mesh import abstract_mesh, make_mesh
from make_jax.training.step import STEP_FUNCTIONS, init_state, make_step
from tests.conftest import ROOT
from tests.training.tiny_run import tiny_config

MIB = 2**20
TEXT = TextConfig(layers=2, width=128, heads=2, mlp_width=512, dropout=0.1)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """Wide enough that matrix products dominate, with few tokens; fsdp 2."""
    c = tiny_config(tmp_path_factory.mktemp("dry"), batch_size=128, fsdp=2)
    image = ImageConfig(layers=2, width=128, heads=2, mlp_width=512, patch_size=4)
    model = replace(c.model, query=TEXT, title=TEXT, image=image, embedding_dim=64)
    inputs = replace(c.inputs, max_keywords=256)
    return replace(c, model=model, inputs=inputs, objectives=ObjectivesConfig(key=0.1, keyword_swaps=False))


@pytest.fixture(scope="module")
def report(config: Config) -> DryRunReport:
    return dry_run(config, STEP_FUNCTIONS, "cpu", 8)


@pytest.fixture(scope="module")
def compiled(config: Config) -> Any:
    """The step compiled for eight devices."""
    model, mesh = largest_model(config), make_mesh(2)
    state = state_shapes(model, config, mesh, STEP_FUNCTIONS)
    return make_step(model, config, mesh, state.params).lower(state, batch_shapes(model, config, mesh)).compile()


@pytest.fixture(scope="module")
def h100(config: Config) -> tuple[DryRunReport, int]:
    """A dry run for absent GPUs, and the bytes of all arrays that it allocated."""
    before = {id(array) for array in jax.live_arrays()}
    report = dry_run(config, STEP_FUNCTIONS, "h100", 8)
    return report, sum(array.nbytes for array in jax.live_arrays() if id(array) not in before)


def test_allocates_nothing(h100):
    assert h100[1] < 1024  # a key, and the constants of schedules


def test_bytes_of_state_and_batch_equal_those_of_a_real_initialization_and_of_the_compiler(config, report, compiled):
    state = init_state(largest_model(config), config, make_mesh(2))
    first = jax.devices()[0]

    def held(tree: Any) -> int:
        shards = [shard for leaf in jax.tree.leaves(tree) for shard in leaf.addressable_shards]
        return sum(shard.data.nbytes for shard in shards if shard.device == first)

    assert report.resident["parameters"] == held(state.params)
    assert report.resident["optimizer"] == held(state.opt_state)
    assert report.parameters == sum(leaf.size for leaf in jax.tree.leaves(state.params))
    step_count = 4  # bytes, not in the report
    assert sum(report.resident.values()) + step_count == compiled.memory_analysis().argument_size_in_bytes


def test_this_machines_devices_are_compiled_for(config, compiled):
    local = dry_run(config, STEP_FUNCTIONS)
    assert local.compiled is not None and local.devices == 8 and local.fits
    memory = compiled.memory_analysis()
    assert local.compiled.temporary == memory.temp_size_in_bytes
    assert local.total_bytes >= local.compiled.arguments + local.compiled.temporary
    text = format_report(config, local)
    assert "compiled for the devices of this machine, not run" in text and "estimate without it" in text
    assert "collectives per step, compiled program" in text


def test_flops_are_within_a_tenth_of_the_compilers_without_loops(report, compiled):
    """The compiler counts elementwise work too; without micro-batches the step has no loop."""
    flops = compiled.cost_analysis()["flops"]
    assert 0.9 * flops <= report.step.total_flops <= 1.01 * flops


def test_estimated_memory_is_within_a_factor_of_two_of_the_compilers(report, compiled):
    temporary = compiled.memory_analysis().temp_size_in_bytes
    assert temporary / 2 <= report.step.live_bytes <= 2 * temporary


def test_micro_batches_cost_a_third_more_work_and_less_memory(config):
    """With a batch whose activations outweigh the complete gradient, which micro-batches briefly hold twice."""
    large = replace(config, train=replace(config.train, batch_size=1024))
    plain = dry_run(large, STEP_FUNCTIONS, "cpu", 8)
    cached = dry_run(replace(large, train=replace(large.train, micro_batch_size=8)), STEP_FUNCTIONS, "cpu", 8)
    encoders = [each.step.total_flops - each.loss.total_flops for each in (plain, cached)]
    assert 1.25 < encoders[1] / encoders[0] < 1.4
    assert cached.step.live_bytes < 0.6 * plain.step.live_bytes
    assert cached.loss == plain.loss


def test_live_memory_holds_results_and_operands_of_matrix_products():
    x, w = jax.ShapeDtypeStruct((64, 32), jnp.float32), jax.ShapeDtypeStruct((32, 128), jnp.float32)
    one = 64 * 128 * 4

    def live(function: Any) -> int:
        return peak_live_bytes(jax.jit(function).trace(x, w).jaxpr.jaxpr)

    assert live(lambda x, w: x @ w) == one
    assert live(lambda x, w: jnp.sum(jnp.tanh(x @ w))) == one + 4  # tanh is fused into the sum
    small = 64 * 32 * 4
    # The second product reads tanh and w.T; all three are freed before the third.
    assert live(lambda x, w: (jnp.tanh(x @ w) @ w.T) @ w) == max(2 * one + 32 * 128 * 4 + small, small + one)
    stacked = lambda x, w: jax.lax.scan(lambda c, _: (c + 1, jnp.tanh(c @ w)), x, length=7)[1]  # noqa: E731
    assert live(stacked) == small + 7 * one + one


def test_the_text_contains_the_reports_numbers(config, report, h100):
    text = format_report(config, report)
    assert f"parameters: {report.parameters:,}" in text
    for name, size in report.resident.items():
        assert f"  {name:30} {size / MIB:12,.1f}" in text
    assert "estimate" in text and "\nfits\n" in text and "200 tokens (inputs.vocab_size)" in text
    assert "step time: unknown" in text
    text = format_report(config, h100[0])
    assert "estimate" in text and "step time at datasheet peaks" in text


def test_time_bounds_are_costs_divided_by_peak_rates(h100):
    report = h100[0]
    chip, bounds = MACHINES["h100"].chip, report.time_bounds
    assert chip is not None and bounds is not None
    assert bounds.compute == pytest.approx(report.step.flops["float32"] / chip.float32)
    assert bounds.lower == max(bounds.compute, bounds.memory, bounds.network)
    near = step_time_bounds(report.step, report.resident["parameters"], MACHINES["h100"], 8, 2)
    split = replace(MACHINES["h100"], island=2)
    far = step_time_bounds(report.step, report.resident["parameters"], split, 8, 2)
    assert near is not None and far is not None and far.network > near.network == bounds.network


def test_batch_shapes_equal_those_of_real_batches(tmp_path):
    from make_jax.catalog.build import build
    from make_jax.catalog.reader import Catalog
    from make_jax.inputs.train_pipeline import train_batches
    from make_jax.model.make import Make
    from make_jax.training.vocabularies import make_keywords, make_tokenizer

    c = tiny_config(tmp_path)
    catalog = Catalog.load(c.data.catalog)
    tokenizer, keywords = make_tokenizer(c, catalog), make_keywords(c, catalog)
    batches = train_batches(
        build(catalog, c.data.cache),
        tokenizer,
        keywords,
        c.inputs,
        c.data,
        keyword_swaps=True,
        mlm=True,
        mpm_patch_size=c.model.image.patch_size,
        batch_size=c.train.batch_size,
        seed=0,
    )
    batch = next(batches)
    batches.close()
    c = replace(c, objectives=replace(c.objectives, mlm=1.0, mpm=1.0))
    model = Make(c.model, c.inputs, tokenizer.vocab_size, len(keywords))
    shapes = batch_shapes(model, c, abstract_mesh(1, 8))
    assert {n: (s.shape, s.dtype) for n, s in shapes.items()} == {n: (a.shape, a.dtype) for n, a in batch.items()}
    assert bytes_per_device(dict(shapes)) == sum(array.nbytes for array in batch.values()) // 8


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--dry-run", "--device", "v5"], "--device is 'v5', expected one of h200, h100, v5e, v5p, cpu"),
        (["--dry-run", "--device", "cpu", "--count", "3"], "train.fsdp is 2, which does not divide the 3 devices"),
        (["--dry-run", "--device", "cpu", "--count", "0"], "--count is '0', expected a number of devices"),
        (["--dry-run", "--device", "cpu", "--count", "x"], "--count is 'x', expected a number of devices"),
        (["--dry-run", "--device"], "--device: expected one argument"),
        (["--device", "h100"], "--device is an option of --dry-run; add --dry-run"),
        (
            ["--dry-run", "--device", "h100", "--count", "256"],
            "train.batch_size is 128, which 256 devices do not divide",
        ),
    ],
)
def test_wrong_devices_are_one_line(config, words, message):
    with pytest.raises(InputError, match=message) as error:
        options, rest = split_dry_run(words)
        assert options is not None and rest == []
        dry_run(config, STEP_FUNCTIONS, options.device, options.count)
    assert "\n" not in str(error.value)


def test_tpu_slices():
    assert tpu_topology("v5e", 256) == "v5e:16x16"
    assert tpu_topology("v5e", 8) == "v5e:2x4"
    assert tpu_topology("v5p", 64) == "v5p:4x4x4"
    for name, chips in (("v5e", 512), ("v5e", 12), ("v5p", 3)):
        with pytest.raises(InputError, match=f"--count is not a slice of {name}; expected a power of two"):
            tpu_topology(name, chips)
    assert machine_name("NVIDIA H200") == "h200" and machine_name("cpu") == "cpu"
    with pytest.raises(InputError, match="does not know 'TPU v9'"):
        machine_name("TPU v9")


def test_without_libtpu_a_tpu_is_a_clear_error(config, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="libtpu, which needs no TPU but is not installed: pip install libtpu"):
        dry_run(config, STEP_FUNCTIONS, "v5e", 8)


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed: pip install libtpu")
def test_compiles_for_tpus(config):
    compiled = compile_for_tpu(config, "v5e", 8, STEP_FUNCTIONS)
    assert compiled.target == "v5e:2x4 by libtpu" and compiled.total >= compiled.arguments > 0
    assert {each.operation for each in compiled.collectives} >= {"all-gather", "all-reduce"}


def test_the_pod_recipe_is_estimated_to_fit_v5e():
    config = runpy.run_path(str(ROOT / "configs" / "pod.py"))["config"]
    report = trace_step(config, STEP_FUNCTIONS, "v5e", 256)
    assert report.fits and config.train.batch_size == 65_536
    assert 300e6 < report.parameters < 350e6
