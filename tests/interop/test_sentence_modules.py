"""sentence-transformers folders of every version: pooling, lower case, what is refused, what is noted."""

import json
from pathlib import Path
from typing import Any

import pytest

from make_jax.errors import InputError
from make_jax.inputs.tokenizer import Tokenizer
from make_jax.interop.import_encoders import import_encoders, read_encoder, recipe_lines
from tests.interop import tiny_checkpoints as tiny

OLD = ("cls_token", "max_tokens", "mean_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken")


def old(*modes: str) -> dict[str, Any]:
    """The pooling file of versions before 5.4."""
    return {"word_embedding_dimension": tiny.WIDTH, **{f"pooling_mode_{mode}": mode in modes for mode in OLD}}


def new(mode: Any) -> dict[str, Any]:
    """The pooling file since 5.4."""
    return {"embedding_dimension": tiny.WIDTH, "pooling_mode": mode, "include_prompt": True}


def modules(*kinds: str, package: str = "sentence_transformers.models.") -> list[dict[str, Any]]:
    """modules.json of a Transformer and `kinds`."""
    paths = ["", *(f"{i}_{kind}" for i, kind in enumerate(kinds, 1))]
    types = [package + kind for kind in ("Transformer", *kinds)]
    return [
        {"idx": i, "name": str(i), "path": path, "type": kind}
        for i, (path, kind) in enumerate(zip(paths, types, strict=True))
    ]


def write(folder: Path, files: dict[str, Any]) -> Path:
    """A tiny BERT with further JSON files."""
    tiny.write_case(folder, "bert")
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps(content), encoding="utf-8")
    return folder


def read(folder: Path, pooling: Any = None, **files: Any) -> Any:
    """The encoder of a folder with modules.json, the pooling file and `files`, with "__" for "/"."""
    others = {name.replace("__", "/") + ".json": content for name, content in files.items()}
    if pooling is not None:
        others["1_Pooling/config.json"] = pooling
    return read_encoder(str(write(folder, {"modules.json": modules("Pooling", "Normalize"), **others})), "text", "x")


@pytest.mark.parametrize(
    ("pooling", "expected"),
    [
        (new("mean"), "mean"),
        (new("cls"), "cls"),
        (new(["mean"]), "mean"),
        ({"pooling_mode": "mean"}, "mean"),  # the file that was read as cls
        (new("mean") | {"pooling_mode_cls_token": True}, "mean"),  # the library reads pooling_mode alone
        (old("mean_tokens"), "mean"),
        (old("cls_token"), "cls"),
        ({"pooling_mode_cls_token": True}, "cls"),
    ],
)
def test_the_pooling_of_every_version_is_read(tmp_path, pooling, expected):
    assert read(tmp_path / "model", pooling).pooling == expected
    (tmp_path / "model/modules.json").unlink()
    assert read_encoder(str(tmp_path / "model"), "text", "x").pooling == expected


@pytest.mark.parametrize(
    ("pooling", "stated"),
    [
        *((new(mode), f"pooling_mode is '{mode}'") for mode in ("max", "mean_sqrt_len_tokens", "weightedmean")),
        (new("lasttoken"), "pooling_mode is 'lasttoken'"),
        (new("attention"), "pooling_mode is 'attention'"),
        (new(["cls", "mean"]), r"pooling_mode is \['cls', 'mean'\]"),
        (new([]), r"pooling_mode is \[\]"),
        (new([["mean"]]), r"pooling_mode is \[\['mean'\]\]"),
        (new(None), "pooling_mode is None"),
        (new(True), "pooling_mode is True"),
        (old("max_tokens"), "pooling_mode_max_tokens is true"),
        (old("lasttoken"), "pooling_mode_lasttoken is true"),
        (old("cls_token", "mean_tokens"), "pooling_mode_cls_token and pooling_mode_mean_tokens are true"),
        (old(), "no pooling_mode is true"),
        ({}, "no pooling_mode is true"),
        ({"pooling_mode_new_tokens": True}, "pooling_mode_new_tokens is true"),
        ({"pooling_mode_mean_tokens": 1}, "pooling_mode_mean_tokens is 1, expected true or false"),
    ],
)
def test_a_pooling_that_does_not_exist_is_refused_by_file_key_and_value(tmp_path, pooling, stated):
    with pytest.raises(InputError, match=rf"model/1_Pooling/config\.json: {stated}") as caught:
        read(tmp_path / "model", pooling)
    assert "has the poolings mean and cls" in str(caught.value) or "true or false" in str(caught.value)
    with pytest.raises(InputError):
        import_encoders(str(tmp_path / "model"), str(tmp_path / "out"), lambda line: None)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("stated", "error"),
    [
        ("{", r"modules\.json: damaged"),
        (json.dumps({"type": "x"}), r"modules\.json: damaged"),
        (json.dumps(modules("Pooling", package="custom_st.")), r"'custom_st\.Transformer', custom code"),
        (json.dumps(modules("WordWeights", "Pooling")), r"type is 'sentence_transformers\.models\.WordWeights'"),
        (json.dumps(modules("Normalize")), r"\['Transformer', 'Normalize'\], expected one Transformer, first, and one"),
        (json.dumps(modules("Pooling", "Pooling")), r"expected one Transformer, first, and one Pooling"),
        (json.dumps(modules("Pooling")).replace("1_Pooling", "../1_Pooling"), r"path is '\.\./1_Pooling'"),
        (json.dumps(modules("Pooling")).replace("1_Pooling", "absent"), r"absent/config\.json: no such file"),
    ],
)
def test_modules_that_are_not_understood_are_refused_by_name(tmp_path, stated, error):
    folder = write(tmp_path / "model", {"1_Pooling/config.json": new("mean")})
    (folder / "modules.json").write_text(stated)
    with pytest.raises(InputError, match=error):
        read_encoder(str(folder), "text", "x")


