"""eval.py reads and hashes the catalog and the checkpoint once."""

import pickle
from collections import Counter
from pathlib import Path

import pytest

from make_jax.catalog import jsonl
from make_jax.catalog.reader import Catalog
from make_jax.cli.evaluation import evaluate_model
from make_jax.cli.options import parse_evaluation
from tests.interop.exports import random_run
from tests.tiny_catalog import write_catalog


def test_evaluation_opens_each_file_of_catalog_and_checkpoint_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalog, run = write_catalog(tmp_path / "tiny", products=60, queries=16), random_run(tmp_path)
    opened: Counter[Path] = Counter()
    open_path = Path.open

    def counting_open(path: Path, *arguments: object, **options: object) -> object:
        opened[path] += 1
        return open_path(path, *arguments, **options)

    monkeypatch.setattr(Path, "open", counting_open)
    out = ["--out", str(tmp_path / "out"), "--embeddings", str(tmp_path / "vectors")]
    evaluate_model(parse_evaluation([str(run), "--data.catalog", str(catalog), *out], ""))
    names = (jsonl.INFO, jsonl.PRODUCTS, jsonl.QUERIES, jsonl.CLICKS)
    assert {name: opened[catalog / name] for name in names} == dict.fromkeys(names, 1)
    state = {path: count for path, count in opened.items() if "state" in path.parts and path.is_relative_to(run)}
    assert state and set(state.values()) == {1}  # verified against the manifest; Orbax reads them outside of Path
    files = {path.name: count for path, count in opened.items() if path.is_relative_to(run) and path not in state}
    files.pop("manifest.json")  # the list of digests
    assert set(files) == {"config.json", "tokenizer.json", "keywords.json", "meta.json"}
    assert set(files.values()) == {2}  # verified, then read


def test_the_digest_of_a_catalog_is_that_of_its_pickled_copy(tmp_path: Path) -> None:
    catalog = Catalog.load(write_catalog(tmp_path / "tiny", products=60, queries=16))
    assert pickle.loads(pickle.dumps(catalog)).digest == catalog.digest
