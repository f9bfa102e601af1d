import gzip
import json
from dataclasses import replace

import jax
import jax.numpy as jnp
import pytest
from jax.profiler import ProfileData

from make_jax.command_line import parse
from make_jax.config import Config, check
from make_jax.errors import InputError
from make_jax.training.profiling import Profile


def double(x: jax.Array) -> jax.Array:
    return 2 * x


def test_the_steps_that_were_asked_for_are_traced_into_files_that_open(tmp_path):
    profile, step, x = Profile("2:3", tmp_path), jax.jit(double), jnp.ones(4)
    for number in (1, 2, 3, 4):
        x = profile.step(number, step, x)
    assert x.tolist() == [16.0] * 4
    (trace,) = tmp_path.rglob("*.trace.json.gz")
    events = json.loads(gzip.decompress(trace.read_bytes()))["traceEvents"]
    numbers = {each["args"].get("step_num") for each in events if each.get("name") == "train"}
    assert numbers == {"2", "3"}
    (xplane,) = tmp_path.rglob("*.xplane.pb")
    lines = [line for plane in ProfileData.from_file(str(xplane)).planes for line in plane.lines]
    assert any("double" in event.name for line in lines for event in line.events)


def test_a_run_that_ends_early_writes_what_it_traced(tmp_path):
    profile = Profile("1:9", tmp_path)
    profile.step(1, jax.jit(double), jnp.ones(4))
    assert not list(tmp_path.rglob("*.xplane.pb"))
    profile.close()
    assert list(tmp_path.rglob("*.xplane.pb"))
    profile.close()  # again is no harm


def test_nothing_is_traced_unless_asked_for(tmp_path):
    profile = Profile("", tmp_path)
    profile.step(1, double, jnp.ones(4))
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
def test_steps_that_are_none_are_an_error(text, expected):
    config = Config()
    with pytest.raises(InputError, match=f"^{expected}"):
        check(replace(config, train=replace(config.train, profile=text)))
    with pytest.raises(InputError, match=f"^{expected}"):
        parse(["--profile", text], "")


def test_profile_is_short_for_the_setting():
    assert parse(["--profile", "10:15"], "").train.profile == "10:15"
    with pytest.raises(InputError, match="--profile: expected one argument, steps such as 10:15"):
        parse(["--profile"], "")
