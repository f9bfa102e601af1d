"""EVA-02 against timm's own PyTorch modules: tiny random models, saved by timm, read by us, compared in float32.

Runs where torch and timm are installed and is skipped elsewhere. No weights are downloaded.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import unflatten_dict
from safetensors.numpy import load_file

from make_jax.config import ImageConfig
from make_jax.errors import InputError
from make_jax.interop.families import FAMILIES
from make_jax.interop.import_encoders import read_encoder, read_family
from make_jax.interop.model_folder import JsonObject, open_model_folder
from make_jax.model.image import ImageEncoder
from tests.interop import tiny_checkpoints as tiny
from tests.interop.test_torch_parity import assert_close, layer_outputs, randomize

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install -e '.[torch]'")
timm = pytest.importorskip("timm", reason="needs timm: pip install timm")

NAMES = [name for family in FAMILIES if family.name.startswith("eva02") for name in family.model_types]
TINY = {"embed_dim": tiny.WIDTH, "depth": tiny.LAYERS, "num_heads": 2, "patch_size": tiny.PATCH, "num_classes": 0}


def saved(folder: Any, name: str, **arguments: Any) -> Any:
    """A tiny model of timm with random parameters, saved as on the Hugging Face hub."""
    arguments = {**TINY, "img_size": tiny.SIDE, **arguments}
    model = randomize(timm.create_model(name, **arguments))
    timm.models.save_for_hf(model, folder, model_args=arguments, safe_serialization=True)
    return model


def timm_layers(model: Any, image: np.ndarray, mean: Any, std: Any) -> tuple[list[Any], Any]:
    """The output of each layer and of the last norm."""
    values = ((image / 255.0 - np.asarray(mean)) / np.asarray(std)).astype(np.float32)
    layers: list[Any] = []
    for block in model.blocks:
        block.register_forward_hook(lambda *parts: layers.append(parts[2]))
    with torch.no_grad():
        states = model.forward_features(torch.from_numpy(values.transpose(0, 3, 1, 2).copy()))
        return layers, model.fc_norm(states)  # one of `norm` and `fc_norm` is the identity


@pytest.mark.parametrize("name", NAMES)
def test_every_layer_equals_timm(tmp_path, name):
    pooling = "token" if "small" in name or "large" in name else "avg"  # decides which norm the model has
    model = saved(tmp_path, name, global_pool=pooling)
    encoder = read_encoder(str(tmp_path), "image", "init_from")
    assert encoder.pixels is not None and encoder.pixels.size == tiny.SIDE
    settings = ImageConfig(**encoder.settings)
    assert settings.mlp_sub_norm == ("base" in name or "large" in name)
    image = np.random.default_rng(1).integers(0, 256, (3, tiny.SIDE, tiny.SIDE, 3), np.uint8)
    layers, output = timm_layers(model, image, encoder.pixels.mean, encoder.pixels.std)
    module = ImageEncoder(settings, encoder.pixels.mean, encoder.pixels.std)
    out, parts = layer_outputs(module, unflatten_dict(encoder.arrays, sep="/"), jnp.asarray(image))
    assert len(layers) == tiny.LAYERS
    for i, theirs in enumerate(layers):
        assert_close(parts[f"layer_{i}"], theirs, f"layer {i}")
    assert_close(out, output, "output")


def test_rotary_positions_of_another_grid_equal_timm(tmp_path):
    size = (24, 48)  # 3 x 6 patches
    model = saved(tmp_path, "eva02_base_patch14_224", img_size=size)
    assert tuple(model.patch_embed.grid_size) == (3, 6)
    (tmp_path / "square").mkdir()
    saved(tmp_path / "square", "eva02_base_patch14_224")
    encoder = read_encoder(str(tmp_path / "square"), "image", "init_from")
    params = {**encoder.arrays, "position": model.pos_embed[0].detach().numpy()}
    theirs = {name: p.detach().numpy() for name, p in model.named_parameters()}
    assert encoder.pixels is not None
    for row in next(family for family in FAMILIES if family.name == "eva02-base").table(tiny.LAYERS):
        source = [theirs.get(name, theirs.get(f"fc_{name}")) for name in row.tensors]
        params[row.param] = row.transform(*source)
    image = np.random.default_rng(1).integers(0, 256, (2, *size, 3), np.uint8)
    mean, std = encoder.pixels.mean, encoder.pixels.std
    layers, output = timm_layers(model, image, mean, std)
    module = ImageEncoder(ImageConfig(**encoder.settings), mean, std)
    out, parts = layer_outputs(module, unflatten_dict(params, sep="/"), jnp.asarray(image))
    assert_close(parts["layer_1"], layers[1], "layer 1")
    assert_close(out, output, "output")


@pytest.mark.parametrize(("case", "pooling"), [("eva02-base", "token"), ("eva02-small", "avg")])
def test_hand_written_checkpoints_have_the_names_that_timm_saves(tmp_path, case, pooling):
    config, shapes = tiny.CASES[case]
    saved(tmp_path, config["architecture"], global_pool=pooling, mlp_ratio=2.0)
    stored = load_file(tmp_path / "model.safetensors")
    assert {name: tensor.shape for name, tensor in stored.items()} == shapes


@pytest.mark.parametrize("name", NAMES)
def test_sizes_of_published_models_are_those_of_timm(name):
    (family,) = (family for family in FAMILIES if name in family.model_types)
    config = JsonObject({"architecture": name}, "config.json")
    settings, size = family.settings(config), family.size(config)
    with torch.device("meta"):
        model = timm.create_model(name)
    assert (settings["width"], settings["layers"]) == (model.embed_dim, len(model.blocks))
    assert (size, settings["patch_size"]) == (model.patch_embed.img_size[0], model.patch_embed.patch_size[0])
    block = model.blocks[0]
    assert (settings["heads"], settings["mlp_width"]) == (block.attn.num_heads, block.mlp.fc2.in_features)
    assert settings["layer_norm_eps"] == block.norm1.eps
    assert settings["rotary_grid"] == model.rope.ref_feat_shape[0]
    assert family.mean == tuple(model.pretrained_cfg["mean"]) and family.std == tuple(model.pretrained_cfg["std"])


def test_gradients_equal_timm(tmp_path):
    model = saved(tmp_path, "eva02_base_patch14_224", global_pool="token")
    encoder = read_encoder(str(tmp_path), "image", "init_from")
    assert encoder.pixels is not None
    image = np.random.default_rng(1).integers(0, 256, (2, tiny.SIDE, tiny.SIDE, 3), np.uint8)
    mean, std = encoder.pixels.mean, encoder.pixels.std
    values = ((image / 255.0 - np.asarray(mean)) / np.asarray(std)).astype(np.float32)
    model.forward_features(torch.from_numpy(values.transpose(0, 3, 1, 2).copy())).tanh().sum().backward()
    module = ImageEncoder(ImageConfig(**encoder.settings), mean, std)

    def loss(params: Any) -> Any:
        return jnp.sum(jnp.tanh(module.apply({"params": params}, jnp.asarray(image))))

    ours = jax.grad(loss)(unflatten_dict(encoder.arrays, sep="/"))
    theirs = {name: p.grad.numpy() for name, p in model.named_parameters()}
    (family,) = (family for family in FAMILIES if family.name == "eva02-base")
    for row in family.table(tiny.LAYERS):
        found = ours
        for part in row.param.split("/"):
            found = found[part]
        assert_close(found, row.transform(*(theirs[name] for name in row.tensors)), row.param)


def test_arguments_that_change_the_layers_are_refused(tmp_path):
    saved(tmp_path, "eva02_base_patch14_224")
    folder = open_model_folder(tmp_path)
    folder.config.values["model_args"]["rope_temperature"] = 100.0
    (family,) = (family for family in FAMILIES if family.name == "eva02-base")
    with pytest.raises(InputError, match="model_args: has rope_temperature, expected only depth, embed_dim"):
        read_family(folder, family)
