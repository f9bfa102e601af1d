"""Traces of selected steps: `--train.profile FIRST:LAST`."""

import gzip
import json
from dataclasses import replace

import jax
import jax.numpy as jnp
import pytest
from jax.profiler import ProfileData

from make_jax.cli.train_options import parse_settings
from make_jax.config import Config, check
from make_jax.errors import InputError
from make_jax.training.profiling import StepProfiler


def double(x: jax.Array) -> jax.Array:
    return 2 * x


def test_the_selected_steps_are_traced_into_readable_files(tmp_path):
    profile, step, x = StepProfiler("2:3", tmp_path), jax.jit(double), jnp.ones(4)
    for number in (1, 2, 3, 4):
        x = profile.run(number, step, x)
    assert x.tolist() == [16.0] * 4
    (trace,) = tmp_path.rglob("*.trace.json.gz")
    events = json.loads(gzip.decompress(trace.read_bytes()))["traceEvents"]
    numbers = {each["args"].get("step_num") for each in events if each.get("name") == "train"}
    assert numbers == {"2", "3"}
    (xplane,) = tmp_path.rglob("*.xplane.pb")
    lines = [line for plane in ProfileData.from_file(str(xplane)).planes for line in plane.lines]
    assert any("double" in event.name for line in lines for event in line.events)


def test_a_run_that_ends_early_writes_its_trace(tmp_path):
    profile = StepProfiler("1:9", tmp_path)
    profile.run(1, jax.jit(double), jnp.ones(4))
    assert not list(tmp_path.rglob("*.xplane.pb"))
    profile.close()
    assert list(tmp_path.rglob("*.xplane.pb"))
    profile.close()  # a second call is safe


def test_nothing_is_traced_by_default(tmp_path):
    profile = StepProfiler("", tmp_path)
    profile.run(1, double, jnp.ones(4))
    profile.close()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10", "train.profile is '10', expected FIRST:LAST step, such as 10:15, the first step being 1"),
        ("0:3", "train.profile is '0:3', expected FIRST:LAST step"),
        ("5:3", "train.profile is '5:3', expected FIRST:LAST step"),
        ("a:b", "train.profile is 'a:b', expected FIRST:LAST step"),
        ("5:701", "train.profile is '5:701', expected steps up to train.steps 700"),
    ],
)
def test_an_invalid_setting_is_an_error(text, expected):
    config = Config()
    with pytest.raises(InputError, match=f"^{expected}"):
        check(replace(config, train=replace(config.train, profile=text)))
    with pytest.raises(InputError, match=f"^{expected}"):
        parse_settings(["--profile", text], "")


def test_the_profile_option_is_short_for_the_setting():
    assert parse_settings(["--profile", "10:15"], "").train.profile == "10:15"
    with pytest.raises(InputError, match="--profile: expected one argument, steps such as 10:15"):
        parse_settings(["--profile"], "")
