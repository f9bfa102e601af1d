"""The exported graphs in onnxruntime against our own module."""

import numpy as np
import pytest

from make_jax.interop import onnx_export
from tests.interop.exports import MODELS, PICTURES, TEXTS, TITLES, agree, ours, random_params, served

for needed in ("torch", "onnx", "onnxscript", "onnxruntime"):
    pytest.importorskip(needed, reason="needs PyTorch and ONNX: pip install make_jax[onnx]")
import onnx  # noqa: E402
import onnxruntime  # noqa: E402

# The kinds whose graphs differ most; tracing one takes half a minute.
TRACED = ("fashion", "gate, cross-attention, two class tokens, other width", "single stream")


def run(path, batch):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {given.name: batch[given.name] for given in session.get_inputs()})


@pytest.fixture(scope="module", params=TRACED)
def traced(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("onnx")
    of = served(MODELS[request.param])
    params = random_params(of)
    onnx_export.write(folder, params, of)
    return folder, of, params


def test_graphs_give_our_vectors_for_any_batch_and_length(traced):
    folder, of, params = traced
    queries, products = of.queries(TEXTS), of.products(TITLES, PICTURES)
    vectors, product_vectors, weights = ours(of, params)
    agree(vectors, run(folder / "query.onnx", queries)[0])
    found = run(folder / "product.onnx", products)
    agree(product_vectors, found[0])
    agree(weights, found[1])
    first, cut = slice(0, 1), int(queries["query_mask"][0].sum())
    short = {name: array[first, :cut] if array.shape[1] == 6 else array[first] for name, array in queries.items()}
    agree(vectors[first], run(folder / "query.onnx", short)[0])
    cut = int(products["title_mask"][0].sum())
    short = {name: array[first, :cut] if name[:5] == "title" else array[first] for name, array in products.items()}
    agree(product_vectors[first], run(folder / "product.onnx", short)[0])


def test_graphs_state_their_opset_and_name_no_file_of_the_machine(traced):
    folder, _, _ = traced
    for name in ("query.onnx", "product.onnx"):
        model = onnx.load(folder / name)
        assert {entry.domain: entry.version for entry in model.opset_import}[""] == onnx_export.OPSET
        assert b"torch_model" not in (folder / name).read_bytes()


def test_int8_computes_in_int8_and_stays_near(tmp_path):
    of = served(MODELS["fashion"])
    params = random_params(of)
    onnx_export.write(tmp_path, params, of, int8=True)
    vectors, product_vectors, _ = ours(of, params)
    asked = {"query.onnx": of.queries(TEXTS), "product.onnx": of.products(TITLES, PICTURES)}
    for (name, batch), exact in zip(asked.items(), (vectors, product_vectors), strict=True):
        assert "MatMulInteger" in {node.op_type for node in onnx.load(tmp_path / name).graph.node}
        found = run(tmp_path / name, batch)[0]
        assert 0 < np.abs(found - exact).max() < 0.1  # unit vectors; what it costs is in docs/results/exports.json
