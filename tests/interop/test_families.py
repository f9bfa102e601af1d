"""Every family from hand-made checkpoints: complete, nothing over, what does not fit is listed. Needs no PyTorch."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers

from make_jax.errors import InputError
from make_jax.interop import encoder_files
from make_jax.interop.families import FAMILIES
from make_jax.interop.import_encoders import expected_shapes, families_of, read_encoder, read_family
from make_jax.interop.model_folder import JsonObject, open_model_folder
from tests.interop import tiny_checkpoints as tiny

KINDS = {name: ("text",) if name in ("bert", "roberta", "xlm-r") else ("image",) for name in tiny.CASES}
KINDS["chinese-clip"] = ("text", "image")
EACH = [(name, kind) for name, kinds in KINDS.items() for kind in kinds]


def test_every_family_has_a_case():
    assert {(family.name, family.kind) for family in FAMILIES} == set(EACH)


@pytest.mark.parametrize(("name", "kind"), EACH)
def test_every_family_imports_completely_and_loads_back_equal(tmp_path, name, kind):
    encoder = read_encoder(str(tiny.write_case(tmp_path / "source", name)), kind, "init_from")
    size, length = (tiny.VOCABULARY, len(encoder.arrays["position"])) if kind == "text" else (tiny.SIDE, 0)
    expected = expected_shapes(kind, encoder.settings, size, length)
    assert {path: array.shape for path, array in encoder.arrays.items()} == expected
    assert encoder.family == name and encoder.kind == kind
    encoder_files.save_encoders([encoder], tmp_path / "out")
    again = read_encoder(str(tmp_path / "out"), kind, "init_from")
    assert (again.settings, again.pixels, again.pooling) == (encoder.settings, encoder.pixels, encoder.pooling)
    assert again.arrays.keys() == encoder.arrays.keys()
    for path, array in encoder.arrays.items():
        np.testing.assert_array_equal(again.arrays[path], array)


def test_matrices_are_transposed_and_filters_flattened_in_patch_order(tmp_path):
    shapes = tiny.CASES["vit"][1]
    theirs = tiny.tensors(shapes)
    ours = read_encoder(str(tiny.write_case(tmp_path / "vit", "vit")), "image", "init_from").arrays
    query = theirs["encoder.layer.1.attention.attention.query.weight"]
    np.testing.assert_array_equal(ours["layer_1/attention/query/kernel"], query.T)
    filters = theirs["embeddings.patch_embeddings.projection.weight"]
    row, column, channel = 3, 5, 2
    place = (row * tiny.PATCH + column) * 3 + channel
    np.testing.assert_array_equal(ours["patch/kernel"][place], filters[:, channel, row, column])


def test_roberta_positions_start_after_the_padding_id(tmp_path):
    theirs = tiny.tensors(tiny.CASES["roberta"][1])["roberta.embeddings.position_embeddings.weight"]
    ours = read_encoder(str(tiny.write_case(tmp_path / "r", "roberta")), "text", "init_from").arrays["position"]
    np.testing.assert_array_equal(ours, theirs[2:])


def test_layer_norms_with_tensorflow_names_are_read(tmp_path):
    config, shapes = tiny.CASES["bert"]
    arrays = tiny.tensors(shapes)
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): value
        for name, value in arrays.items()
    }
    new = read_encoder(str(tiny.write(tmp_path / "new", config, arrays)), "text", "init_from")
    found = read_encoder(str(tiny.write(tmp_path / "old", config, old)), "text", "init_from")
    for path, array in new.arrays.items():
        np.testing.assert_array_equal(found.arrays[path], array)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_weights_become_float32(tmp_path, dtype):
    import ml_dtypes

    config, shapes = tiny.CASES["vit"]
    kind = np.float16 if dtype == "float16" else ml_dtypes.bfloat16
    arrays = {name: value.astype(kind) for name, value in tiny.tensors(shapes).items()}
    encoder = read_encoder(str(tiny.write(tmp_path / "half", config, arrays)), "image", "init_from")
    np.testing.assert_array_equal(encoder.arrays["norm/scale"], arrays["layernorm.weight"].astype(np.float32))


def test_missing_unknown_and_misshaped_tensors_are_all_listed_in_one_error(tmp_path):
    config, shapes = tiny.CASES["bert"]
    arrays = tiny.tensors(shapes)
    del arrays["encoder.layer.1.output.dense.bias"]
    arrays["encoder.layer.2.output.dense.bias"] = np.zeros(16, np.float32)
    arrays["embeddings.LayerNorm.weight"] = np.zeros(8, np.float32)
    arrays["encoder.layer.0.intermediate.dense.weight"] = np.zeros((16, 32), np.float32)
    with pytest.raises(InputError) as caught:
        read_encoder(str(tiny.write(tmp_path / "bert", config, arrays)), "text", "init_from")
    message = str(caught.value)
    assert "\n" not in message
    assert "encoder.layer.1.output.dense.bias is missing" in message
    assert "encoder.layer.2.output.dense.bias [16] is unknown" in message
    assert "embeddings.LayerNorm.weight [8] is to become norm/scale [16]" in message
    assert "encoder.layer.0.intermediate.dense.weight [16, 32] is to become layer_0/mlp/in/kernel [16, 32]" in message


def test_a_long_list_of_problems_is_truncated_with_a_count(tmp_path):
    config, shapes = tiny.CASES["bert"]
    source = tiny.write(tmp_path / "bert", {**config, "hidden_size": 32}, tiny.tensors(shapes))
    with pytest.raises(InputError, match=r"and \d+ more$"):
        read_encoder(str(source), "text", "init_from")


def test_pixels_beyond_the_last_complete_patch_are_ignored(tmp_path):
    config, shapes = tiny.CASES["siglip"]
    config = {**config, "vision_config": {**tiny.VISION, "image_size": tiny.SIDE + 5}}
    encoder = read_encoder(str(tiny.write(tmp_path / "s", config, tiny.tensors(shapes))), "image", "init_from")
    assert encoder.pixels is not None and encoder.pixels.size == tiny.SIDE


CONFIGS: dict[str, Any] = {
    "bert": transformers.BertConfig,
    "roberta": transformers.RobertaConfig,
    "xlm-r": transformers.XLMRobertaConfig,
    "vit": transformers.ViTConfig,
    "deit": transformers.DeiTConfig,
    "dinov2": transformers.Dinov2Config,
    "clip": transformers.CLIPVisionConfig,
    "siglip": transformers.SiglipVisionConfig,
    "siglip2": transformers.Siglip2VisionConfig,
    ("chinese-clip", "text"): transformers.ChineseCLIPTextConfig,
    ("chinese-clip", "image"): transformers.ChineseCLIPVisionConfig,
}


OF_TRANSFORMERS = [family for family in FAMILIES if not family.name.startswith("eva02")]  # test_eva02.py has the rest


@pytest.mark.parametrize("family", OF_TRANSFORMERS, ids=lambda family: f"{family.name}-{family.kind}")
def test_missing_config_keys_have_the_defaults_of_transformers(family):
    """Published config.json files leave out whatever is the default."""
    kind = CONFIGS.get((family.name, family.kind)) or CONFIGS[family.name]
    complete = {name: value for name, value in kind().to_dict().items() if value is not None}
    empty, written = JsonObject({}, "config.json"), JsonObject(complete, "config.json")
    assert family.settings(empty) == family.settings(written)
    assert family.size(empty) == family.size(written)
    assert family.position_offset(empty) == family.position_offset(written)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("bert", {"position_embedding_type": "relative_key"}),
        ("bert", {"hidden_act": "relu"}),
        ("bert", {"is_decoder": True}),
        ("vit", {"qkv_bias": False}),
        ("dinov2", {"use_swiglu_ffn": True}),
        ("vit", {"num_channels": 1}),
        ("bert", {"num_attention_heads": 3}),
        ("bert", {"num_hidden_layers": 10**9}),
        ("bert", {"hidden_size": "16"}),
        ("vit", {"patch_size": 0}),
        ("eva02-base", {"model_args": {"rope_temperature": 100.0}}),
        ("eva02-base", {"pretrained_cfg": {"input_size": [3, 32, 24]}}),
        ("eva02-base", {"architecture": "eva02_base_patch16_clip_224"}),
    ],
)
def test_unsupported_configs_are_rejected_by_key(tmp_path, name, change):
    config, shapes = tiny.CASES[name]
    source = tiny.write(tmp_path / name, {**config, **change}, tiny.tensors(shapes))
    ours = {"num_attention_heads": "heads", "num_hidden_layers": "layers", "patch_size": "patch_size"}
    [key] = change
    with pytest.raises(InputError, match=ours.get(key, key)):
        read_encoder(str(source), KINDS[name][0], "init_from")


def test_a_model_without_the_requested_kind_of_encoder_is_rejected_with_the_families_that_have_one(tmp_path):
    source = tiny.write_case(tmp_path / "bert", "bert")
    with pytest.raises(
        InputError, match=r"model.image.init_from: .* is 'bert', expected a family with an encoder of image: chi"
    ):
        read_encoder(str(source), "image", "model.image.init_from")


def test_both_towers_of_chinese_clip_are_saved_in_one_folder(tmp_path):
    source = open_model_folder(tiny.write_case(tmp_path / "c", "chinese-clip"))
    encoder_files.save_encoders([read_family(source, family) for family in families_of(source)], tmp_path / "out")
    assert {path.name for path in Path(tmp_path / "out").iterdir()} == {
        "encoders.json",
        "text.safetensors",
        "image.safetensors",
    }
    assert read_encoder(str(tmp_path / "out"), "text", "x").settings["layers"] == tiny.LAYERS
    assert read_encoder(str(tmp_path / "out"), "image", "x").settings["embedding_norm"] is True