def test_the_class_names_of_version_6_are_read(tmp_path):
    stated = modules("Pooling", package="sentence_transformers.sentence_transformer.modules.pooling.")
    folder = write(tmp_path / "model", {"modules.json": stated, "1_Pooling/config.json": new("mean")})
    assert read_encoder(str(folder), "text", "x").pooling == "mean"


def test_the_transformer_in_a_folder_of_its_own_has_the_pooling_of_its_model(tmp_path):
    stated = [module | {"path": module["path"] or "0_Transformer"} for module in modules("Pooling")]
    write(tmp_path / "model/0_Transformer", {})
    (tmp_path / "model/modules.json").write_text(json.dumps(stated))
    (tmp_path / "model/1_Pooling").mkdir()
    (tmp_path / "model/1_Pooling/config.json").write_text(json.dumps(new("mean")))
    assert read_encoder(str(tmp_path / "model/0_Transformer"), "text", "x").pooling == "mean"


@pytest.mark.parametrize(
    ("changes", "stated"),
    [
        ({"transformer_task": "fill-mask"}, "transformer_task is 'fill-mask'"),
        ({"module_output_name": "sentence_embedding"}, "module_output_name is 'sentence_embedding'"),
        ({"modality_config": {"text": {"method_output_name": "pooler_output"}}}, "method_output_name is 'pooler_out"),
        ({"do_lower_case": "yes"}, "do_lower_case is 'yes'"),
    ],
)
def test_another_output_of_the_transformer_is_refused_by_name(tmp_path, changes, stated):
    with pytest.raises(InputError, match=rf"sentence_bert_config\.json.*{stated}"):
        read(tmp_path / "model", new("mean"), sentence_bert_config=changes)


@pytest.mark.parametrize("name", ["sentence_bert_config", "sentence_xlm-roberta_config"])
def test_texts_are_put_into_lower_case_where_sentence_transformers_does(tmp_path, name):
    (tmp_path / "model").mkdir()
    (tmp_path / "model/tokenizer.json").write_text(tiny.tokenizer())
    plain = Tokenizer(tiny.tokenizer())
    lower = Tokenizer(read(tmp_path / "model", new("mean"), **{name: {"do_lower_case": True}}).tokenizer)
    texts = ["w7 w9"]
    assert (lower.encode(texts, 8)[0] == plain.encode(texts, 8)[0]).all()
    assert (lower.encode([texts[0].upper()], 8)[0] == plain.encode(texts, 8)[0]).all()
    assert (plain.encode([texts[0].upper()], 8)[0] != plain.encode(texts, 8)[0]).any()


def test_modules_and_prompts_that_are_not_imported_are_noted_also_by_the_saved_encoder(tmp_path):
    lines: list[str] = []
    files = {
        "modules.json": modules("Pooling", "Dense", "Normalize"),
        "1_Pooling/config.json": new("mean"),
        "config_sentence_transformers.json": {"prompts": {"query": "query: ", "document": ""}},
    }
    folder = write(tmp_path / "model", files)
    import_encoders(str(folder), str(tmp_path / "out"), lines.append)
    assert "ModelConfig(pooling='mean')  # its original pooling" in "\n".join(lines)
    notes = [line for line in lines if "2_Dense: Dense is not imported" in line or "query is 'query: '" in line]
    assert len(notes) == 2
    assert list(read_encoder(str(tmp_path / "out"), "text", "x").notes) == notes


def test_an_attention_pooling_is_not_called_the_mean(tmp_path):
    encoder = read_encoder(str(tiny.write_case(tmp_path / "siglip", "siglip")), "image", "x")
    assert encoder.pooling == "attention"
    assert recipe_lines(encoder, "x").endswith(
        "# its original pooling, attention, does not exist here: choose model.pooling"
    )


@pytest.mark.parametrize(("key", "value"), [("pooling", "max"), ("pooling", 3), ("resample", "nearest")])
def test_a_saved_encoder_with_an_unknown_pooling_is_refused(tmp_path, key, value):
    import_encoders(str(tiny.write_case(tmp_path / "bert", "bert")), str(tmp_path / "out"), lambda line: None)
    saved = json.loads((tmp_path / "out/encoders.json").read_text())
    saved["text"][key] = value
    (tmp_path / "out/encoders.json").write_text(json.dumps(saved))
    with pytest.raises(InputError, match=rf"encoders\.json: text: {key} is {value!r}, expected"):
        read_encoder(str(tmp_path / "out"), "text", "x")
