"""Settings: JSON round trip; wrong keys, types, ranges and conflicts are named."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from make_jax.config import Config, ImageConfig, ModelConfig, OptimConfig, TrainConfig, check, from_json, to_json
from make_jax.config_renames import RENAMED
from make_jax.errors import InputError


def changed(path: str, value: Any) -> Config:
    """The default Config with one dotted setting replaced."""

    def replace(node: Any, names: list[str]) -> Any:
        new = replace(getattr(node, names[0]), names[1:]) if names[1:] else value
        return dataclasses.replace(node, **{names[0]: new})

    return replace(Config(), path.split("."))


def read_with(path: str, value: Any) -> Config:
    """`from_json` of the default's JSON with one dotted key set."""
    tree = json.loads(to_json(Config()))
    *parents, last = path.split(".")
    node = tree
    for name in parents:
        node = node[name]
    node[last] = value
    return from_json(json.dumps(tree), "config.json")


def default_of(path: str) -> Any:
    """The default of a dotted setting, as JSON."""
    value = json.loads(to_json(Config()))
    for name in path.split("."):
        value = value[name]
    return value


def test_from_json_gives_back_an_equal_config():
    config = Config(run="läufe/1", optim=OptimConfig(lr_multipliers=(("title/.*", 0.0), ("gate", 0.5))))
    assert from_json(to_json(config), "config.json") == config


def test_a_setting_that_the_text_lacks_keeps_its_default():
    text = '{"train": {"steps": 9}, "inputs": {"image_decoding": "scaled"}}'
    assert from_json(text, "config.json") == Config(train=TrainConfig(steps=9))


@pytest.mark.parametrize("text", ["{}", '{"inputs": {}}', '{"inputs": {"image_height": 224}}'])
def test_a_run_from_before_scaled_decoding_keeps_the_pixels_of_full_decoding(text):
    assert Config().inputs.image_decoding == "scaled" and from_json(text, "x").inputs.image_decoding == "full"


def test_a_whole_number_is_read_as_float_where_a_float_is_expected():
    value = read_with("optim.learning_rate", 1).optim.learning_rate
    assert value == 1.0 and isinstance(value, float)


@pytest.mark.parametrize(("path", "new"), [item for item in RENAMED.items() if "=" not in item[0]])
def test_a_renamed_setting_is_refused_by_its_new_name(path, new):
    tree = {}
    node = tree
    *parents, last = path.split(".")
    for name in parents:
        node = node.setdefault(name, {})
    node[last] = 1
    where, sentence = ("processes", "distributed") if path.startswith("processes") else (path, new)
    with pytest.raises(InputError, match=rf"^config.json: .*{where} was renamed to {sentence}"):
        from_json(json.dumps(tree), "config.json")
    assert read_with(new, default_of(new)) == Config()  # and the new name exists


def test_a_removed_setting_is_refused_with_the_reason():
    with pytest.raises(InputError, match=r"^x: objectives.bank was removed: it lowered validation nDCG@10 by 0.11$"):
        from_json('{"objectives": {"bank": 8}}', "x")


def test_from_json_reports_all_problems_together():
    text = '{"train": {"steps": "9", "keep": 2, "fsdp": 0}, "objectives": {"form": "ring"}, "model": {"dtype": "f"}}'
    with pytest.raises(InputError) as caught:
        from_json(text, "x")
    where, _, problems = str(caught.value).partition(": ")
    assert where == "x"
    assert sorted(problems.split("; ")) == [
        "model.dtype is 'f', expected one of 'float32', 'bfloat16'",
        "objectives.form was renamed to objectives.implementation",
        "train.fsdp is 0, expected at least 1",
        "train.keep was renamed to train.max_to_keep",
        "train.steps is '9', expected an integer",
    ]


def test_a_renamed_value_is_refused_by_its_new_name():
    expected = "config.json: model.adaptation.weights 'confidence' was renamed to 'per_keyword'"
    with pytest.raises(InputError, match=f"^{expected}$"):
        read_with("model.adaptation.weights", "confidence")


@pytest.mark.parametrize(
    ("path", "nearest"),
    [("runn", "run"), ("optim.lerning_rate", "optim.learning_rate"), ("model.query.drop", "model.query.dropout")],
)
def test_unknown_key_is_named_with_its_path_and_the_nearest_name(path, nearest):
    with pytest.raises(InputError, match=rf"^config.json: unknown key {path}; did you mean {nearest}\?$"):
        read_with(path, 1)


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("train.steps", "7", "an integer"),
        ("train.steps", 7.0, "an integer"),
        ("train.steps", True, "an integer"),
        ("optim.learning_rate", float("nan"), "a finite number"),
        ("optim.learning_rate", False, "a finite number"),
        ("model.remat", 1, "true or false"),
        ("data.catalog", None, "a string"),
        ("model.dtype", "float16", "one of 'float32', 'bfloat16'"),
        ("inputs.image_mean", [0.5, 0.5], "a list of 3"),
        ("optim.lr_multipliers", "a", "a list, each item a list of 2"),
        ("model", 3, "an object of settings"),
    ],
)
def test_wrong_type_is_named_with_its_path(path, value, expected):
    with pytest.raises(InputError) as caught:
        read_with(path, value)
    assert f"config.json: {path} is {value!r}, expected {expected}" in str(caught.value)


def test_wrong_type_inside_a_tuple_is_named_with_its_position():
    with pytest.raises(InputError, match=r"optim.lr_multipliers\[0\]\[1\] is 'x', expected a finite number"):
        read_with("optim.lr_multipliers", [["a", "x"]])


