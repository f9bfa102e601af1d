"""Checkpoints: whole or absent, verified, restored on other devices, never a stop for training."""

import json
import logging
import os
import signal
import subprocess
import sys
import textwrap
import threading
import warnings
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import struct
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from make_jax.errors import InputError
from make_jax.files import PARTIAL
from make_jax.runs import checkpoints as module
from make_jax.runs.checkpoints import Checkpoints


@struct.dataclass
class State:
    """As a TrainState, with leaves of any sort."""

    step: Any
    params: Any
    opt_state: Any
    ema: Any


def sharding(devices, *axes):
    mesh = jax.make_mesh((devices,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:devices])
    return NamedSharding(mesh, PartitionSpec(*axes))


def make_state(step=0, devices=8, ema=True):
    """A state with a real optimizer, its matrix split over `devices`."""
    params = {
        "title": {"kernel": jax.device_put(jnp.arange(32.0).reshape(16, 2) + step, sharding(devices, "data"))},
        "scale": jax.device_put(jnp.float32(step), sharding(devices)),
        "half": jax.device_put(jnp.full((3,), step, jnp.bfloat16), sharding(devices)),
    }
    return State(
        step=jax.device_put(jnp.int32(step), sharding(devices)),
        params=params,
        opt_state=optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-3)).init(params),
        ema=jax.tree.map(lambda leaf: leaf * 2, params) if ema else None,
    )


def template_of(state):
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), state)


def assert_equal(found, expected):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert one.dtype == other.dtype and one.sharding == other.sharding
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))


@pytest.fixture
def checkpoints(tmp_path):
    made = Checkpoints(tmp_path / "checkpoints")
    yield made
    made.close()


def saved(checkpoints, *pairs):
    """Saves (kind, step) pairs, one after another, and waits for all."""
    for kind, step in pairs:
        checkpoints.save(kind, step, make_state(step), {"position": step}, {"config.json": f"{{{step}}}"})
    checkpoints.wait()


def names(checkpoints):
    return sorted(str(path.relative_to(checkpoints.folder)) for path in checkpoints.folder.glob("*/*"))


def largest(path):
    """The file with the arrays in it."""
    return max((file for file in path.rglob("*") if file.is_file()), key=lambda file: file.stat().st_size)


def test_restore_gives_back_the_saved_state_and_meta(checkpoints):
    saved(checkpoints, ("last", 7))
    state, meta = checkpoints.restore(template_of(make_state()))
    assert_equal(state, make_state(7))
    assert meta == {"position": 7}


def test_restore_takes_arrays_as_template_and_a_state_without_ema(checkpoints):
    checkpoints.save("last", 3, make_state(3, ema=False), {})
    checkpoints.wait()
    assert_equal(checkpoints.restore(make_state(0, ema=False))[0], make_state(3, ema=False))


@pytest.mark.parametrize("devices", [1, 2, 4])
def test_restore_on_another_device_count(checkpoints, devices):
    saved(checkpoints, ("last", 5))
    assert_equal(checkpoints.restore(template_of(make_state(0, devices)))[0], make_state(5, devices))


def test_everything_of_a_checkpoint_is_in_one_folder(checkpoints):
    saved(checkpoints, ("last", 200))
    folder = checkpoints.folder / "last" / "000200"
    assert {path.name for path in folder.iterdir()} == {"state", "meta.json", "config.json", "manifest.json"}
    found = checkpoints.latest_intact("last")
    assert (found.path, found.kind, found.step) == (folder, "last", 200)
    assert (found.meta, found.files) == ({"position": 200}, {"config.json": "{200}"})
    assert not list(folder.rglob(f"{PARTIAL}*"))


def test_the_newest_complete_of_each_kind_is_kept(checkpoints):
    saved(checkpoints, ("last", 1), ("best", 1), ("last", 2), ("last", 3))
    assert names(checkpoints) == ["best/000001", "last/000003"]


