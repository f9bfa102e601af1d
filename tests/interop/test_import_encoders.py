"""Bad input: refused with one line, nothing executed, nothing written, nothing waited for."""

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from make_jax.errors import InputError
from make_jax.interop.import_encoders import import_encoders, read_encoder
from make_jax.interop.model_folder import open_model_folder
from tests.conftest import ROOT
from tests.interop import tiny_checkpoints as tiny


class Harmful:
    """Unpickling this leaves a file behind."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (os.mkdir, ("harmed",))


def refusal(source: Path | str, folder: Path) -> str:
    """The one line with which an import of `source` ends, with nothing written to `folder`."""
    before = sorted(folder.rglob("*"))
    with pytest.raises(InputError) as caught:
        import_encoders(str(source), str(folder / "out"), lambda line: None)
    assert sorted(folder.rglob("*")) == before
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def bert(tmp_path: Path) -> Path:
    return tiny.write_case(tmp_path / "bert", "bert")


def test_a_pickle_checkpoint_is_rejected_and_not_unpickled(tmp_path, monkeypatch, bert):
    monkeypatch.chdir(tmp_path)
    (bert / "model.safetensors").unlink()
    (bert / "pytorch_model.bin").write_bytes(pickle.dumps(Harmful()))
    message = refusal(bert, tmp_path)
    assert "pytorch_model.bin is a pickle" in message and "model.safetensors" in message
    assert not (tmp_path / "harmed").exists()


def test_a_pickle_named_safetensors_is_rejected_and_not_unpickled(tmp_path, monkeypatch, bert):
    monkeypatch.chdir(tmp_path)
    (bert / "model.safetensors").write_bytes(pickle.dumps(Harmful()))
    assert "damaged or no safetensors file" in refusal(bert, tmp_path)
    assert not (tmp_path / "harmed").exists()


@pytest.mark.parametrize("kept", [0, 5, 100, -1])
def test_a_truncated_file_is_rejected_by_name(tmp_path, bert, kept):
    path = bert / "model.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    assert str(path) in refusal(bert, tmp_path)


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("config.json", "auto_map"),
        ("config.json", "trust_remote_code"),
        ("tokenizer_config.json", "auto_map"),
        ("preprocessor_config.json", "auto_map"),
    ],
)
def test_a_folder_with_custom_code_is_rejected_and_the_code_does_not_run(tmp_path, monkeypatch, bert, name, key):
    monkeypatch.chdir(tmp_path)
    (bert / "modeling_own.py").write_text("import os\nos.mkdir('harmed')\n")
    path = bert / name
    config = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(config | {key: {"AutoModel": "modeling_own.OwnModel"}}))
    message = refusal(bert, tmp_path)
    assert name in message and key in message
    assert not (tmp_path / "harmed").exists()


def test_an_unknown_family_is_rejected_with_the_known_ones(tmp_path):
    source = tiny.write(tmp_path / "gpt2", {"model_type": "gpt2"}, {"wte.weight": np.zeros((3, 2), np.float32)})
    message = refusal(source, tmp_path)
    assert "model_type is 'gpt2'" in message and "bert" in message and "siglip2" in message


def test_tensors_of_another_family_are_rejected(tmp_path, bert):
    (bert / "config.json").write_text(json.dumps({"model_type": "vit", **tiny.VISION}))
    message = refusal(bert, tmp_path)
    assert "the tensors are not those of vit" in message and "embeddings.cls_token is missing" in message


def test_a_hidden_size_that_differs_from_the_tensors_is_rejected(tmp_path, bert):
    config = json.loads((bert / "config.json").read_text())
    (bert / "config.json").write_text(json.dumps(config | {"hidden_size": 32}))
    assert "embeddings.word_embeddings.weight [48, 16] is to become word/embedding [48, 32]" in refusal(bert, tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", '{"model_type": 3}', "\xff"])
def test_a_broken_config_is_rejected_by_name(tmp_path, bert, text):
    (bert / "config.json").write_bytes(text.encode("latin-1"))
    assert "config.json" in refusal(bert, tmp_path)


def test_a_folder_without_config_or_weights_is_rejected(tmp_path, bert):
    (bert / "model.safetensors").unlink()
    assert "no model.safetensors" in refusal(bert, tmp_path)
    (bert / "config.json").unlink()
    assert "config.json: no such file" in refusal(bert, tmp_path)


def test_an_existing_out_folder_is_not_changed(tmp_path, bert):
    (tmp_path / "out").mkdir()
    assert "exists" in refusal(bert, tmp_path)


def test_sharded_weights_are_read_and_their_index_cannot_leave_the_folder(tmp_path, bert):
    arrays = tiny.tensors(tiny.CASES["bert"][1])
    names = sorted(arrays)
    parts = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    (bert / "model.safetensors").unlink()
    for file, part in parts.items():
        tiny.save_file({name: arrays[name] for name in part}, bert / file)
    index = {"weight_map": {name: file for file, part in parts.items() for name in part}}
    (bert / "model.safetensors.index.json").write_text(json.dumps(index))
    assert set(open_model_folder(bert).tensors) == set(arrays)
    index["weight_map"][names[0]] = "../elsewhere.safetensors"
    tiny.save_file({}, tmp_path / "elsewhere.safetensors")
    (bert / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "../elsewhere.safetensors" in refusal(bert, tmp_path)


@pytest.mark.parametrize("name", ["./nowhere", "a/b/c", "/nowhere/at/all", ""])
def test_a_missing_folder_is_rejected(tmp_path, name):
    with pytest.raises(InputError, match=r"model.query.init_from: .* is no folder"):
        read_encoder(name or "-", "text", "model.query.init_from")


def test_a_modified_saved_encoder_is_rejected(tmp_path, bert):
    import_encoders(str(bert), str(tmp_path / "out"), lambda line: None)
    header = json.loads((tmp_path / "out" / "encoders.json").read_text())
    header["text"]["settings"]["width"] = 32
    (tmp_path / "out" / "encoders.json").write_text(json.dumps(header))
    with pytest.raises(InputError, match="norm/scale is \\[16\\], expected \\[32\\]"):
        read_encoder(str(tmp_path / "out"), "text", "x")


def test_a_saved_encoder_with_renamed_settings_is_refused_by_their_new_names(tmp_path, bert):
    import_encoders(str(bert), str(tmp_path / "out"), lambda line: None)
    saved = json.loads((tmp_path / "out" / "encoders.json").read_text())
    saved["text"]["settings"]["eps"] = saved["text"]["settings"].pop("layer_norm_eps")
    (tmp_path / "out" / "encoders.json").write_text(json.dumps(saved))
    with pytest.raises(InputError, match=r"model.query.eps was renamed to model.query.layer_norm_eps; import it again"):
        read_encoder(str(tmp_path / "out"), "text", "x")


@pytest.mark.parametrize("offline", ["1", "0"])
def test_a_hub_id_without_a_network_fails_fast_with_instructions(tmp_path, offline):
    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": offline,
        "HF_HOME": str(tmp_path / "cache"),
        "HF_ENDPOINT": "http://127.0.0.1:9",  # nothing listens
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
    }
    program = (
        "import time, huggingface_hub\nfrom make_jax.interop.model_folder import resolve_model_folder\n"
        "start = time.perf_counter()\n"
        "try:\n    resolve_model_folder('nobody/nothing', 'model.query.init_from')\n"
        "except Exception as error:\n    print(time.perf_counter() - start, type(error).__name__, error, sep='|')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment, cwd=tmp_path
    )
    seconds, kind, message = done.stdout.strip().split("|")
    assert kind == "InputError" and float(seconds) < 10
    assert "hf download nobody/nothing --local-dir FOLDER, then set model.query.init_from to that FOLDER" in message
    assert "\n" not in message


def test_convert_program_imports_and_rejects_with_exit_code_2(tmp_path, bert):
    def convert(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(ROOT / "convert.py"), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)

    done = convert("import", str(bert), "out")
    assert done.returncode == 0, done.stderr
    assert "TextConfig(layers=2, width=16, heads=2" in done.stdout and (tmp_path / "out/text.safetensors").is_file()
    for arguments, expected in (
        (("import", "./nowhere", "out2"), "nowhere"),
        (("export", "a", "b"), "--to"),
        ((), "import SOURCE OUT"),
    ):
        done = convert(*arguments)
        assert done.returncode == 2 and done.stderr.startswith("error: ") and expected in done.stderr
        assert "Traceback" not in done.stderr
    assert not (tmp_path / "out2").exists()
