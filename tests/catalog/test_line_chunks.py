"""Parsing in chunks: the same rows, problems and digest whatever the chunks and processes; interrupted parses go on."""

import hashlib
import json
from pathlib import Path

import pytest

from make_jax.catalog import line_chunks
from make_jax.catalog.executors import open_executor
from make_jax.catalog.reader import Catalog, read
from make_jax.catalog.reporting import Problems
from make_jax.catalog.source import open_source
from make_jax.errors import InputError
from make_jax.files import folder_digest
from tests.tiny_catalog import write_catalog


def read_all(path: Path, folder: Path | None = None, workers: int = 1) -> tuple[Catalog, Problems, Problems]:
    source = open_source(path)
    problems, warnings = Problems(source.path), Problems(source.path)
    with open_executor(workers) as executor:
        catalog, _ = read(source, problems, warnings, folder, executor)
    return catalog, problems, warnings


@pytest.mark.parametrize("zipped", [False, True])
def test_small_chunks_give_the_same_catalog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zipped: bool) -> None:
    path = write_catalog(tmp_path / "tiny", products=60, zipped=zipped)
    complete = Catalog.load(path)
    monkeypatch.setattr(line_chunks, "CHUNK_BYTES", 500)
    parts = Catalog.load(path)
    assert len(parts.products.table.to_batches()) > 5
    assert parts.products == complete.products and parts.queries == complete.queries and parts.clicks == complete.clicks
    assert parts.digest == complete.digest and parts.clicked.tolist() == complete.clicked.tolist()
    ids = [product.id for product in complete.products]
    assert [ids[position] for position in complete.clicked] == [click.product for click in complete.clicks]


def test_problems_are_in_the_order_of_lines_whatever_the_chunks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_catalog(tmp_path / "tiny", products=60)
    lines = (path / "products.jsonl").read_text().splitlines()
    lines[3], lines[40], lines[50] = "[]", lines[0], lines[50].replace('"id"', '"no"')
    (path / "products.jsonl").write_text("\n".join(lines) + "\n\n")
    _, complete, _ = read_all(path)
    monkeypatch.setattr(line_chunks, "CHUNK_BYTES", 500)
    _, parts, _ = read_all(path)
    assert parts.messages == complete.messages and parts.count == complete.count == 3
    assert [message.split(":")[1] for message in complete.messages] == ["4", "41", "51"]


def test_the_number_of_problems_counts_those_beyond_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_catalog(tmp_path / "tiny", products=60)
    text = (path / "clicks.jsonl").read_text()
    (path / "clicks.jsonl").write_text(text.replace('"product": "p', '"product": "q'))
    monkeypatch.setattr(line_chunks, "CHUNK_BYTES", 500)
    with pytest.raises(InputError, match=f"{len(text.splitlines())} problems"):
        Catalog.load(path)


def test_worker_processes_write_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_catalog(tmp_path / "tiny", products=60)
    monkeypatch.setattr(line_chunks, "CHUNK_BYTES", 2000)
    folders = []
    for workers in (1, 2):
        folders.append(tmp_path / f"columns-{workers}")
        folders[-1].mkdir()
        read_all(path, folders[-1], workers)
    assert len(list(folders[0].glob("products-*.arrow"))) > 2
    assert folder_digest(folders[0]) == folder_digest(folders[1])


def test_an_interrupted_parse_goes_on_with_the_missing_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, folder = write_catalog(tmp_path / "tiny", products=60), tmp_path / "columns"
    folder.mkdir()
    monkeypatch.setattr(line_chunks, "CHUNK_BYTES", 2000)
    expected, _, _ = read_all(path, folder)
    complete = folder_digest(folder)
    lost = sorted(folder.glob("products-*.arrow"))[1]
    lost.unlink()
    kept = {file: file.stat().st_mtime_ns for file in folder.iterdir()}
    again, _, _ = read_all(path, folder)
    assert folder_digest(folder) == complete and again.products == expected.products
    assert all(file.stat().st_mtime_ns == time for file, time in kept.items())


def test_the_digest_is_that_of_the_files_bytes(tmp_path: Path) -> None:
    path = tmp_path / "one"
    path.mkdir()
    line = json.dumps({"id": "a", "title": "x", "split": "train"}) + "\n"
    (path / "products.jsonl").write_text(line)
    assert Catalog.load(path).digest == hashlib.sha256(f"products.jsonl {len(line)}\n{line}".encode()).hexdigest()
