"""The program of the baselines: rows, commands and skipped parts, with fake training and evaluation."""

import dataclasses
import json
import runpy
from pathlib import Path

import pytest

from benchmarks.baselines import run_baselines as baselines
from make_jax.catalog.reader import Catalog
from make_jax.cli.train_options import parse_settings
from make_jax.errors import InputError
from make_jax.evaluation.evaluate import evaluate
from make_jax.evaluation.report import write_report
from make_jax.runs.provenance import metadata
from tests.conftest import ROOT
from tests.retrieval.fake_encoder import FakeEncoder
from tests.tiny_catalog import write_catalog


def test_every_recipe_is_valid_and_has_as_many_examples_as_make() -> None:
    recipe = str(ROOT / baselines.RECIPE)
    make = runpy.run_path(recipe)["config"].train
    for row in baselines.ROWS:
        if row.kind in ("run", "late-fusion"):
            for candidate in row.candidates:
                config = parse_settings(["--config", recipe, *baselines._options(candidate.changes)], "")
                assert (config.train.steps, config.train.batch_size) == (make.steps, make.batch_size)
                if not row.ours:
                    assert config.objectives.key == 0 and not config.model.enrichment and config.model.keyword_dims == 0
                    assert config.model.adaptation.weights == "mean"
    assert [row.name for row in baselines.ROWS if row.ours] == ["make"]


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, list[list[str]]]:
    """Catalogs `fashion-sparse-full` and `clothing5k`, and programs that finish immediately."""
    for name in ("fashion-sparse-full", "clothing5k"):
        path = write_catalog(tmp_path / "catalogs" / name, products=60, queries=16, missing=False)
    info = json.loads((path / "catalog.json").read_text("utf-8"))
    (path / "catalog.json").write_text(json.dumps(info | {"hide_title": True}), encoding="utf-8")
    ran: list[list[str]] = []

    def run(command: list[str], environment: dict[str, str] | None = None) -> None:
        ran.append(command)
        if command[1] == "train.py":
            Path(command[command.index("--run") + 1]).mkdir(parents=True, exist_ok=True)
        elif command[1] == "eval.py":
            catalog = Catalog.load(command[command.index("--data.catalog") + 1])
            out, split = Path(command[command.index("--out") + 1]), command[command.index("--split") + 1]
            # the candidate "joint-loss-slower" reads more than the others, so it is the one to choose
            model = None if command[2] == "bm25" else FakeEncoder("both" if "slower" in command[2] else "image")
            write_report(evaluate(model, catalog, split), catalog, out, metadata(catalog, seed=0))

    monkeypatch.setattr(baselines, "run_program", run)
    return tmp_path, ran


def start(monkeypatch: pytest.MonkeyPatch, folder: Path, *more: str) -> None:
    argv = ["baselines.py", "--catalogs", str(folder / "catalogs"), "--runs", str(folder / "runs")]
    monkeypatch.setattr("sys.argv", [*argv, "--results", str(folder / "results"), *more])
    baselines.main()


def test_candidates_are_selected_on_validation_and_one_is_tested_once(work, monkeypatch) -> None:
    folder, ran = work
    start(monkeypatch, folder, "--only", "two-tower", "--on", "fashion-sparse-full", "clothing5k")
    kept = json.loads((folder / "results" / "fashion-sparse-full-two-tower.json").read_text("utf-8"))
    assert kept["chosen"] == "joint-loss-slower"
    figures = kept["validation nDCG@10"]
    assert max(figures, key=figures.get) == "joint-loss-slower" and len(figures) == 4
    splits = [
        (command[2].rpartition("two-tower-")[2].rpartition("-")[0], command[command.index("--split") + 1])
        for command in ran
        if command[1] == "eval.py"
    ]
    assert [name for name, split in splits if split == "test"] == ["joint-loss-slower"] * 2  # one a catalog
    zero_shot = json.loads((folder / "results" / "clothing5k-two-tower.json").read_text("utf-8"))
    assert zero_shot["recipe"]["trained_on"] == "fashion-sparse-full" and zero_shot["system"] == "image"
    steps = [int(command[command.index("--train.steps") + 1]) for command in ran if command[1] == "train.py"]
    assert steps == [700] * 4 * 2  # the second time they go on at once


