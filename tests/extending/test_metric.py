"""The example of docs/extending.md, section "A metric": executed from the page, then evaluated."""

import io
import json
from pathlib import Path

import pytest

from make_jax.catalog.reader import Catalog
from make_jax.console import LiteralConsole
from make_jax.evaluation.compare import compare, read_report
from make_jax.evaluation.evaluate import evaluate
from make_jax.evaluation.metrics import METRICS
from make_jax.evaluation.render import print_report
from make_jax.evaluation.report import write_report
from make_jax.runs.provenance import metadata
from tests.conftest import ROOT
from tests.retrieval.fake_encoder import FakeEncoder
from tests.tiny_catalog import write_catalog

ADDED = ("nDCG@50", "precision@5", "first_rank")


def example(section: str) -> str:
    """The Python code of a section of docs/extending.md."""
    text = (ROOT / "docs" / "extending.md").read_text("utf-8")
    return text.split(f"## {section}\n")[1].split("\n## ")[0].split("```python\n")[1].split("```")[0]


def test_added_metrics_are_in_report_tables_terminal_and_comparison(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = dict(METRICS)
    for name in ADDED:
        monkeypatch.setitem(METRICS, name, METRICS["MAP"])  # restores the table after the test
    exec(example("A metric"), {})
    assert set(METRICS) - set(before) == set(ADDED)
    catalog = Catalog.load(write_catalog(tmp_path / "tiny", products=60, queries=16))
    result = evaluate(FakeEncoder(), catalog, "test")
    report = write_report(result, catalog, tmp_path / "report", metadata(catalog, seed=0))
    assert report["metrics"] == list(METRICS)
    for query, row, value in zip(
        result.judgements.queries,
        result.rankings["joint"].indices,
        result.values["joint"]["first_rank"],
        strict=True,
    ):
        ranked = [result.products[i].id for i in row if i >= 0]
        relevant = {product for product, grade in query.rel.items() if grade >= catalog.info.relevant}
        assert value == next((rank for rank, one in enumerate(ranked, 1) if one in relevant), len(ranked) + 1)
    overall = report["slices"]["all"]["systems"]["joint"]
    assert overall["nDCG@50"]["mean"] >= overall["nDCG@10"]["mean"] > 0  # 12 products: the cutoff 50 is all of them
    assert report["ir_measures"]["nDCG@50"] == "nDCG@50" and "first_rank" not in report["ir_measures"]
    text = (tmp_path / "report" / "report.md").read_text("utf-8")
    header = next(line for line in text.splitlines() if line.startswith("| system |"))
    assert all(f" {name} |" in header for name in ADDED)
    assert any(line.startswith("| graded |") and "| nDCG@50 |" in line for line in text.splitlines())
    stream = io.StringIO()
    print_report(report, LiteralConsole(file=stream, width=150))
    assert "precision" in stream.getvalue() and "first" not in stream.getvalue()
    compared = compare(read_report(tmp_path / "report"), read_report(tmp_path / "report", "bm25"))
    assert set(ADDED) <= set(compared["slices"]["all"]["metrics"])
    assert json.loads((tmp_path / "report" / "report.json").read_text("utf-8"))["metrics"] == list(METRICS)
