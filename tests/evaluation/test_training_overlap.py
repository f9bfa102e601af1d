"""Notes on what a model was trained on are true for every kind of system."""

import json
import re
from pathlib import Path

import pytest

from make_jax.catalog.reader import Catalog
from make_jax.evaluation.evaluate import evaluate
from make_jax.evaluation.search_pool import SearchPool
from make_jax.evaluation.training_overlap import training_notes
from make_jax.runs.training_data import TrainingData, write_record
from tests.retrieval.fake_encoder import FakeEncoder
from tests.tiny_catalog import write_catalog, write_lines


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    return Catalog.load(write_catalog(tmp_path_factory.mktemp("catalog") / "tiny", products=60, queries=8))


@pytest.fixture(scope="module")
def split_again(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    path = write_catalog(tmp_path_factory.mktemp("catalog") / "tiny", products=60, queries=8)
    rows = [json.loads(line) for line in (path / "products.jsonl").read_text("utf-8").splitlines()]
    write_lines(path / "products.jsonl", [row | {"split": "test"} for row in rows])
    (path / "clicks.jsonl").write_text("")
    return Catalog.load(path)


class Trained(FakeEncoder):
    def __init__(self, training_data: TrainingData | None) -> None:
        super().__init__()
        self.training_data = training_data


def notes(model: FakeEncoder | None, catalog: Catalog, pool: str = "split") -> list[str]:
    return training_notes(model, catalog, SearchPool.of(catalog, "test", pool))  # type: ignore[arg-type]


def test_bm25_is_not_trained(catalog: Catalog, split_again: Catalog) -> None:
    assert [notes(None, of, pool) for of in (catalog, split_again) for pool in ("split", "all")] == [[]] * 4
    assert not any("train" in note for note in evaluate(None, catalog, "test", pool="all").notes)


def test_what_a_model_of_others_was_trained_on_is_not_recorded(catalog: Catalog) -> None:
    expected = (
        "36 of the products searched are of the split train; whether this model was trained on them is not recorded."
    )
    for model in (FakeEncoder(), Trained(None), Trained(TrainingData(catalog.path))):
        assert notes(model, catalog, "all") == [expected] and notes(model, catalog) == []
    assert expected in evaluate(FakeEncoder(), catalog, "test", pool="all").notes


def test_a_model_of_this_catalog_states_the_training_products_that_are_searched(
    catalog: Catalog, tmp_path: Path
) -> None:
    write_record(tmp_path / "run", catalog, None, resumed=False)
    expected = "36 of the 60 products searched are training products of this model, which flatters it."
    for data in (TrainingData(tmp_path / "run"), TrainingData(tmp_path / "old", catalog.digest)):
        assert notes(Trained(data), catalog, "all") == [expected] and notes(Trained(data), catalog) == []


def test_a_model_of_another_catalog_states_what_of_this_one_it_was_trained_on(
    catalog: Catalog, split_again: Catalog, tmp_path: Path
) -> None:
    write_record(tmp_path / "run", catalog, None, resumed=False)
    head = "This catalog is not the one that the model was trained on (digests "
    [note] = notes(Trained(TrainingData(tmp_path / "run")), split_again)
    assert note.startswith(f"{head}{split_again.digest[:12]} and {catalog.digest[:12]}). ")
    assert "Of the 60 products searched, 36 are training products of the model; 4 of the 4 judged queries" in note
    assert note.endswith("This flatters the model.")
    [unknown] = notes(Trained(TrainingData(tmp_path / "old", catalog.digest)), split_again)
    assert unknown.startswith(head) and unknown.endswith("unknown: there is no record of the training data.")
    write_record(tmp_path / "second", catalog, {"checkpoint": "x"}, resumed=False)
    [incomplete] = notes(Trained(TrainingData(tmp_path / "second")), split_again)
    assert incomplete.endswith("What the weights that it started from were trained on is not recorded.")


def test_a_catalog_without_training_products_is_noted_as_another_one(catalog: Catalog, tmp_path: Path) -> None:
    write_record(tmp_path / "run", catalog, None, resumed=False)
    path = write_catalog(tmp_path / "other", products=60, queries=8)
    for name in ("products", "queries", "clicks"):
        text = (path / f"{name}.jsonl").read_text("utf-8")
        (path / f"{name}.jsonl").write_text(re.sub(r'"p(\d+)"', r'"x\1"', text), encoding="utf-8")
    rows = [
        json.loads(line) | {"text": "quite new"} for line in (path / "queries.jsonl").read_text("utf-8").splitlines()
    ]
    write_lines(path / "queries.jsonl", rows)
    [note] = notes(Trained(TrainingData(tmp_path / "run")), Catalog.load(path))
    assert "Of the 12 products searched, 0 are training products of the model; 0 of the 4 judged queries" in note
    assert "flatters" not in note
