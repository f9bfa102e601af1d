"""The leaderboard: stored results, and the generated page."""

import json
from pathlib import Path

import numpy as np
import pytest

from make_jax.catalog.reader import Catalog
from make_jax.errors import InputError
from make_jax.evaluation.evaluate import evaluate
from make_jax.evaluation.report import write_report
from make_jax.runs.provenance import metadata
from scripts.leaderboard import leaderboard as board
from tests.conftest import ROOT
from tests.retrieval.fake_encoder import FakeEncoder
from tests.tiny_catalog import write_catalog


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reports")
    catalog = Catalog.load(write_catalog(folder / "tiny", products=60, queries=16))
    for name, encoder, pool in (
        ("both", FakeEncoder(), "split"),
        ("bm25", None, "split"),
        ("all", FakeEncoder(), "all"),
    ):
        made = metadata(catalog, seed=0, model={"name": name, "kind": "fake"}, run={"training_seconds": 60.0})
        write_report(evaluate(encoder, catalog, "test", pool=pool), catalog, folder / name, made)
    return folder


def kept(reports: Path, folder: Path, *names: str) -> list:
    for name in names:
        board.keep(reports / name, folder / f"{name}.json", name.upper(), ours=name == "both")
    return board.load(folder)


def test_stored_results_have_the_numbers_of_the_report(reports: Path, tmp_path: Path) -> None:
    report = json.loads((reports / "both" / "report.json").read_text("utf-8"))
    (row,) = kept(reports, tmp_path, "both")
    assert set(row.kept["slices"]) == set(report["slices"])
    for name, mask in row.members.items():
        expected = report["slices"][name]
        assert mask.sum() == expected["queries"]
        assert row.values[mask].mean() == pytest.approx(expected["systems"]["joint"]["nDCG@10"]["mean"], abs=1e-4)
    assert row.kept["about"]["catalog"]["digest"] == report["about"]["catalog"]["digest"]


def test_another_system_of_a_report_can_be_stored_and_has_no_cost(reports, tmp_path) -> None:
    board.keep(reports / "both", tmp_path / "x.json", "image alone", system="image")
    (row,) = board.load(tmp_path)
    assert row.kept["system"] == "image" and row.kept["cost"] == {}


def test_the_page_has_every_table_and_its_numbers(reports: Path, tmp_path: Path) -> None:
    rows = kept(reports, tmp_path, "both", "bm25")
    published = json.loads((ROOT / "docs" / "results" / "published.json").read_text("utf-8"))
    text = board.page(rows, published, {})
    mean = {row.kept["label"]: row.kept["slices"]["all"]["metrics"]["nDCG@10"]["mean"] for row in rows}
    assert f"| BOTH | {mean['BOTH']:.3f} [" in text and f"| BM25 | {mean['BM25']:.3f} [" in text
    assert text.index("| BOTH |") < text.index("| BM25 |")
    assert "tiny, by slice" in text and "lang:zh" in text and "Macro mean over 2 groups" in text
    assert "| BOTH | tiny |" in text and "| 60 |" in text  # seconds of training
    assert "not measured here" in text
    for one in published["rows"]:
        assert one["model"] in text and one["source"] in text


def test_slices_led_by_another_model_are_listed_with_the_reason(reports, tmp_path) -> None:
    rows = kept(reports, tmp_path, "both", "bm25")
    text = board.page(rows, {"rows": []}, {})
    assert "BOTH leads every slice." in text and "Slices led by another model" not in text
    for row in rows:
        row.kept["ours"] = row.kept["label"] == "BM25"
    text = board.page(rows, {"rows": []}, {"tiny": {"lang:zh": "titles are English"}})
    assert "* lang:zh: BOTH +" in text and "): see lang:zh below" in text
    assert text.count("titles are English") == text.count("\nlang:zh: titles are English.") == 1
    assert "* all: BOTH +" in text and "): not explained yet" in text
    assert "leads every slice" not in text


def made(folder: Path, name: str, values: list[float], ours: bool = False) -> None:
    """A kept result of 40 queries, of which the first 30 are of kind:title."""
    titles = np.arange(40) < 30

    def numbers(mask: np.ndarray) -> dict[str, dict[str, float]]:
        mean = float(np.array(values)[mask].mean())
        return {"nDCG@10": {"mean": mean, "low": mean, "high": mean}}

    masks = {"all": np.ones(40, bool), "kind:title": titles, "kind:attr": ~titles}
    kept = {
        "format": 1,
        "label": name,
        "ours": ours,
        "benchmark": "made",
        "split": "test",
        "pool": "split",
        "queries": 40,
        "products": 9,
        "asked": "",
        "cost": {},
        "slices": {of: {"queries": int(mask.sum()), "metrics": numbers(mask)} for of, mask in masks.items()},
        "macro": {"groups": {"": 40}, "metrics": numbers(masks["all"])},
        "per_query": [round(value * 10_000) for value in values],
        "members": {of: np.packbits(mask).tobytes().hex() for of, mask in masks.items()},
        "about": {"catalog": {"digest": "", "queries_from": "made."}, "device": "cpu"},
    }
    (folder / f"{name}.json").write_text(json.dumps(kept))


def test_bold_equals_sign_and_reasons_follow_from_the_values(tmp_path: Path) -> None:
    made(tmp_path, "MAKE", [0.5] * 40, ours=True)
    made(tmp_path, "BETTER", [0.9] * 30 + [0.2] * 10)  # on titles alone
    made(tmp_path, "ALIKE", [0.6, 0.4] * 20)
    text = board.page(board.load(tmp_path), {"rows": []}, {"made": {"kind:title": "strings are equal"}})
    assert "Holm-corrected over the 6 tests" in text  # two models, three slices
    cells = {line.split(" | ")[0][2:]: line.rstrip(" |").split(" | ")[2:] for line in text.splitlines() if "[" in line}
    make, better, alike = (f"{mean} [{mean}, {mean}]" for mean in ("0.500", "0.900", "0.500"))
    assert cells["kind:title"] == [make, f"**{better}**", f"{alike} ="]
    assert cells["kind:attr"] == [f"**{make}**", "0.200 [0.200, 0.200]", f"**{alike}** ="]  # a tie: both are highest
    assert "* kind:title: BETTER +0.400 (p 0.0003 after Holm, significant): see kind:title below" in text
    assert text.count("\nkind:title: strings are equal.") == 1
    assert "* all: BETTER +0.225 (p " in text
    assert "): 30 of its 40 queries are in kind:title, see below; on the others -0.300" in text


def test_a_benchmark_with_one_model_has_no_comparison(tmp_path: Path) -> None:
    made(tmp_path, "MAKE", [0.5] * 40, ours=True)
    text = board.page(board.load(tmp_path), {"rows": []}, {"made": {"all": "unused"}})
    assert "leads" not in text and "unused" not in text and "Holm" not in text


def test_results_of_another_pool_are_refused(reports: Path, tmp_path: Path) -> None:
    rows = kept(reports, tmp_path, "both", "all")
    with pytest.raises(InputError, match=r"both\.json: pool differs from that of .*all\.json"):
        board.page(rows, {"rows": []}, {})


def test_an_invalid_result_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("{}")
    with pytest.raises(InputError, match=r"x\.json: not a kept result"):
        board.load(tmp_path)


def test_the_page_in_the_repository_is_up_to_date(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(board, "PAGE", tmp_path / "leaderboard.md")
    board.write()
    assert (tmp_path / "leaderboard.md").read_text("utf-8") == (board.RESULTS / "leaderboard.md").read_text("utf-8")
