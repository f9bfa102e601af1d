"""Checkpoints are complete or absent, verified, restored on other devices, and saved without stopping training."""

import json
import logging
import threading
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from make_jax.errors import InputError
from make_jax.files import PARTIAL
from make_jax.runs import checkpoints as module
from make_jax.runs.checkpoints import Checkpoints
from tests.runs.small_state import make_state, names, run, saved


def template_of(state):
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), state)


def assert_equal(actual, expected):
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for one, other in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert one.dtype == other.dtype and one.sharding == other.sharding
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))


def largest(path):
    """The file with the arrays."""
    return max((file for file in path.rglob("*") if file.is_file()), key=lambda file: file.stat().st_size)


def test_restore_returns_the_saved_state_and_meta(checkpoints):
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


def test_a_checkpoint_is_one_folder(checkpoints):
    saved(checkpoints, ("last", 200))
    folder = checkpoints.folder / "last" / "000200"
    assert {path.name for path in folder.iterdir()} == {"state", "meta.json", "config.json", "manifest.json"}
    info = checkpoints.latest_intact("last")
    assert (info.path, info.kind, info.step) == (folder, "last", 200)
    assert (info.meta, info.files) == ({"position": 200}, {"config.json": "{200}"})
    assert not list(folder.rglob(f"{PARTIAL}*"))


def test_the_newest_complete_of_each_kind_is_kept(checkpoints):
    saved(checkpoints, ("last", 1), ("best", 1), ("last", 2), ("last", 3))
    assert names(checkpoints) == ["best/000001", "last/000003"]


def test_the_newest_max_to_keep_and_one_best_are_kept(tmp_path):
    kept = Checkpoints(tmp_path, max_to_keep=3)
    saved(kept, ("last", 1), ("best", 1), ("last", 2), ("last", 3), ("best", 3), ("last", 4))
    kept.close()
    assert names(kept) == ["best/000003", "last/000002", "last/000003", "last/000004"]


def test_a_damaged_checkpoint_is_not_counted_in_max_to_keep(tmp_path):
    before = Checkpoints(tmp_path, max_to_keep=2)
    saved(before, ("last", 1), ("last", 2))
    before.close()
    damage(tmp_path / "last" / "000002" / "meta.json", "truncated")
    after = Checkpoints(tmp_path, max_to_keep=2)
    assert after.latest_intact("last").step == 1
    saved(after, ("last", 2))
    after.close()
    assert names(after) == ["last/000001", "last/000002.1"]


def test_last_is_the_newest_of_both_kinds_and_best_is_not(checkpoints, caplog):
    saved(checkpoints, ("last", 1), ("best", 2))
    assert checkpoints.latest_intact("last").path.parent.name == "best"
    saved(checkpoints, ("last", 2))
    assert checkpoints.latest_intact("last").path.parent.name == "last"
    saved(checkpoints, ("last", 3))
    assert checkpoints.latest_intact("best").step == 2 and not caplog.records


def test_the_older_checkpoint_is_deleted_after_the_new_one_is_complete(checkpoints, monkeypatch):
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
    np.testing.assert_array_equal(checkpoints.load_params("last")["w"], np.arange(size, dtype=np.float32))


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
    info = checkpoints.latest_intact("best")
    params, meta, files = checkpoints.load_params(info), info.meta, info.files
    assert_leaves = jax.tree.map(lambda leaf: type(leaf) is np.ndarray, params)
    assert all(jax.tree.leaves(assert_leaves))
    np.testing.assert_array_equal(params["title"]["kernel"], 2 * (np.arange(32.0).reshape(16, 2) + 4))
    assert params["half"].dtype == jnp.bfloat16 and params["scale"] == 8 and set(params) == {"title", "scale", "half"}
    assert (meta, files) == ({"position": 4}, {"config.json": "{4}"})


def test_load_params_without_averaging(checkpoints):
    checkpoints.save("best", 4, make_state(4, ema=False), {})
    checkpoints.wait()
    assert checkpoints.load_params()["scale"] == 4


def test_load_params_of_8_devices_in_a_process_with_1(checkpoints):
    saved(checkpoints, ("best", 6))
    out = run(
        checkpoints.folder,
        "assert jax.device_count() == 1\nprint(c.load_params()['title']['kernel'].sum(), c.latest_intact('best').meta)",
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
    assert "has in addition params/scale float32[]" in message
    assert "params/title/kernel float32[16, 2] instead of float32[16, 3]" in message
    assert "params/half bfloat16[3] instead of float32[3]" in message


def test_structure_mismatch_is_limited(checkpoints):
    saved(checkpoints, ("last", 1))
    with pytest.raises(InputError, match="and 15 more"):
        checkpoints.restore(make_state().replace(params={f"layer{i}": jnp.zeros(2) for i in range(20)}))


def test_restore_params_places_averaged_ones_as_the_template_is(checkpoints):
    saved(checkpoints, ("best", 4))
    template = {**make_state(0, 2).params, "heads": {"bias": jnp.full(2, 7.0)}}
    params = checkpoints.restore_params(template, checkpoints.latest_intact("best"), exclude="heads")
    assert_equal(params, {**make_state(4, 2).ema, "heads": {"bias": jnp.full(2, 7.0)}})


def test_restore_params_lists_missing_extra_and_misshaped_leaves(checkpoints):
    saved(checkpoints, ("best", 4))
    template = {"title": {"kernel": jnp.zeros((16, 3))}, "half": jnp.zeros(3, jnp.bfloat16), "gate": jnp.zeros(2)}
    with pytest.raises(InputError) as caught:
        checkpoints.restore_params(template, checkpoints.latest_intact("best"))
    for part in (
        "lacks ema/gate",
        "has in addition ema/scale",
        "ema/title/kernel float32[16, 2] instead of float32[16, 3]",
    ):
        assert part in str(caught.value)


def test_a_named_checkpoint_is_read_and_verified(checkpoints):
    saved(checkpoints, ("last", 1), ("best", 1))
    path = checkpoints.folder / "best" / "000001"
    info = module.read(path)
    assert (info, info.kind) == (checkpoints.latest_intact("best"), "best")
    before = module.digest(info)
    saved(checkpoints, ("best", 2))
    assert module.digest(module.read(checkpoints.folder / "best" / "000002")) != before
    damage(checkpoints.folder / "best" / "000002" / "config.json", "missing")
    with pytest.raises(InputError, match=r"config.json: missing"):
        module.read(checkpoints.folder / "best" / "000002")


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
    monkeypatch.setattr(Checkpoints, "_delete_partial", lambda self: None)
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


def test_without_best_last_is_used_and_logged(checkpoints, caplog):
    saved(checkpoints, ("last", 1))
    assert checkpoints.latest_intact("best").kind == "last"
    assert "no best checkpoint; using" in caplog.text


def test_checkpoints_are_listed_again_when_one_is_replaced_while_read(checkpoints, monkeypatch):
    saved(checkpoints, ("last", 1))
    verify = module.manifest.verify

    def replaced_meanwhile(path):
        if path.name == "000001":
            saved(checkpoints, ("last", 2))
        return verify(path)

    monkeypatch.setattr(module.manifest, "verify", replaced_meanwhile)
    assert checkpoints.latest_intact("last").step == 2


def test_saving_and_loading_raise_no_warning(checkpoints):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        saved(checkpoints, ("last", 1))
        checkpoints.restore(make_state(0, 2))
        checkpoints.load_params("last")
