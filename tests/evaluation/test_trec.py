from pathlib import Path

import ir_measures
import numpy as np
import pytest

from make_jax.evaluation.trec import strictly_decreasing, write_qrels, write_run
from make_jax.retrieval.top_k import TopK


def test_scores_become_strictly_decreasing_by_as_few_steps_as_it_takes() -> None:
    scores = np.array([[2, 1, 1, 1, 0.5, -np.inf], [0, 0, 0, -0.0, -1, -1]], np.float32)
    out = strictly_decreasing(scores)
    assert out.dtype == np.float32
    finite = np.isfinite(out)
    assert all((np.diff(row[keep]) < 0).all() for row, keep in zip(out, finite, strict=True))
    np.testing.assert_array_equal(finite, np.isfinite(scores))
    np.testing.assert_array_equal(out[0, [0, 1, 4]], scores[0, [0, 1, 4]])
    step = np.nextafter(np.float32(1), np.float32(0))
    assert out[0, 2] == step and out[0, 3] == np.nextafter(step, np.float32(0))
    assert np.abs(out[1, :4]).max() < 1e-36


def test_no_score_is_subnormal() -> None:
    tiny = np.finfo(np.float32).tiny
    out = strictly_decreasing(np.array([[tiny, tiny, tiny, tiny], [1e-40, 1e-41, 0, -1e-41]], np.float32))
    assert (np.diff(out, axis=1) < 0).all()
    assert (np.abs(out[out != 0]) >= tiny).all()


def test_strictly_decreasing_scores_leave_the_input_alone() -> None:
    scores = np.ones((1, 3), np.float32)
    strictly_decreasing(scores)
    assert (scores == 1).all()


def test_run_and_qrels_files_are_read_back_by_ir_measures(tmp_path: Path) -> None:
    ranking = TopK(
        np.array([[0.1, 0.1, 0.1], [0.7, -np.inf, -np.inf]], np.float32),
        np.array([[2, 0, 1], [1, -1, -1]], np.int32),
    )
    write_run(tmp_path / "a.run.gz", ranking, ["q1", "q 2"], ["x", "y", "100% z"], "joint+bm25")
    write_qrels(tmp_path / "qrels.txt", {"q1": {"x": 3, "100% z": 0}, "q 2": {"y": 1}})
    run = list(ir_measures.read_trec_run(str(tmp_path / "a.run.gz")))
    assert [(row.query_id, row.doc_id) for row in run] == [
        ("q1", "100%25%20z"),
        ("q1", "x"),
        ("q1", "y"),
        ("q%202", "y"),
    ]
    written = np.array([row.score for row in run[:3]])
    np.testing.assert_array_equal(written.astype(np.float32), strictly_decreasing(ranking.scores)[0])
    qrels = list(ir_measures.read_trec_qrels(str(tmp_path / "qrels.txt")))
    assert [(row.query_id, row.doc_id, row.relevance) for row in qrels] == [
        ("q1", "x", 3),
        ("q1", "100%25%20z", 0),
        ("q%202", "y", 1),
    ]


def test_a_run_file_is_whole_or_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("make_jax.files.os.fsync", full)
    ranking = TopK(np.ones((1, 1), np.float32), np.zeros((1, 1), np.int32))
    with pytest.raises(OSError, match="No space"):
        write_run(tmp_path / "a.run.gz", ranking, ["q"], ["x"], "tag")
    assert list(tmp_path.iterdir()) == []
