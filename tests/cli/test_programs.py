"""train.py and eval.py end to end: one error line for invalid input, a report otherwise."""

import json
import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from make_jax.config import to_json
from tests.conftest import ROOT
from tests.tiny_catalog import write_catalog, write_lines
from tests.training.tiny_run import tiny_config


def run(monkeypatch: pytest.MonkeyPatch, program: str, *arguments: str) -> int:
    """The exit code of a program."""
    monkeypatch.setattr(sys, "argv", [program, *arguments])
    monkeypatch.setattr("make_jax.cli.main.exit_on_signals", lambda *_: None)  # they would end the tests
    with pytest.raises(SystemExit) as leaving:
        runpy.run_path(str(ROOT / program), run_name="__main__")
    return int(leaving.value.code or 0)


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    """Returns the last line of stderr, after progress: one line that begins with `error:`, and no traceback."""
    text = capsys.readouterr().err
    assert text.count("error: ") == 1 and "Traceback" not in text
    last = text.strip().splitlines()[-1]
    assert last.startswith("error: ")
    return last


@pytest.fixture
def recipe(tmp_path: Path) -> str:
    """A recipe file of the tiny run."""
    config = tiny_config(tmp_path)
    (tmp_path / "config.json").write_text(to_json(config))
    path = tmp_path / "recipe.py"
    path.write_text(
        "from pathlib import Path\nfrom make_jax.config import from_json\n"
        f"config = from_json(Path({str(tmp_path / 'config.json')!r}).read_text(), 'config.json')\n"
    )
    return str(path)


def test_train_then_eval_writes_the_whole_report(monkeypatch, tmp_path, recipe, capsys):
    assert run(monkeypatch, "train.py", "--config", recipe) == 0
    assert run(monkeypatch, "eval.py", str(tmp_path / "run")) == 0
    folder = tmp_path / "run" / "eval" / "tiny-test"
    for name in ("report.json", "report.md", "gallery.png", "weights.png", "qrels.txt", "runs/joint.run.gz"):
        assert (folder / name).is_file(), name
    report = json.loads((folder / "report.json").read_text())
    assert {"random", "bm25", "title", "image", "joint", "joint+bm25"} == set(report["systems"])
    assert "joint + BM25" in capsys.readouterr().out
    rows = [json.loads(line) for line in (tmp_path / "tiny/products.jsonl").read_text().splitlines()]
    splits = ["test" if i % 5 in (0, 4) else row["split"] for i, row in enumerate(rows)]  # 12 of train and 12 of test
    shutil.copytree(tmp_path / "tiny", tmp_path / "split again")
    write_lines(tmp_path / "split again/products.jsonl", [r | {"split": s} for r, s in zip(rows, splits, strict=True)])
    (tmp_path / "split again/clicks.jsonl").write_text("")
    kept = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert run(monkeypatch, "eval.py", str(tmp_path / "run"), "--data.catalog", str(tmp_path / "split again")) == 0
    [other] = [path for path in (tmp_path / "run/eval").iterdir() if path != folder]
    shown = "".join(capsys.readouterr().out.split())  # without line breaks
    notes = json.loads((other / "report.json").read_text())["notes"]
    [note] = [note for note in notes if note.startswith("This catalog is not the one that the model was trained on")]
    assert "Of the 24 products searched, 12 are training products of the model; 4 of the 4 judged queries" in note
    assert "".join(note.split()) in shown and note in (other / "report.md").read_text()
    assert f"{folder}hasthereportofanothercatalog" in shown and f"report:{other}/report.md" in shown
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == kept
    assert not any("trained on" in note for note in report["notes"])
    vectors = str(tmp_path / "vectors")
    assert run(monkeypatch, "eval.py", str(tmp_path / "run"), "--embeddings", vectors, "--only-embed") == 0
    stored = {path: path.stat().st_mtime_ns for path in (tmp_path / "vectors").rglob("*.parquet")}
    assert len(stored) == 4
    out = str(tmp_path / "stored")
    assert run(monkeypatch, "eval.py", str(tmp_path / "run"), "--embeddings", vectors, "--out", out) == 0
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "vectors").rglob("*.parquet")} == stored
    from_disk = json.loads((tmp_path / "stored/report.json").read_text())
    assert set(from_disk["systems"]) == set(report["systems"])
    hidden = write_catalog(tmp_path / "hidden", products=60, missing=False)
    info = json.loads((hidden / "catalog.json").read_text())
    (hidden / "catalog.json").write_text(json.dumps(info | {"hide_title": True}))
    assert run(monkeypatch, "eval.py", str(tmp_path / "run"), "--data.catalog", str(hidden)) == 0
    systems = json.loads((tmp_path / "run/eval/hidden-test/report.json").read_text())["systems"]
    assert "bm25" not in systems and "image" in systems
    other = ["--data.catalog", str(write_catalog(tmp_path / "other", products=65)), "--embeddings", vectors]
    capsys.readouterr()
    assert run(monkeypatch, "eval.py", str(tmp_path / "run"), *other) == 2
    assert "-both/vectors.json: catalog is" in one_line(capsys)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--data.catalog", "nowhere"], "nowhere"),
        (["--train.batch-size", "12"], "train.batch_size is 12, which 8 devices do not divide; set it to 8 or 16"),
        (["--optim.lerning-rate", "1"], "--optim.learning-rate"),
        (["--train.steps", "many"], "train.steps"),
        (["--optim.lr-multipliers", "nowhere", "0"], "optim.lr_multipliers: 'nowhere' matches no parameter"),
    ],
)
def test_bad_settings_of_train_end_with_exit_code_2_and_one_line(monkeypatch, capsys, recipe, arguments, expected):
    assert run(monkeypatch, "train.py", "--config", recipe, *arguments) == 2
    assert expected in one_line(capsys)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["nowhere"], "nowhere: not found, expected a run"),
        (["nowhere", "--split", "tset"], "tset"),
        (["nowhere", "--only-embed"], "--only-embed has no effect without --embeddings"),
        (["nowhere", "--ray", "auto"], "--ray has no effect without --embeddings"),
        ([], "MODEL"),
        (["compare", "nowhere", "nowhere"], "nowhere: no report, expected a folder"),
        (["compare", "nowhere"], "REPORT-B"),
    ],
)
def test_bad_settings_of_eval_end_with_exit_code_2_and_one_line(monkeypatch, capsys, arguments, expected):
    assert run(monkeypatch, "eval.py", *arguments) == 2
    assert expected.lower() in one_line(capsys).lower()