def test_broken_json_is_named_with_its_line():
    with pytest.raises(InputError, match=r'^config.json: "steps" occurs twice in one object, expected each key once$'):
        from_json('{"train": {"steps": 3, "steps": 4}}', "config.json")
    with pytest.raises(InputError, match=r"config.json, line 2: not JSON"):
        from_json('{"run": "a",\n run}', "config.json")


def test_check_accepts_the_default():
    check(Config())


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("run", "", "run is empty"),
        ("data.workers", -1, "data.workers is -1, expected at least 0"),
        ("data.prefetch", 0, "data.prefetch is 0, expected at least 1"),
        ("inputs.max_query_tokens", 2, "inputs.max_query_tokens is 2, expected at least 3"),
        ("inputs.image_height", 60, "inputs.image_height is 60, expected a multiple of model.image.patch_size 8"),
        ("inputs.image_std", (0.5, 0.0, 0.5), "inputs.image_std is"),
        (
            "inputs.augment.min_crop_area",
            0.0,
            "inputs.augment.min_crop_area is 0.0, expected more than 0 and at most 1",
        ),
        ("inputs.augment.saturation", 1.0, "inputs.augment.saturation is 1.0, expected at least 0 and less than 1"),
        ("model.query.width", 161, "model.query.width is 161, expected a multiple of model.query.heads 4"),
        ("model.title.dropout", 1.0, "model.title.dropout is 1.0, expected at least 0 and less than 1"),
        ("model.image.heads", 0, "model.image.heads is 0, expected at least 1"),
        ("model.image.patch_size", 0, "model.image.patch_size is 0, expected at least 1"),
        ("model.keyword_dims", 0, "model.adaptation.weights is 'per_keyword', expected 'gate' or 'mean' without"),
        (
            "model.initial_logit_scale",
            101.0,
            "model.initial_logit_scale is 101.0, expected more than 0 and at most 100.0",
        ),
        ("objectives.margin", -0.1, "objectives.margin is -0.1, expected at least 0"),
        ("objectives.tile", 0, "objectives.tile is 0, expected at least 1"),
        ("objectives.mlm", 0.5, "objectives.mlm is 0.5, expected 0 without model.mlm"),
        ("objectives.mpm", 0.5, "objectives.mpm is 0.5, expected 0 without model.mpm and an image encoder"),
        ("optim.learning_rate", 0.0, "optim.learning_rate is 0.0, expected more than 0"),
        ("optim.warmup_steps", -1, "optim.warmup_steps is -1, expected at least 0"),
        ("optim.ema_decay", 1.0, "optim.ema_decay is 1.0"),
        ("optim.lr_multipliers", (("(", 1.0),), r"optim.lr_multipliers[0] is not a regular expression: '('"),
        ("optim.lr_multipliers", (("a", -1.0),), r"optim.lr_multipliers[0] has the factor -1.0"),
        ("train.batch_size", 0, "train.batch_size is 0, expected at least 1"),
        ("train.steps", 0, "train.steps is 0, expected at least 1"),
        ("train.seed", 2**32, "train.seed is 4294967296"),
    ],
)
def test_check_names_the_setting_out_of_range(path, value, message):
    with pytest.raises(InputError) as caught:
        check(changed(path, value))
    assert message in str(caught.value)


def test_check_names_single_stream_with_one_modality():
    config = changed("model.adaptation.single_stream", True)
    check(config)
    with pytest.raises(InputError, match=r"model.adaptation.modalities is 'title', expected 'both'"):
        adaptation = dataclasses.replace(config.model.adaptation, modalities="title")
        check(dataclasses.replace(config, model=dataclasses.replace(config.model, adaptation=adaptation)))


def test_check_needs_head_sizes_for_two_dimensional_rotary_positions():
    image = ImageConfig(width=160, heads=16)  # heads of size 10; pairs of rows and of columns need a multiple of 4
    check(Config(model=ModelConfig(image=image)))
    with pytest.raises(InputError) as caught:
        check(Config(model=ModelConfig(image=dataclasses.replace(image, rotary_grid=16))))
    expected = (
        "model.image.width is 160, expected a multiple of 64 (4 * model.image.heads) with model.image.rotary_grid"
    )
    assert str(caught.value) == expected
    check(Config(model=ModelConfig(image=dataclasses.replace(image, rotary_grid=16, width=192))))


def test_check_lets_a_title_only_model_have_any_image_size():
    config = changed("model.adaptation.modalities", "title")
    check(dataclasses.replace(config, inputs=dataclasses.replace(config.inputs, image_height=61)))


def test_check_names_a_renamed_value_that_a_recipe_wrote():
    config = Config()
    object.__setattr__(config.model.adaptation, "weights", "confidence")
    with pytest.raises(
        InputError, match=r"^config: model.adaptation.weights 'confidence' was renamed to 'per_keyword'$"
    ):
        check(config)


def test_check_names_every_problem():
    with pytest.raises(InputError, match=r"train.batch_size is 0.*train.fsdp is 0"):
        check(Config(train=TrainConfig(batch_size=0, fsdp=0)))


@pytest.mark.parametrize("value", ["700", Path("x"), 7.5])
def test_check_names_a_wrong_type_that_a_recipe_wrote(value):
    config = Config()
    object.__setattr__(config.train, "steps", value)  # past the type checks that tests put on constructors
    with pytest.raises(InputError, match=r"config: train.steps is .*, expected an integer"):
        check(config)


def test_config_imports_no_jax():
    code = "import sys, make_jax.config; assert 'jax' not in sys.modules and 'numpy' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