def test_the_older_is_deleted_only_after_the_new_one_is_complete(checkpoints, monkeypatch):
    saved(checkpoints, ("last", 1))
    seen = []
    write = module.manifest.write
    monkeypatch.setattr(module.manifest, "write", lambda folder: (seen.append(names(checkpoints)), write(folder)))
    saved(checkpoints, ("last", 2))
    assert seen == [["last/" + PARTIAL + "000002", "last/000001"]]
    assert names(checkpoints) == ["last/000002"]


def test_buffers_may_be_donated_right_after_save(checkpoints):
    size = 1 << 20
    overwrite = jax.jit(lambda x: x * 0 - 1, donate_argnums=0)
    overwrite(jnp.zeros(size)).block_until_ready()
    state = {"params": {"w": jnp.arange(size, dtype=jnp.float32)}}
    checkpoints.save("last", 1, state, {})
    for _ in range(3):
        state = {"params": {"w": overwrite(state["params"]["w"])}}
    checkpoints.wait()
    np.testing.assert_array_equal(checkpoints.load_params("last")[0]["w"], np.arange(size, dtype=np.float32))


def test_save_returns_before_the_checkpoint_is_complete(checkpoints, monkeypatch):
    gate = threading.Event()
    write = module.manifest.write
    monkeypatch.setattr(module.manifest, "write", lambda folder: (gate.wait(20), write(folder)))
    checkpoints.save("last", 1, make_state(1), {})
    assert not checkpoints.exists()
    gate.set()
    checkpoints.wait()
    assert checkpoints.exists()


def test_load_params_returns_numpy_and_prefers_the_averaged_ones(checkpoints):
    saved(checkpoints, ("best", 4))
    params, meta, files = checkpoints.load_params()
    assert_leaves = jax.tree.map(lambda leaf: type(leaf) is np.ndarray, params)
    assert all(jax.tree.leaves(assert_leaves))
    np.testing.assert_array_equal(params["title"]["kernel"], 2 * (np.arange(32.0).reshape(16, 2) + 4))
    assert params["half"].dtype == jnp.bfloat16 and params["scale"] == 8 and set(params) == {"title", "scale", "half"}
    assert (meta, files) == ({"position": 4}, {"config.json": "{4}"})


def test_load_params_without_averaging(checkpoints):
    checkpoints.save("best", 4, make_state(4, ema=False), {})
    checkpoints.wait()
    assert checkpoints.load_params()[0]["scale"] == 4


def test_load_params_of_8_devices_in_a_process_with_1(checkpoints):
    saved(checkpoints, ("best", 6))
    out = run(
        checkpoints.folder,
        "assert jax.device_count() == 1\nprint(c.load_params()[0]['title']['kernel'].sum(), c.load_params()[1])",
        devices=1,
    )
    assert out.returncode == 0, out.stderr
    assert out.stdout.split("\n")[0] == f"{2.0 * (sum(range(32)) + 32 * 6)} {{'position': 6}}"
    assert out.stderr == ""


def test_structure_mismatch_lists_missing_extra_and_misshaped_leaves(checkpoints):
    saved(checkpoints, ("last", 1))
    state = make_state()
    params = {"title": {"kernel": jnp.zeros((16, 3))}, "half": jnp.zeros((3,)), "gate": jnp.zeros((2,))}
    with pytest.raises(InputError) as caught:
        checkpoints.restore(state.replace(params=params))
    message = str(caught.value)
    assert "lacks params/gate float32[2]" in message
    assert "has besides params/scale float32[]" in message
    assert "params/title/kernel float32[16, 2] instead of float32[16, 3]" in message
    assert "params/half bfloat16[3] instead of float32[3]" in message


def test_structure_mismatch_is_limited(checkpoints):
    saved(checkpoints, ("last", 1))
    with pytest.raises(InputError, match="and 15 more"):
        checkpoints.restore(make_state().replace(params={f"layer{i}": jnp.zeros(2) for i in range(20)}))


def test_flipped_bit_is_detected_and_named(checkpoints):
    saved(checkpoints, ("last", 1))
    file = largest(checkpoints.folder / "last" / "000001" / "state")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(InputError) as caught:
        checkpoints.restore(make_state())
    assert f"{file}: damaged, its SHA-256 differs" in str(caught.value)