@pytest.mark.parametrize(
    ("name", "line", "expected"),
    [
        ("products.jsonl", '{"id": "x", "split": "train"}', "neither"),
        ("queries.jsonl", '{"qid": "x", "text": "x", "split": "val", "rel": {"unknown": 3}}', "unknown"),
        ("clicks.jsonl", '{"query": "x", ', "clicks.jsonl:73"),
    ],
)
def test_bad_catalog_ends_training_with_exit_code_2_before_it_starts(
    monkeypatch, capsys, tmp_path, recipe, name, line, expected
):
    with (tmp_path / "tiny" / name).open("a") as file:
        file.write(line + "\n")
    assert run(monkeypatch, "train.py", "--config", recipe) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and name in error and expected in error and "Traceback" not in error
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("encoding", "shown"), [("ascii", "\\u7ea2"), ("latin-1", "\\u7ea2"), ("utf-8", "红")])
def test_output_in_an_encoding_that_lacks_a_character_is_escaped(tmp_path, encoding, shown):
    catalog = write_catalog(tmp_path / "红")
    with (catalog / "products.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"id": "红", "split": "train"}\n')
    env = {**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
    checked = run_module(env, "make_jax", "catalog", "check", str(catalog))
    assert checked.returncode == 2 and b"Traceback" not in checked.stderr
    assert shown in checked.stdout.decode(encoding) and "products.jsonl:25" in checked.stdout.decode(encoding)
    valid, out = str(write_catalog(tmp_path / "红2")), str(tmp_path / "report")
    evaluated = run_module(env, "make_jax", "eval", "bm25", "--data.catalog", valid, "--out", out)
    assert evaluated.returncode == 0 and b"Traceback" not in evaluated.stderr
    assert shown in evaluated.stdout.decode(encoding) and (tmp_path / "report" / "report.md").is_file()


def test_a_path_that_is_not_utf_8_is_printed_escaped(tmp_path):
    """Python holds such bytes as lone surrogates, which UTF-8 cannot encode."""
    catalog = write_catalog(tmp_path / "tiny").rename(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    checked = run_module({**os.environ, "PYTHONIOENCODING": "utf-8"}, "make_jax.catalog", "check", str(catalog))
    assert checked.returncode == 0 and rb"caf\udce9: no problems" in checked.stdout


def run_module(env: dict[str, str], module: str, *arguments: str) -> "subprocess.CompletedProcess[bytes]":
    """`python -m module ...` with its output as bytes."""
    return subprocess.run([sys.executable, "-m", module, *arguments], env=env, capture_output=True, cwd=ROOT)
