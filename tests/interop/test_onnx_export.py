"""The exported graphs in onnxruntime against our own module."""

import numpy as np
import pytest

from make_jax.interop import onnx_export
from tests.interop.exports import IMAGES, MODELS, TEXTS, TITLES, assert_close, flax_outputs, random_params, tiny_bundle

for needed in ("torch", "onnx", "onnxscript", "onnxruntime"):
    pytest.importorskip(needed, reason="needs PyTorch and ONNX: pip install -e '.[onnx]'")
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
    bundle = tiny_bundle(MODELS[request.param])
    params = random_params(bundle)
    onnx_export.write(folder, params, bundle)
    return folder, bundle, params


def test_graphs_equal_the_flax_module_for_any_batch_and_length(traced):
    folder, bundle, params = traced
    queries, products = bundle.queries(TEXTS), bundle.products(TITLES, IMAGES)
    vectors, product_vectors, weights = flax_outputs(bundle, params)
    assert_close(vectors, run(folder / "query.onnx", queries)[0])
    found = run(folder / "product.onnx", products)
    assert_close(product_vectors, found[0])
    assert_close(weights, found[1])
    first, cut = slice(0, 1), int(queries["query_mask"][0].sum())
    short = {name: array[first, :cut] if array.shape[1] == 6 else array[first] for name, array in queries.items()}
    assert_close(vectors[first], run(folder / "query.onnx", short)[0])
    cut = int(products["title_mask"][0].sum())
    short = {name: array[first, :cut] if name[:5] == "title" else array[first] for name, array in products.items()}
    assert_close(product_vectors[first], run(folder / "product.onnx", short)[0])


def test_graphs_state_their_opset_and_contain_no_file_names(traced):
    folder, _, _ = traced
    for name in ("query.onnx", "product.onnx"):
        model = onnx.load(folder / name)
        assert {entry.domain: entry.version for entry in model.opset_import}[""] == onnx_export.OPSET
        assert b"torch_model" not in (folder / name).read_bytes()


def test_int8_computes_in_int8_and_stays_close(tmp_path):
    bundle = tiny_bundle(MODELS["fashion"])
    params = random_params(bundle)
    onnx_export.write(tmp_path, params, bundle, int8=True)
    vectors, product_vectors, _ = flax_outputs(bundle, params)
    batches = {"query.onnx": bundle.queries(TEXTS), "product.onnx": bundle.products(TITLES, IMAGES)}
    for (name, batch), exact in zip(batches.items(), (vectors, product_vectors), strict=True):
        assert "MatMulInteger" in {node.op_type for node in onnx.load(tmp_path / name).graph.node}
        found = run(tmp_path / name, batch)[0]
        assert 0 < np.abs(found - exact).max() < 0.1  # unit vectors; what it costs is in docs/results/exports.json