def damage(file, how):
    if how == "truncated":
        file.write_bytes(file.read_bytes()[:-2])
    elif how == "missing":
        file.unlink()
    else:
        file.write_text("[1]")


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("meta.json", "truncated"),
        ("config.json", "missing"),
        ("state/_METADATA", "missing"),
        ("state/manifest.ocdbt", "truncated"),
        ("manifest.json", "truncated"),
        ("manifest.json", "missing"),
        ("manifest.json", "rewritten"),
    ],
)
def test_truncated_or_missing_file_is_named(checkpoints, name, how):
    saved(checkpoints, ("last", 1))
    file = checkpoints.folder / "last" / "000001" / name
    damage(file, how)
    with pytest.raises(InputError) as caught:
        checkpoints.latest_intact("last")
    assert str(caught.value).startswith(f"{file}: ")
    assert "no intact checkpoint is left" in str(caught.value)


def test_manifest_that_names_files_outside_is_damaged(checkpoints):
    saved(checkpoints, ("last", 1))
    path = checkpoints.folder / "last" / "000001" / "manifest.json"
    path.write_text(json.dumps({"files": {"../../x": {"bytes": 1, "sha256": ""}}}))
    with pytest.raises(InputError, match="names a file outside its folder"):
        checkpoints.latest_intact("last")


def test_damaged_last_falls_back_to_best_and_names_the_file(checkpoints, caplog):
    saved(checkpoints, ("best", 1), ("last", 2))
    file = checkpoints.folder / "last" / "000002" / "meta.json"
    damage(file, "truncated")
    with caplog.at_level(logging.WARNING):
        assert checkpoints.restore(make_state())[1] == {"position": 1}
    assert f"{file}: damaged" in caplog.text and "best/000001 instead" in caplog.text


def test_fallback_to_an_older_one_of_the_same_kind(checkpoints, monkeypatch):
    monkeypatch.setattr(module.shutil, "rmtree", lambda path: None)
    monkeypatch.setattr(Checkpoints, "_clean", lambda self: None)
    saved(checkpoints, ("last", 1))
    older = checkpoints.folder / "last" / "000001"
    saved(checkpoints, ("last", 2))
    next(checkpoints.folder.glob(f"last/{PARTIAL}old*")).rename(older)  # as if the deletion had been interrupted
    assert checkpoints.latest_intact("last").step == 2
    damage(checkpoints.folder / "last" / "000002" / "meta.json", "missing")
    assert checkpoints.latest_intact("last").step == 1


def test_damaged_checkpoint_of_the_same_step_is_replaced(checkpoints):
    saved(checkpoints, ("last", 2))
    damage(checkpoints.folder / "last" / "000002" / "meta.json", "truncated")
    saved(checkpoints, ("last", 2))
    assert checkpoints.latest_intact("last").meta == {"position": 2}
    assert names(checkpoints) == ["last/000002.1"]


def test_no_checkpoint_is_named_with_its_folder(checkpoints):
    assert not checkpoints.exists()
    with pytest.raises(InputError, match=r"checkpoints: no checkpoint, expected one that train.py wrote"):
        checkpoints.latest_intact("best")


def test_without_best_last_is_used_and_said(checkpoints, caplog):
    saved(checkpoints, ("last", 1))
    assert checkpoints.latest_intact("best").kind == "last"
    assert "no best checkpoint; using" in caplog.text


def test_checkpoint_replaced_while_it_is_read_is_looked_for_again(checkpoints, monkeypatch):
    saved(checkpoints, ("last", 1))
    verify = module.manifest.verify

    def replaced_meanwhile(path):
        if path.name == "000001":
            saved(checkpoints, ("last", 2))
        return verify(path)

    monkeypatch.setattr(module.manifest, "verify", replaced_meanwhile)
    assert checkpoints.latest_intact("last").step == 2


PROGRAM = """
import os, resource, signal, sys
import jax, numpy as np
from make_jax.errors import InputError, exit_cleanly
from make_jax.runs import checkpoints as module
c = module.Checkpoints(sys.argv[1])
die = lambda *a, **k: os.kill(os.getpid(), signal.SIGKILL)
noise = np.random.default_rng(0).normal(size=1 << 16)
state = lambda step: {"params": {"w": jax.device_put(noise), "step": jax.device_put(np.int32(step))}}
"""


