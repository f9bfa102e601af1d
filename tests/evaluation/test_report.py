import dataclasses
import gzip
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from rich.progress import Progress

from make_jax.catalog.reader import Catalog
from make_jax.console import LiteralConsole, text_column
from make_jax.errors import InputError
from make_jax.evaluation.compare import compare, print_comparison, read_report
from make_jax.evaluation.evaluate import Evaluation, evaluate
from make_jax.evaluation.render import markdown, print_report
from make_jax.evaluation.report import build_report, report_folder, write_report
from make_jax.evaluation.weights_plot import weight_groups
from make_jax.runs.provenance import metadata, query_source
from tests.retrieval.fake_encoder import FakeEncoder
from tests.tiny_catalog import write_catalog


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    path = write_catalog(tmp_path_factory.mktemp("catalog") / "tiny", products=60, queries=16)
    (path / "PROVENANCE.md").write_text("# tiny\n\n**Queries:** made by the tests.\n")
    return Catalog.load(path)


@pytest.fixture(scope="module")
def evaluation(catalog: Catalog) -> Evaluation:
    return evaluate(FakeEncoder(), catalog, "test")


@pytest.fixture(scope="module")
def written(catalog: Catalog, evaluation: Evaluation, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report") / "test"
    write_report(evaluation, catalog, folder, metadata(catalog, seed=0, command="python eval.py runs/x", step=7))
    return folder


def test_report_holds_every_number_with_interval_count_and_origin(written: Path, catalog: Catalog) -> None:
    report = json.loads((written / "report.json").read_text(encoding="utf-8"))
    assert report["about"]["catalog"]["digest"] == catalog.digest
    assert report["about"]["catalog"]["queries_from"].startswith("made by the tests.")
    assert report["about"]["command"] == "python eval.py runs/x"
    assert report["about"]["step"] == 7
    assert {"commit", "device", "versions", "seed"} <= set(report["about"])
    assert (report["queries"], report["products"]) == (8, 12)
    for part in report["slices"].values():
        assert part["queries"] > 0
        assert list(part["systems"]) == report["systems"]
        for numbers in part["systems"].values():
            assert list(numbers) == report["metrics"]
            assert all(n["low"] <= n["mean"] <= n["high"] for n in numbers.values())
    pairs = [(d["system"], d["minus"]) for d in report["slices"]["all"]["differences"]]
    assert ("joint", "image") in pairs and ("joint", "title") in pairs
    assert ("joint+bm25", "joint") in pairs and ("joint+bm25", "bm25") in pairs


def test_differences_are_differences_of_the_means(written: Path) -> None:
    part = json.loads((written / "report.json").read_text(encoding="utf-8"))["slices"]["all"]
    for difference in part["differences"]:
        for metric, numbers in difference["metrics"].items():
            a, b = (part["systems"][difference[side]][metric]["mean"] for side in ("system", "minus"))
            assert numbers["mean"] == pytest.approx(a - b)


def test_macro_means_are_the_means_of_the_groups(written: Path) -> None:
    report = json.loads((written / "report.json").read_text(encoding="utf-8"))
    assert report["macro"]["groups"] == {"colour+shape en": 4, "colour+shape zh": 4}
    for system, of in report["macro"]["systems"].items():
        parts = [report["slices"][f"lang:{lang}"]["systems"][system] for lang in ("en", "zh")]
        for metric, numbers in of.items():
            assert numbers["mean"] == pytest.approx(sum(part[metric]["mean"] for part in parts) / 2)
    assert "micro (over queries)" in (written / "report.md").read_text(encoding="utf-8")


def test_the_report_states_task_pool_and_cost(written: Path) -> None:
    report = json.loads((written / "report.json").read_text(encoding="utf-8"))
    assert report["pool"] == "split" and report["slices"]["task:graded"]["queries"] > 0
    assert report["cost"]["products"] == 12 and report["cost"]["queries"] == 8
    assert report["cost"]["bytes"] == 4 * 8 and report["cost"]["product_seconds"] > 0
    text = (written / "report.md").read_text(encoding="utf-8")
    assert "| graded |" in text and "32 bytes per product vector" in text


def test_markdown_is_made_from_the_json_alone(written: Path) -> None:
    report = json.loads((written / "report.json").read_text(encoding="utf-8"))
    text = (written / "report.md").read_text(encoding="utf-8")
    assert markdown(report) == text
    mean = report["slices"]["all"]["systems"]["joint"]["nDCG@10"]["mean"]
    assert f"| joint | {mean:.3f} |" in text
    assert "Queries: made by the tests." in text


def test_runs_re_score_to_the_numbers_of_the_report(written: Path) -> None:
    report = json.loads((written / "report.json").read_text(encoding="utf-8"))
    for system in ("bm25", "joint+bm25"):
        names = {name: metric for metric, name in report["ir_measures"].items()}
        done = subprocess.run(
            [sys.executable, "-m", "ir_measures", "qrels.txt", f"runs/{system}.run.gz", *names, "-p", "9"],
            cwd=written,
            capture_output=True,
            text=True,
            check=True,
        )
        again = dict(line.split("\t") for line in done.stdout.splitlines())
        ours = report["slices"]["all"]["systems"][system]
        assert {names[n]: float(v) for n, v in again.items()} == pytest.approx(
            {metric: numbers["mean"] for metric, numbers in ours.items()}, abs=1e-8
        )


def test_per_query_values_average_to_the_report(written: Path) -> None:
    report = json.loads((written / "report.json").read_text(encoding="utf-8"))
    lines = [json.loads(line) for line in (written / "per_query.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(lines) == 8
    mean = sum(line["values"]["joint"]["MAP"] for line in lines) / 8
    assert mean == pytest.approx(report["slices"]["all"]["systems"]["joint"]["MAP"]["mean"], abs=1e-6)


def test_pictures_are_written(written: Path) -> None:
    for name in ("weights.png", "gallery.png"):
        with Image.open(written / name) as image:
            image.load()
            assert image.width > 400
    assert gzip.decompress((written / "runs" / "joint.run.gz").read_bytes()).count(b"\n") == 8 * 12


def test_modal_weights_are_of_products_with_title_and_image(written: Path, evaluation: Evaluation) -> None:
    report = json.loads((written / "report.json").read_text(encoding="utf-8"))
    both = sum(bool(product.title) and product.image is not None for product in evaluation.products)
    assert report["modal_weights"]["all"]["products"] == both < 12
    weights = [w[0] for w in evaluation.embeddings.weights.tolist() if 0 < w[0] < 1]
    assert report["modal_weights"]["all"]["mean_title"] == pytest.approx(sum(weights) / both)


def test_weight_groups_follow_dropped_words(evaluation: Evaluation) -> None:
    products = tuple(
        dataclasses.replace(product, dropped=(("colour",), ("colour", "type"), ())[i % 3])
        for i, product in enumerate(evaluation.products)
    )
    groups = weight_groups(dataclasses.replace(evaluation, products=products))
    assert list(groups) == ["all", "nothing dropped", "colour dropped", "type dropped"]
    assert len(groups["nothing dropped"]) + len(groups["colour dropped"]) == len(groups["all"])


def test_the_terminal_shows_table_notes_and_source_of_queries(evaluation: Evaluation, catalog: Catalog) -> None:
    stream = io.StringIO()
    print_report(build_report(evaluation, metadata(catalog, seed=0)), LiteralConsole(file=stream, width=150))
    shown = stream.getvalue()
    for words in ("joint + BM25", "image only", "cannot be found", "made by the tests", "joint - title only: nDCG@10"):
        assert words in shown


def test_a_report_is_replaced_and_other_files_are_not(evaluation: Evaluation, catalog: Catalog, tmp_path: Path) -> None:
    folder = tmp_path / "report"
    note = metadata(catalog, seed=0)
    write_report(evaluation, catalog, folder, note)
    (folder / "old.txt").write_text("of the last report")
    write_report(evaluation, catalog, folder, note)
    assert not (folder / "old.txt").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["report"]
    (folder / "report.json").unlink()
    with pytest.raises(InputError, match="contains files that are not a report"):
        write_report(evaluation, catalog, folder, note)
    assert (folder / "report.md").exists()


def test_an_error_keeps_the_old_report_and_no_other_file(
    evaluation: Evaluation, catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "report"
    write_report(evaluation, catalog, folder, metadata(catalog, seed=0))
    before = (folder / "report.json").read_bytes()

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("make_jax.evaluation.report.draw_gallery", full)
    with pytest.raises(InputError, match=r"report: the report was not written \(No space left on device\)"):
        write_report(evaluation, catalog, folder, metadata(catalog, seed=1))
    assert (folder / "report.json").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["report"]


def test_a_catalog_without_provenance_is_reported(tmp_path: Path) -> None:
    catalog = Catalog.load(write_catalog(tmp_path / "tiny"))
    assert "does not state" in query_source(catalog)


def test_the_recorded_command_has_no_absolute_path(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["eval.py", f"{tmp_path}/runs/a", "--data.catalog", "/data/shop.zip", "-k", "5"])
    assert metadata(catalog, seed=0)["command"] == "python eval.py runs/a --data.catalog shop.zip -k 5"


@pytest.mark.parametrize("name", ["x[/v2] a", "shop [red]", ":heart: :smile:", "[link=x]y", "\\[a]"])
def test_names_are_printed_literally(evaluation: Evaluation, catalog: Catalog, tmp_path: Path, name: str) -> None:
    """Brackets and emoji codes in names of catalogs, models and kinds are not markup."""
    about = metadata(catalog, seed=0, model={"name": name, "kind": "fake"})
    about["catalog"] |= {"name": f"c{name}", "queries_from": f"q{name}"}
    report = build_report(dataclasses.replace(evaluation, notes=(f"n{name}",)), about)
    stream = io.StringIO()
    print_report(report, LiteralConsole(file=stream, width=300))
    assert all(f"{place}{name}" in stream.getvalue() for place in ("by ", "c", "q", "n"))

    mask = evaluation.slices["all"]
    renamed = dataclasses.replace(evaluation, slices={"all": mask, f"kind:{name}": mask})
    about["catalog"]["name"] = name
    write_report(renamed, catalog, tmp_path / "a", about)
    read = read_report(tmp_path / "a")
    stream = io.StringIO()
    print_comparison(compare(read, read), LiteralConsole(file=stream, width=300))
    assert f"A = {name} (" in stream.getvalue() and f"kind:{name} " in stream.getvalue()


def test_progress_bars_show_descriptions_literally() -> None:
    for text in ("[v2] ci:red:", "x[/v2]"):
        stream = io.StringIO()
        console = LiteralConsole(file=stream, force_terminal=True, width=100)
        with Progress(text_column("{task.description}"), console=console) as bar:
            bar.add_task(text)
        assert text in stream.getvalue()


def test_reports_of_catalogs_and_models_of_one_name_have_folders_of_their_own(tmp_path: Path) -> None:
    def write(catalog: str, model: str | None) -> str:
        about = {"catalog": {"digest": catalog * 9}, "model": {} if model is None else {"path_digest": model * 9}}
        folder = report_folder(tmp_path / "clip", "tiny-test", about)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "report.json").write_text(json.dumps({"about": about}))
        return folder.relative_to(tmp_path).as_posix()

    assert write("a", None) == "clip/tiny-test"
    assert write("b", None) == "clip/tiny-test-bbbbbbbb"
    assert write("a", "x") == "clip/tiny-test"  # a report without a model's digest
    assert write("a", "x") == "clip/tiny-test" and write("b", None) == "clip/tiny-test-bbbbbbbb"
    assert write("a", "y") == "clip-yyyyyyyy/tiny-test"
    assert write("c", "y") == "clip-yyyyyyyy/tiny-test-cccccccc"
    assert write("a", "y") == "clip-yyyyyyyy/tiny-test" and write("a", "x") == "clip/tiny-test"
    (tmp_path / "clip/tiny-test/report.json").write_text("{")
    assert write("d", "x") == "clip/tiny-test"  # a damaged report is replaced
