"""Embeddings and reports in an object store, against local servers with the API of S3 and of Google Cloud Storage."""

from contextlib import suppress
from pathlib import Path

import pytest

from make_jax.cli.evaluation_stores import evaluation_stores, pull_report
from make_jax.cli.options import EvalOptions, parse_evaluation
from make_jax.errors import InputError
from make_jax.object_stores import EMBEDDINGS, Mirror
from tests.object_store_servers import use_machine


def options_of(bucket: str, *more: str) -> EvalOptions:
    return parse_evaluation(["bm25", "--embeddings", f"{bucket}/vectors", "--out", f"{bucket}/report", *more])


def write_files(options: EvalOptions, text: str) -> None:
    """What an evaluation writes, in short."""
    for path in (Path(options.embeddings) / "test-both/vectors.json", Path(options.out) / "report.json"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_embeddings_and_reports_are_uploaded_and_found_by_another_machine(store, bucket, tmp_path, monkeypatch):
    with evaluation_stores(options_of(bucket)) as local:
        write_files(local, "one")
    use_machine(monkeypatch, tmp_path / "other")
    with evaluation_stores(options_of(bucket)) as local:
        assert (Path(local.embeddings) / "test-both/vectors.json").read_text() == "one"
        assert not Path(local.out).exists()  # it is replaced
        write_files(local, "two")
    assert (Path(pull_report(f"{bucket}/report")) / "report.json").read_text() == "two"
    assert store.cat_file(f"{bucket}/vectors/test-both/vectors.json") == b"two"


def test_a_failed_evaluation_uploads_no_report(store, bucket):
    with suppress(InputError), evaluation_stores(options_of(bucket)) as local:
        write_files(local, "one")
        raise InputError("stopped")
    assert not store.exists(f"{bucket}/report/report.json")
    with pytest.raises(InputError, match="no complete report there"):
        pull_report(f"{bucket}/report")


def test_a_report_never_replaces_other_files(store, bucket):
    store.pipe_file(f"{bucket}/report/thesis.tex", b"years of work")
    expected = "report: contains thesis.tex, which is no part of a report"
    with pytest.raises(InputError, match=expected), evaluation_stores(options_of(bucket)):
        pass
    assert store.cat_file(f"{bucket}/report/thesis.tex") == b"years of work"


def test_vectors_json_is_uploaded_before_the_shards(store, bucket, monkeypatch):
    mirror = Mirror(f"{bucket}/vectors", EMBEDDINGS)
    for name in ("a.parquet", "vectors.json"):
        (mirror.path / "test-both").mkdir(parents=True, exist_ok=True)
        (mirror.path / "test-both" / name).write_text(name)
    uploads: list[str] = []
    monkeypatch.setattr(Mirror, "_upload", lambda self, names: uploads.extend(names))
    mirror.push()
    assert uploads == ["test-both/vectors.json", "test-both/a.parquet"]


def test_local_paths_are_unchanged():
    options = parse_evaluation(["bm25", "--out", "here"])
    with evaluation_stores(options) as local:
        assert local == options
