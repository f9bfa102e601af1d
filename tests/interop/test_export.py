"""`convert.py export`, `convert.py import --from torch` and the model card, as people meet them."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from make_jax.errors import InputError
from make_jax.interop.model_card import reports_of_step
from make_jax.runs.convert import export_run, import_torch
from tests.conftest import ROOT
from tests.interop.exports import MODELS, random_run


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run, not measured."""
    return random_run(tmp_path_factory.mktemp("run"))


def numbers(mean: float) -> dict[str, dict[str, float]]:
    return {
        m: {"mean": mean, "low": mean - 0.01, "high": mean + 0.01}
        for m in ("nDCG@10", "MRR@10", "recall@10", "recall@100")
    }


def report(step: int) -> dict[str, object]:
    """A report with what a card reads."""
    systems = {"bm25": numbers(0.25), "joint": numbers(0.5)}
    catalog = {"name": "tiny", "title": "Tiny shapes", "licence": "CC0-1.0", "digest": "abc", "queries_from": "Drawn."}
    return {
        "about": {"catalog": catalog, "run": {"steps": step}, "versions": {"jax": "1"}, "device": "cpu",
                  "machine": "Linux", "python": "3", "command": "python eval.py RUN"},
        "intervals": {"level": 0.95, "method": "bootstrap", "resamples": 100},
        "split": "test", "queries": 8, "products": 12, "systems": list(systems), "notes": ["A note."],
        "slices": {"all": {"queries": 8, "systems": systems}, "lang:en": {"queries": 4, "systems": systems}},
    }  # fmt: skip


def test_model_card_lists_the_reports_of_the_exported_checkpoint_only(run, tmp_path):
    run = Path(shutil.copytree(run, tmp_path / "run"))
    for name, step in (("tiny-test", 0), ("older", 7)):
        (run / "eval" / name).mkdir(parents=True)
        (run / "eval" / name / "report.json").write_text(json.dumps(report(step)))
    assert [found["about"]["run"]["steps"] for found in reports_of_step(run, 0)] == [0]
    export_run(str(run), str(tmp_path / "out"), "torch", print)
    card = (tmp_path / "out" / "README.md").read_text()
    assert "| joint | 0.500 [0.490, 0.510] |" in card
    assert "| lang:en | 4 |" in card
    assert card.count("Tiny shapes") == 0  # another catalog than the run was trained on: its digest differs
    assert "Queries: Drawn." in card
    assert "step 0" in card
    assert '"vocab_size": ' in card  # the settings
    (run / "eval" / "older" / "report.json").write_text("{")
    with pytest.raises(InputError, match=r"report\.json: damaged"):
        export_run(str(run), str(tmp_path / "again"), "torch", print)
    assert not (tmp_path / "again").exists()


def test_an_impossible_export_is_a_one_line_error_and_writes_nothing(run, tmp_path):
    (tmp_path / "there").mkdir()
    out = tmp_path / "out"
    cases = {
        (run, tmp_path / "there", "torch"): "there exists; name a folder that does not",
        (tmp_path, out, "torch"): "not a run",
        (run, out, "sentence-transformers"): r"model\.enrichment is on",
    }
    for (source, target, form), message in cases.items():
        with pytest.raises(InputError, match=message) as raised:
            export_run(str(source), str(target), form, print)
        assert "\n" not in str(raised.value)
        assert [path.name for path in tmp_path.iterdir()] == ["there"]
    with pytest.raises(InputError, match=r"config\.json: no such file"):
        import_torch(str(tmp_path / "there"), str(out), print)
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


def test_import_of_a_folder_that_is_not_an_export_exits_with_code_2(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    words = ["import", str(tmp_path), str(tmp_path / "out"), "--from", "torch"]
    done = subprocess.run([sys.executable, str(ROOT / "convert.py"), *words], capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: ")
    assert "model_type is 'bert', expected 'make_jax'" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("form", ["onnx", "onnx-int8", "stablehlo"])
def test_a_missing_library_is_named(run, tmp_path, form, monkeypatch):
    for name in ("onnx", "flatbuffers"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(InputError, match=r"this needs (torch|onnx|flatbuffers) .*pip install -e '.*\["):
        export_run(str(run), str(tmp_path / "out"), form, print)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("form", "logged"), [("torch", True), ("stablehlo", False)])
def test_formats_with_another_dtype_than_the_run_log_it(tmp_path, form, logged):
    run = random_run(tmp_path, replace(MODELS["fashion"], dtype="bfloat16"))
    notes: list[str] = []
    export_run(str(run), str(tmp_path / "out"), form, notes.append)
    assert any("bfloat16, this form in float32" in note for note in notes) == logged