def test_the_best_two_of_a_trial_are_compared_again_in_full(work) -> None:
    folder, ran = work
    of = baselines.Work(folder / "catalogs", folder / "runs", "", "python", {})
    row = dataclasses.replace(next(row for row in baselines.ROWS if row.name == "two-tower"), trial=200)
    chosen, best, figures = baselines.select_candidate(of, row, "fashion-sparse-full")
    steps = [int(command[command.index("--train.steps") + 1]) for command in ran if command[1] == "train.py"]
    assert steps == [200, 200, 200, 200, 700, 700]
    assert best.name == "joint-loss-slower-in-full" and chosen.trial == 0
    in_full = [name for name in figures if name.endswith("-in-full")]
    trial = sorted((name for name in figures if name not in in_full), key=figures.get, reverse=True)
    assert in_full == [f"{name}-in-full" for name in trial[:2]] and len(trial) == 4


def test_a_row_may_be_tuned_on_another_catalog(work, monkeypatch) -> None:
    folder, ran = work
    write_catalog(folder / "catalogs" / "fashion-full", products=60, queries=16, missing=False)
    row = dataclasses.replace(next(row for row in baselines.ROWS if row.name == "two-tower"), tuned_on="fashion-full")
    of = baselines.Work(folder / "catalogs", folder / "runs", "", "python", {})
    baselines.run_row(of, row, "fashion-sparse-full", folder / "results")
    trained = [command[command.index("--data.catalog") + 1].rpartition("/")[2] for command in ran if "--run" in command]
    assert trained == ["fashion-full"] * 4 + ["fashion-sparse-full"]
    tested = [command for command in ran if "test" in command]
    assert len(tested) == 1 and tested[0][2].startswith(str(folder / "runs" / "fashion-sparse-full"))
    kept = json.loads((folder / "results" / "fashion-sparse-full-two-tower.json").read_text("utf-8"))
    assert kept["recipe"]["tuned_on"] == "fashion-full" and kept["chosen"] == "joint-loss-slower"


def test_finished_rows_are_skipped_until_the_recipe_changes(work, monkeypatch) -> None:
    folder, ran = work
    start(monkeypatch, folder, "--only", "bm25", "--on", "fashion-sparse-full", "clothing5k")
    assert [path.name for path in (folder / "results").iterdir()] == ["fashion-sparse-full-bm25.json"]
    assert len(ran) == 1
    start(monkeypatch, folder, "--only", "bm25", "--on", "fashion-sparse-full")
    assert len(ran) == 1
    (folder / "results" / "fashion-sparse-full-bm25.json").unlink()  # the report is still there
    start(monkeypatch, folder, "--only", "bm25", "--on", "fashion-sparse-full")
    assert len(ran) == 1 and (folder / "results" / "fashion-sparse-full-bm25.json").is_file()
    changes = ["--changes", '{"train.steps": 9, "optim.learning_rate": 2e-5}']
    start(monkeypatch, folder, "--only", "bm25", "--on", "fashion-sparse-full", *changes)
    assert len(ran) == 2 and ran[0] != ran[1]  # another report, whatever there was
    start(monkeypatch, folder, "--only", "bm25", "--on", "fashion-sparse-full", *changes)
    assert len(ran) == 2
    kept = json.loads((folder / "results" / "fashion-sparse-full-bm25.json").read_text("utf-8"))
    assert kept["recipe"]["changes"]["optim.learning_rate"] == 2e-5


def test_models_with_other_settings_have_other_folders(tmp_path: Path) -> None:
    work = baselines.Work(tmp_path, tmp_path, "", "python", {})
    row = next(row for row in baselines.ROWS if row.name == "two-tower")
    first, second = row.candidates[:2]
    renamed = dataclasses.replace(second, name=first.name)
    others = [
        (work, row, renamed),
        (work, dataclasses.replace(row, trial=7), first),
        (dataclasses.replace(work, changes={"train.steps": 9}), row, first),
    ]
    folders = {of.trained(row, candidate, "c") for of, row, candidate in [(work, row, first), *others]}
    assert len(folders) == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--only", "bm26"], "no row 'bm26'; rows are make, bm25"),
        (["--only", "minilm"], "--minilm is missing"),
        (["--only", "bm25", "--on", "fashion-full"], r"no fashion-full\.zip \(option"),
    ],
)
def test_wrong_options_are_named(work, monkeypatch, options, message) -> None:
    with pytest.raises(InputError, match=message):
        start(monkeypatch, work[0], *options)
