"""Texts encoded for a server equal `encode_queries`, in programs compiled before the first request."""

import logging
from dataclasses import replace

import jax
import numpy as np
import pytest

from make_jax.errors import InputError
from make_jax.interop.bundle import ModelBundle
from make_jax.model.make import Make
from make_jax.retrieval.retriever import Retriever
from make_jax.runs.convert import export_run
from make_jax.serving.query_encoder import MAX_BATCH, QueryEncoder
from tests.interop.exports import MODELS, TEXTS, random_params, random_run, tiny_bundle
from tests.retrieval.fake_encoder import FakeEncoder


def long_retriever(max_query_tokens: int) -> Retriever:
    """A random model of longer queries."""
    bundle: ModelBundle = tiny_bundle(MODELS["fashion"])
    inputs = replace(bundle.config.inputs, max_query_tokens=max_query_tokens)
    bundle = replace(bundle, config=replace(bundle.config, inputs=inputs))
    keywords = bundle.keywords
    model = Make(bundle.config.model, inputs, bundle.tokenizer.vocab_size, len(keywords), keywords.exclusion_groups)
    params = jax.tree.map(np.asarray, random_params(bundle))
    return Retriever(model, params, bundle.tokenizer, keywords)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return random_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def retriever(run):
    return Retriever.load(run)


def test_vectors_are_those_of_the_retriever_bit_for_bit(retriever):
    encoder = QueryEncoder(retriever)
    assert np.array_equal(encoder.encode(TEXTS[:1]), retriever.encode_queries(TEXTS[:1]))
    assert encoder.encode([]).shape == (0, retriever.model.search_dim)
    texts = [f"red shirt {i}" for i in range(MAX_BATCH + 3)]
    together = encoder.encode(texts)
    assert together.shape == (len(texts), retriever.model.search_dim)
    np.testing.assert_allclose(together, retriever.encode_queries(texts), rtol=0, atol=1e-6)


def test_trimmed_padding_changes_no_vector(caplog):
    retriever = long_retriever(40)
    texts = ["red shirt", "red " * 20, "a blue round dress " * 20]  # of 4, 22 and 40 tokens
    for text in texts:
        ours, theirs = (retriever.encode_queries([text], trim=trim) for trim in (True, False))
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6)
    np.testing.assert_allclose(
        retriever.encode_queries(texts, trim=True), retriever.encode_queries(texts), rtol=0, atol=1e-6
    )


def test_after_warm_up_no_request_compiles(caplog):
    retriever = long_retriever(20)
    encoder = QueryEncoder(retriever)
    encoder.warm_up()
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        for texts in ([*TEXTS], ["red"], ["red " * 18] * 5, ["red shirt"] * (2 * MAX_BATCH + 1)):
            encoder.encode(texts)
    assert not [record for record in caplog.records if "Compiling" in record.message]
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        retriever.encode_queries(["red"] * 64)  # the check above can fail
    assert [record for record in caplog.records if "Compiling" in record.message]


def test_other_models_encode():
    texts = ["red circle", "blue square", "green"]
    encoder = QueryEncoder(FakeEncoder())
    encoder.warm_up()
    assert np.array_equal(encoder.encode(texts), FakeEncoder().encode_queries(texts))


def test_a_model_that_diverged_is_an_input_error():
    class Diverged(FakeEncoder):
        def encode_queries(self, texts):
            return np.full((len(texts), 8), np.nan, np.float32)

    with pytest.raises(InputError, match="not finite"):
        QueryEncoder(Diverged()).encode(["red"])


def test_an_onnx_export_is_measured_against_the_model_and_that_of_another_model_is_refused(run, retriever, tmp_path):
    for library in ("torch", "onnxscript", "onnxruntime"):
        pytest.importorskip(library, reason=f"needs {library}: pip install -e '.[onnx]'")
    export_run(str(run), str(tmp_path / "onnx"), "onnx", lambda _: None)
    lines: list[str] = []
    encoder = QueryEncoder(retriever, tmp_path / "onnx", lines.append)
    np.testing.assert_allclose(encoder.encode(TEXTS), retriever.encode_queries(TEXTS), rtol=0, atol=1e-5)
    (line,) = lines
    assert line.startswith("queries are encoded by ") and "JAX on cpu" in line and "ONNX Runtime" in line
    with pytest.raises(InputError, match="its vectors are not those of the index's model"):
        QueryEncoder(FakeEncoder(), tmp_path / "onnx")