def run(folder, program, devices=8):
    environment = dict(os.environ, XLA_FLAGS=f"--xla_force_host_platform_device_count={devices}")
    command = [sys.executable, "-W", "error", "-c", PROGRAM + textwrap.dedent(program), str(folder)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize(
    "instant",
    [
        pytest.param("die()", id="while Orbax writes"),
        pytest.param("module.manifest.write = die", id="after Orbax's commit"),
        pytest.param("module.Path.rename = die", id="before it gets its name"),
        pytest.param("module.shutil.rmtree = die", id="while the older one is deleted"),
    ],
)
def test_kill_in_the_middle_of_a_save_leaves_one_that_loads(tmp_path, instant):
    dies_at_once = instant == "die()"
    before, after = ("", instant) if dies_at_once else (instant, "c.wait()")
    program = f"c.save('last', 1, state(1), {{}})\nc.wait()\n{before}\nc.save('last', 2, state(2), {{}})\n{after}\n"
    assert run(tmp_path, program).returncode == -signal.SIGKILL
    survivor = Checkpoints(tmp_path)
    left = list(tmp_path.glob(f"last/{PARTIAL}*"))
    assert left, "the kill came too late to test anything"
    expected = 2 if "rmtree" in instant else 1
    assert survivor.load_params("last")[0]["step"] == expected
    survivor.save("last", 3, make_state(3), {})
    survivor.close()
    assert names(survivor) == ["last/000003"]


FULL_DISK = """
def main():
    c.save('last', 1, state(1), {})
    c.wait()
    free = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, free[1]))
    try:
        c.save('last', 2, state(2), {}, {"long.txt": "x" * (1 << 20)})
        c.wait()
    except InputError as error:
        assert not list(c.folder.glob("*/.*")), "nothing half-written is left"
        resource.setrlimit(resource.RLIMIT_FSIZE, free)
        print(c.load_params("last")[0]["step"])
        c.save('last', 3, state(3), {})
        c.wait()
        print(c.load_params("last")[0]["step"])
        raise
exit_cleanly(main)
"""


@pytest.mark.parametrize("limit", [pytest.param(1 << 17, id="in Orbax"), pytest.param(1 << 19, id="in our own files")])
def test_full_disk_leaves_the_old_one_loadable_and_is_said_in_one_line(tmp_path, limit):
    result = run(tmp_path, FULL_DISK.replace("(LIMIT,", f"({limit},"))
    assert (result.returncode, result.stdout) == (2, "1\n3\n"), result.stderr
    assert result.stderr.startswith(f"error: {tmp_path}/last: the checkpoint of step 2 was not written (")
    assert "File too large" in result.stderr and "an older one was not touched" in result.stderr
    assert result.stderr.count("\n") == 1


def test_state_that_cannot_be_written_is_an_input_error_at_the_next_call(checkpoints, monkeypatch):
    saved(checkpoints, ("last", 1))

    def fail(folder):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module.manifest, "write", fail)
    checkpoints.save("last", 2, make_state(2), {})
    with pytest.raises(InputError, match=r"step 2 was not written \(No space left on device\)"):
        checkpoints.save("last", 3, make_state(3), {})
    assert names(checkpoints) == ["last/000001"]


def test_a_disk_without_room_is_seen_before_writing(checkpoints, monkeypatch):
    saved(checkpoints, ("last", 1))
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: SimpleNamespace(free=1))
    with pytest.raises(InputError, match=r"step 2 was not written \(No space left on device: .* 1 free\)"):
        checkpoints.save("last", 2, make_state(2), {})
    assert names(checkpoints) == ["last/000001"]
    assert not list(checkpoints.folder.glob("*/.*"))
    with pytest.raises(InputError, match=r"No space left on device: .* 1 free; set `run` to another disk"):
        checkpoints.expect_room(make_state(2))


def test_saving_and_loading_raise_no_warning(checkpoints):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        saved(checkpoints, ("last", 1))
        checkpoints.restore(make_state(0, 2))
        checkpoints.load_params("last")
