"""The example of docs/extending.md, section "An evaluation adapter": executed from the page, then evaluated."""

import hashlib
import json
import types
from pathlib import Path

import numpy as np
import pytest

from make_jax.cli.evaluation import evaluate_model
from make_jax.cli.options import parse_evaluation
from make_jax.errors import InputError
from make_jax.evaluation.models import ADAPTERS, open_model
from make_jax.retrieval.embed import Encoder
from tests.conftest import ROOT
from tests.tiny_catalog import COLOURS, SHAPES, write_catalog


@pytest.fixture
def adapter(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """The module of the example, in the table of adapters during a test."""
    text = (ROOT / "docs" / "extending.md").read_text("utf-8")
    section = text.split("## An evaluation adapter\n")[1].split("\n## ")[0]
    assert 'ADAPTERS = {..., "word_vectors": word_vectors}' in section
    module = types.ModuleType("word_vectors")
    exec(section.split("```python\n")[1].split("```")[0], module.__dict__)
    monkeypatch.setitem(ADAPTERS, "word_vectors", module)
    return module


def model_folder(path: Path) -> Path:
    """One-hot vectors of the words of the tiny catalog."""
    words = [*COLOURS, *SHAPES]
    path.mkdir()
    rows = [f"{word} {' '.join(map(str, row))}" for word, row in zip(words, np.eye(len(words), dtype=int), strict=True)]
    (path / "word_vectors.txt").write_text("\n".join([f"{len(words)} {len(words)}", *rows]), encoding="utf-8")
    return path


def test_an_added_adapter_is_opened_and_evaluated_in_memory_and_on_disk(
    adapter: types.ModuleType, tmp_path: Path
) -> None:
    folder, catalog = model_folder(tmp_path / "mine"), write_catalog(tmp_path / "tiny", products=60, queries=16)
    opened = open_model(folder)
    assert (opened.name, opened.kind) == ("mine", "word_vectors") and isinstance(opened.model, Encoder)
    reports = []
    for name, extra in (("memory", []), ("disk", ["--embeddings", str(tmp_path / "vectors")])):
        options = [str(folder), "--data.catalog", str(catalog), "--out", str(tmp_path / name), *extra]
        assert evaluate_model(parse_evaluation(options, "")) == tmp_path / name
        reports.append(json.loads((tmp_path / name / "report.json").read_text("utf-8")))
    for report in reports:
        path_digest = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()
        assert report["about"]["model"] == {"name": "mine", "kind": "word_vectors", "path_digest": path_digest}
        assert report["systems"] == ["random", "bm25", "title", "title+bm25"]
        means = {system: of["nDCG@10"]["mean"] for system, of in report["slices"]["all"]["systems"].items()}
        assert means["title"] > means["random"]
    assert {path.name for path in (tmp_path / "vectors").iterdir()} == {"test-title", "val-title"}


def test_the_added_adapter_refuses_a_damaged_file(adapter: types.ModuleType, tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "mine")
    (folder / "word_vectors.txt").write_text("2 3\nred 1 0 0\n", encoding="utf-8")
    with pytest.raises(InputError, match="damaged, expected word2vec text format"):
        open_model(folder)
