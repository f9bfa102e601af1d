"""The dry run against what a real start and the compiler say, on eight pretended devices."""

import importlib.util
import runpy
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from make_jax.command_line import DryRun, take_dry_run
from make_jax.config import Config, ImageConfig, ObjectivesConfig, TextConfig
from make_jax.errors import InputError
from make_jax.planning.aot import compile_step
from make_jax.planning.dry_run import Report, dry_run, trace_step
from make_jax.planning.dry_run_text import text_of
from make_jax.planning.hardware import MACHINES, name_of, topology_name
from make_jax.planning.roofline import bounds
from make_jax.planning.shapes import batch_shapes, bytes_per_device, model_of, state_shapes
from make_jax.planning.step_costs import count
from make_jax.runs.mesh import abstract_mesh, make_mesh
from make_jax.training.step import init_state, make_step
from tests.conftest import ROOT
from tests.training.tiny_run import tiny_config

MIB = 2**20
TEXT = TextConfig(layers=2, width=128, heads=2, mlp_width=512, dropout=0.1)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """Wide enough that products outweigh all else, with few tokens; the state split in two."""
    c = tiny_config(tmp_path_factory.mktemp("dry"), batch_size=128, fsdp=2)
    image = ImageConfig(layers=2, width=128, heads=2, mlp_width=512, patch=4)
    model = replace(c.model, query=TEXT, title=TEXT, image=image, embedding=64)
    inputs = replace(c.inputs, keywords=256)
    return replace(c, model=model, inputs=inputs, objectives=ObjectivesConfig(key=0.1, keyword_swaps=False))


@pytest.fixture(scope="module")
def report(config: Config) -> Report:
    return dry_run(config, DryRun("cpu", 8))


@pytest.fixture(scope="module")
def compiled(config: Config) -> Any:
    """The step, really compiled for eight devices."""
    model, mesh = model_of(config), make_mesh(2)
    state = state_shapes(model, config, mesh)
    return make_step(model, config, mesh, state.params).lower(state, batch_shapes(model, config, mesh)).compile()


@pytest.fixture(scope="module")
def h100(config: Config) -> tuple[Report, int]:
    """A dry run for GPUs that are not there, and the bytes of all arrays that it left."""
    before = {id(array) for array in jax.live_arrays()}
    found = dry_run(config, DryRun("h100", 8))
    return found, sum(array.nbytes for array in jax.live_arrays() if id(array) not in before)


def test_allocates_nothing(h100):
    assert h100[1] < 1024  # a key, and the constants of schedules


def test_bytes_of_state_and_batch_are_those_of_a_real_start_and_of_the_compiler(config, report, compiled):
    state = init_state(model_of(config), config, make_mesh(2))
    first = jax.devices()[0]

    def held(tree: Any) -> int:
        shards = [shard for leaf in jax.tree.leaves(tree) for shard in leaf.addressable_shards]
        return sum(shard.data.nbytes for shard in shards if shard.device == first)

    assert report.held["parameters"] == held(state.params)
    assert report.held["optimizer"] == held(state.opt_state)
    assert report.parameters == sum(leaf.size for leaf in jax.tree.leaves(state.params))
    step_count = 4  # bytes, beside what the report names
    assert sum(report.held.values()) + step_count == compiled.memory_analysis().argument_size_in_bytes


def test_flops_are_at_most_a_tenth_from_the_compilers_where_nothing_loops(report, compiled):
    """The compiler counts elementwise work too, and the loop of no micro-batch is none."""
    said = compiled.cost_analysis()["flops"]
    assert 0.9 * said <= report.step.all_flops <= 1.01 * said


def test_estimated_memory_is_within_a_factor_of_two_of_the_compilers(report, compiled):
    said = compiled.memory_analysis().temp_size_in_bytes
    assert said / 2 <= report.step.alive <= 2 * said


def test_micro_batches_cost_a_third_more_work_and_less_memory(config):
    """Of a batch whose activations outweigh the whole gradient, which micro-batches need twice for a moment."""
    large = replace(config, train=replace(config.train, batch_size=1024))
    once = dry_run(large, DryRun("cpu", 8))
    some = dry_run(replace(large, train=replace(large.train, micro_batch=8)), DryRun("cpu", 8))
    encoders = [found.step.all_flops - found.loss.all_flops for found in (once, some)]
    assert 1.25 < encoders[1] / encoders[0] < 1.4
    assert some.step.alive < 0.6 * once.step.alive
    assert some.loss == once.loss


def test_alive_counts_what_products_made_and_what_they_read():
    x, w = jax.ShapeDtypeStruct((64, 32), jnp.float32), jax.ShapeDtypeStruct((32, 128), jnp.float32)
    one = 64 * 128 * 4

    def alive(function: Any) -> int:
        return count(jax.jit(function).trace(x, w).jaxpr.jaxpr).alive

    assert alive(lambda x, w: x @ w) == one
    assert alive(lambda x, w: jnp.sum(jnp.tanh(x @ w))) == one + 4  # tanh is computed where it is used
    small = 64 * 32 * 4
    # The second product reads tanh and w.T; neither they nor the first product are there for the third.
    assert alive(lambda x, w: (jnp.tanh(x @ w) @ w.T) @ w) == max(2 * one + 32 * 128 * 4 + small, small + one)
    stacked = lambda x, w: jax.lax.scan(lambda c, _: (c + 1, jnp.tanh(c @ w)), x, length=7)[1]  # noqa: E731
    assert alive(stacked) == small + 7 * one + one


