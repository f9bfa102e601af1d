"""The benchmark of pretrained text encoders: its runs and results, with programs that write reports immediately."""

import json
from pathlib import Path
from types import ModuleType

import pytest

from benchmarks.baselines import pretrained
from make_jax.catalog.reader import Catalog
from make_jax.errors import InputError
from make_jax.evaluation.evaluate import evaluate
from make_jax.evaluation.models.run import RunInfo
from make_jax.evaluation.report import write_report
from make_jax.runs.provenance import metadata
from tests.retrieval.fake_encoder import FakeEncoder
from tests.tiny_catalog import write_catalog


@pytest.fixture
def study(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> tuple[ModuleType, list[list[str]]]:
    """The program with one tiny catalog, and the commands that it runs."""
    module = pretrained
    write_catalog(tmp_path / "tiny.zip", products=60, queries=16, missing=False)
    (tmp_path / "minilm").mkdir()
    ran: list[list[str]] = []

    def run_program(command: list[str]) -> None:
        ran.append(command)
        if command[1] == "eval.py":
            catalog = Catalog.load(command[command.index("--data.catalog") + 1])
            out, split = Path(command[command.index("--out") + 1]), command[command.index("--split") + 1]
            model = FakeEncoder("both" if "pretrained" in Path(command[2]).name else "image")
            write_report(evaluate(model, catalog, split), catalog, out, metadata(catalog, seed=0))

    info = {"steps": 7, "training_seconds": 1.5}
    monkeypatch.setattr(module, "run_program", run_program)
    monkeypatch.setattr(module, "CATALOGS", ("tiny",))
    monkeypatch.setattr(module, "SLICES", {"val": ("all",), "test": ("all", "lang:en")})
    monkeypatch.setattr(module.run, "run_info", lambda path: RunInfo("tiny", 0, info))
    return module, ran


def start(module: ModuleType, monkeypatch: pytest.MonkeyPatch, folder: Path, minilm: str = "minilm") -> None:
    places = ["--catalogs", str(folder), "--runs", str(folder / "runs"), "--out", str(folder / "out.json")]
    monkeypatch.setattr("sys.argv", ["pretrained.py", *places, "--minilm", str(folder / minilm)])
    module.main()


def test_models_are_compared_pairwise_and_existing_reports_are_kept(study, monkeypatch, tmp_path):
    module, ran = study
    start(module, monkeypatch, tmp_path)
    trained = [command[command.index("--config") + 1] for command in ran if command[1] == "train.py"]
    assert trained == ["configs/fashion_pretrained.py", "configs/fashion.py"]
    assert len([command for command in ran if command[1] == "eval.py"]) == 3 * 2
    made = json.loads((tmp_path / "out.json").read_text("utf-8"))["tiny"]
    assert made["models"]["scratch"]["training_seconds"] == 1.5 and "steps" not in made["models"]["minilm"]
    for other in ("scratch", "minilm"):
        [mean, less] = [made["models"][model]["test"]["lang:en"]["mean"] for model in ("pretrained", other)]
        found = made["pretrained minus"][other]["test"]["lang:en"]
        assert found["difference"] == pytest.approx(mean - less, abs=1e-6)  # reports keep six digits
        assert found["low"] < found["difference"] < found["high"]
        assert mean > less
    ran.clear()
    start(module, monkeypatch, tmp_path)
    assert not ran


def test_minilm_must_be_a_folder(study, monkeypatch, tmp_path):
    with pytest.raises(InputError, match=r"--minilm: .*nowhere is not a folder"):
        start(study[0], monkeypatch, tmp_path, "nowhere")
