"""Exports opened by evaluation, compared with their run."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from make_jax.catalog.reader import Catalog
from make_jax.errors import InputError
from make_jax.evaluation.evaluate import evaluate
from make_jax.evaluation.models import onnx_run, stablehlo_run, torch_run
from make_jax.retrieval.retriever import Retriever
from make_jax.runs.convert import export_run, import_torch
from make_jax.runs.training_data import write_record
from tests.interop.exports import IMAGES, TEXTS, TITLES, assert_close, random_run
from tests.tiny_catalog import write_catalog

FORMS = {
    "stablehlo": (stablehlo_run, ("flatbuffers",)),
    "torch": (torch_run, ("torch",)),
    "onnx": (onnx_run, ("torch", "onnxscript", "onnxruntime")),
}


def ignore(_: str) -> None:
    """A message function that does nothing."""


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run with random parameters."""
    return random_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def catalog(tmp_path_factory) -> Catalog:
    return Catalog.load(write_catalog(tmp_path_factory.mktemp("catalog") / "tiny", products=60))


@pytest.mark.parametrize("form", FORMS)
def test_evaluation_of_an_export_equals_that_of_its_run(run, catalog, tmp_path, form):
    kind, libraries = FORMS[form]
    for library in libraries:
        pytest.importorskip(library, reason=f"needs {library}: pip install -e '.[onnx,stablehlo]'")
    export_run(str(run), str(tmp_path / "out"), form, ignore)
    others = [other for other, _ in FORMS.values() if other not in (kind, torch_run)]
    assert kind.matches(tmp_path / "out")
    assert not any(other.matches(tmp_path / "out") for other in others)
    model, retriever = kind.load(tmp_path / "out"), Retriever.load(run)
    assert model.modalities == retriever.modalities
    assert_close(retriever.encode_queries(TEXTS), model.encode_queries(TEXTS))
    ours, theirs = (of.encode_products(TITLES, IMAGES) for of in (retriever, model))
    assert_close(ours.vectors, theirs.vectors)
    assert_close(ours.weights, theirs.weights)
    assert model.encode_queries([]).shape == (0, retriever.model.search_dim)
    first, second = (evaluate(of, catalog) for of in (retriever, model))
    assert np.array_equal(first.values["joint"]["nDCG@10"], second.values["joint"]["nDCG@10"])
    on_disk = evaluate(model, catalog, vectors_folder=tmp_path / "vectors")
    np.testing.assert_allclose(
        on_disk.values["joint"]["nDCG@10"].mean(), first.values["joint"]["nDCG@10"].mean(), rtol=0, atol=0.02
    )
    with (tmp_path / "out" / "config.json").open("a") as file:
        file.write("\n")  # another file, another digest
    with pytest.raises(InputError, match=r"vectors\.json: model is "):
        evaluate(kind.load(tmp_path / "out"), catalog, vectors_folder=tmp_path / "vectors")


def test_other_folders_do_not_match(run, tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    for kind in (stablehlo_run, torch_run, onnx_run):
        assert not kind.matches(tmp_path)
        assert not kind.matches(run)


def test_a_damaged_artifact_is_refused_in_one_line(run, tmp_path):
    pytest.importorskip("flatbuffers", reason="needs flatbuffers: pip install -e '.[stablehlo]'")
    export_run(str(run), str(tmp_path / "out"), "stablehlo", ignore)
    content = (tmp_path / "out" / "query.stablehlo").read_bytes()
    (tmp_path / "out" / "query.stablehlo").write_bytes(content[:100])
    with pytest.raises(InputError, match=r"query\.stablehlo: jax\.export cannot read it") as raised:
        stablehlo_run.load(tmp_path / "out")
    assert "\n" not in str(raised.value)
    (tmp_path / "out" / "product.stablehlo").unlink()
    (tmp_path / "out" / "query.stablehlo").write_bytes(content)
    with pytest.raises(InputError, match=r"product\.stablehlo: no such file"):
        stablehlo_run.load(tmp_path / "out")


def test_an_exported_and_imported_run_is_the_same_run(run, tmp_path):
    export_run(str(run), str(tmp_path / "out"), "torch", ignore)
    import_torch(str(tmp_path / "out"), str(tmp_path / "back"), ignore)
    first, second = Retriever.load(run), Retriever.load(tmp_path / "back")
    assert dataclasses.replace(first.model.config) == second.model.config
    assert first.keywords == second.keywords
    assert np.array_equal(first.encode_queries(TEXTS), second.encode_queries(TEXTS))


@pytest.mark.parametrize("form", ["torch", "stablehlo"])
def test_an_export_knows_what_its_run_was_trained_on(catalog, tmp_path, form):
    kind, libraries = FORMS[form]
    for library in libraries:
        pytest.importorskip(library, reason=f"needs {library}: pip install -e '.[onnx,stablehlo]'")
    (tmp_path / "trained").mkdir()
    trained = random_run(tmp_path / "trained")
    export_run(str(trained), str(tmp_path / "unknown"), form, ignore)
    assert kind.load(tmp_path / "unknown").training_data.catalog_digest is None
    write_record(trained, catalog, None, resumed=False)
    export_run(str(trained), str(tmp_path / "out"), form, ignore)
    data = kind.load(tmp_path / "out").training_data
    assert data.catalog_digest == catalog.digest == Retriever.load(trained).training_data.catalog_digest
    assert data.record.overlap(catalog, catalog.products, ())[0] == 36
    if form == "torch":
        import_torch(str(tmp_path / "out"), str(tmp_path / "back"), ignore)
        assert Retriever.load(tmp_path / "back").training_data.catalog_digest == catalog.digest