def test_the_text_says_what_the_report_has(config, report, h100):
    text = text_of(config, report)
    assert f"parameters: {report.parameters:,}" in text
    for what, size in report.held.items():
        assert f"  {what:30} {size / MIB:12,.1f}" in text
    assert "estimate" in text and "it fits" in text and "200 word pieces (inputs.vocabulary)" in text
    assert "step time: not known" in text
    text = text_of(config, h100[0])
    assert "estimate" in text and "step time at the makers' peaks" in text


def test_bounds_are_counts_by_peaks(h100):
    found = h100[0]
    peak = MACHINES["h100"].peak
    assert peak is not None and found.bounds is not None
    assert found.bounds.compute == pytest.approx(found.step.flops["float32"] / peak.float32)
    assert found.bounds.least == max(found.bounds.compute, found.bounds.memory, found.bounds.network)
    near = bounds(found.step, found.held["parameters"], MACHINES["h100"], 8, 2)
    far = bounds(found.step, found.held["parameters"], replace(MACHINES["h100"], island=2), 8, 2)
    assert near is not None and far is not None and far.network > near.network == found.bounds.network


def test_shapes_are_those_of_real_batches(tmp_path):
    from make_jax.catalog.build import build
    from make_jax.catalog.reader import Catalog
    from make_jax.inputs.pipeline import train_batches
    from make_jax.model.make import Make
    from make_jax.training.initialization import make_keywords, make_tokenizer

    c = tiny_config(tmp_path)
    catalog = Catalog.load(c.data.catalog)
    tokenizer, keywords = make_tokenizer(c, catalog), make_keywords(c, catalog)
    batches = train_batches(
        build(catalog, c.data.cache),
        tokenizer,
        keywords,
        c.inputs,
        c.data,
        swaps=True,
        masked_tokens=True,
        masked_patch=c.model.image.patch,
        batch_size=c.train.batch_size,
        seed=0,
    )
    batch = next(batches)
    batches.close()
    c = replace(c, objectives=replace(c.objectives, mlm=1.0, mpm=1.0))
    model = Make(c.model, c.inputs, tokenizer.vocabulary_size, len(keywords))
    found = batch_shapes(model, c, abstract_mesh(1, 8))
    assert {n: (s.shape, s.dtype) for n, s in found.items()} == {n: (a.shape, a.dtype) for n, a in batch.items()}
    assert bytes_per_device(dict(found)) == sum(array.nbytes for array in batch.values()) // 8


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--dry-run", "--device", "v5"], "--device is 'v5', expected one of h200, h100, v5e, v5p, cpu"),
        (["--dry-run", "--device", "cpu", "--count", "3"], "train.fsdp is 2, which does not divide the 3 devices"),
        (["--dry-run", "--device", "cpu", "--count", "0"], "--count is '0', expected how many devices"),
        (["--dry-run", "--device", "cpu", "--count", "x"], "--count is 'x', expected how many devices"),
        (["--dry-run", "--device"], "--device: expected one argument"),
        (["--device", "h100"], "--device says what --dry-run is to reckon for; add --dry-run"),
        (
            ["--dry-run", "--device", "h100", "--count", "256"],
            "train.batch_size is 128, which 256 devices do not divide",
        ),
    ],
)
def test_wrong_devices_are_one_line(config, words, said):
    with pytest.raises(InputError, match=said) as told:
        asked, rest = take_dry_run(words)
        assert asked is not None and rest == []
        dry_run(config, asked)
    assert "\n" not in str(told.value)


def test_names_of_slices():
    assert topology_name("v5e", 256) == "v5e:16x16"
    assert topology_name("v5e", 8) == "v5e:2x4"
    assert topology_name("v5p", 64) == "v5p:4x4x4"
    for name, chips in (("v5e", 512), ("v5e", 12), ("v5p", 3)):
        with pytest.raises(InputError, match=f"--count is not a slice of {name}; expected a power of two"):
            topology_name(name, chips)
    assert name_of("NVIDIA H200") == "h200" and name_of("cpu") == "cpu"
    with pytest.raises(InputError, match="does not know 'TPU v9'"):
        name_of("TPU v9")


def test_without_libtpu_a_tpu_is_a_clear_error(config, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="libtpu, which needs no TPU but is not installed: pip install libtpu"):
        dry_run(config, DryRun("v5e", 8))


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed: pip install libtpu")
def test_compiles_for_tpus(config):
    made = compile_step(config, "v5e", 8)
    assert made.topology == "v5e:2x4" and made.total >= made.arguments > 0
    assert {each.operation for each in made.collectives} >= {"all-gather", "all-reduce"}


def test_the_pod_recipe_fits_its_smaller_chips_by_estimate():
    config = runpy.run_path(str(ROOT / "configs" / "pod.py"))["config"]
    report = trace_step(config, "v5e", 256)
    assert report.fits and config.train.batch_size == 65_536
    assert 300e6 < report.parameters < 350e6
