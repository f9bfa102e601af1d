"""Exports for PyTorch, written and read back where there is no PyTorch."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from make_jax.config import Config, DataConfig, MatchingConfig, TrainConfig
from make_jax.errors import InputError
from make_jax.interop import torch_checkpoint
from make_jax.interop.bundle import read_bundle, search_config, unpack_keywords
from make_jax.model.keyword_evidence import unpack_keywords as unpack_on_device
from make_jax.model.make import Make
from tests.interop.exports import MODELS, TITLES, random_params, tiny_bundle

FASHION = MODELS["fashion"]


@pytest.fixture(scope="module")
def intact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export that no test changes."""
    folder = tmp_path_factory.mktemp("export")
    bundle = tiny_bundle(FASHION)
    torch_checkpoint.write(folder, random_params(bundle), bundle)
    return folder


@pytest.fixture
def export(intact: Path, tmp_path: Path) -> Path:
    """An export to modify."""
    return Path(shutil.copytree(intact, tmp_path / "export"))


@pytest.mark.parametrize("name", MODELS)
def test_export_then_import_is_bit_exact(tmp_path, name):
    bundle = tiny_bundle(MODELS[name])
    params = random_params(bundle)
    torch_checkpoint.write(tmp_path, params, bundle)
    back, again = torch_checkpoint.read(tmp_path)
    assert jax.tree.structure(back) == jax.tree.structure(params)
    assert all(a.tobytes() == b.tobytes() for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(back), strict=True))
    assert again.config == bundle.config
    assert (again.keywords, again.origin) == (bundle.keywords, bundle.origin)
    assert again.tokenizer.definition == bundle.tokenizer.definition
    assert set(load_file(tmp_path / "model.safetensors")) == {
        row.tensors[0] for row in torch_checkpoint.tensor_mapping(bundle.config.model, len(bundle.keywords))
    }


def test_training_heads_are_not_exported(tmp_path):
    matching = MatchingConfig(layers=1, width=16, heads=2, mlp_width=16)
    bundle = tiny_bundle(replace(FASHION, mlm=True, mpm="regression", matching=matching))
    plain = bundle.config.model
    assert (plain.mlm, plain.mpm, plain.matching.layers) == (False, "none", 0)
    make = Make(replace(plain, mlm=True, mpm="regression", matching=matching), bundle.config.inputs,
                 bundle.tokenizer.vocab_size, len(bundle.keywords), bundle.keywords.exclusion_groups)  # fmt: skip
    one = bundle.queries([""]) | bundle.products([""], [None])
    batch = {name: jnp.zeros(array.shape, array.dtype) for name, array in one.items()}
    shapes = jax.eval_shape(make.init, jax.random.key(0), batch)["params"]
    assert {"matching", "query_head", "title_head", "patch_head"} <= shapes.keys()
    params = jax.tree.map(lambda leaf: np.ones(leaf.shape, np.float32), shapes)
    torch_checkpoint.write(tmp_path, params, bundle)
    back, _ = torch_checkpoint.read(tmp_path)
    assert back.keys() == shapes.keys() - {"matching", "query_head", "title_head", "patch_head"}


def test_exports_contain_no_absolute_path():
    data, train = DataConfig(catalog="/data/shop.zip", cache="/tmp/c"), TrainConfig(init_from="/data/run")
    query = replace(FASHION.query, init_from="/data/minilm")
    config = search_config(Config(run="/data/runs/a", data=data, train=train, model=replace(FASHION, query=query)))
    assert (config.run, config.data.catalog, config.train.init_from) == ("a", "shop.zip", "run")
    assert (config.data.cache, config.model.query.init_from) == ("", "minilm")


def test_keywords_unpack_equally_on_host_and_device():
    packed = np.random.default_rng(0).integers(0, 1 << 32, (5, 3), np.uint32)
    assert np.array_equal(unpack_keywords(packed, 80), np.asarray(unpack_on_device(jnp.asarray(packed), 80)))


def test_the_exported_tokenizer_equals_ours_in_transformers(intact):
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(intact)
    texts = ["red shirt", "[MASK] blue", TITLES[0]]
    tokens, mask = read_bundle(intact).tokenizer.encode(texts, 8)
    found = theirs(texts, padding="max_length", max_length=8, truncation=True, return_tensors="np")
    assert np.array_equal(found["input_ids"], tokens)
    assert np.array_equal(found["attention_mask"].astype(bool), mask)


def change_json(folder: Path, name: str, **values: object) -> None:
    content = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps(content | values))


def change_tensors(folder: Path, change) -> None:
    found = load_file(folder / "model.safetensors")
    change(found)
    save_file(found, folder / "model.safetensors")


BAD = {
    "another family": (lambda f: change_json(f, "config.json", model_type="bert"), "model_type is 'bert', expected"),
    "code": (lambda f: change_json(f, "config.json", auto_map={"AutoModel": "x.Y"}), "requests code"),
    "settings": (lambda f: change_json(f, "config.json", settings={"modell": {}}), "unknown key modell"),
    "no model": (
        lambda f: change_json(f, "config.json", settings={"model": {"query": {"heads": 3}}}),
        r"settings: model\.query\.width is 160, expected a multiple of model\.query\.heads 3",
    ),
    "constants": (lambda f: change_json(f, "config.json", evidence={"eps": 1, "rival": 1, "length": 1}), "evidence is"),
    "another vocabulary": (
        lambda f: change_json(f, "config.json", vocabulary=7),
        "vocabulary is 7, tokenizer.json has",
    ),
    "another count": (lambda f: change_json(f, "config.json", keywords=7), "keywords is 7, keywords.json has 4"),
    "no keywords": (lambda f: (f / "keywords.json").unlink(), "keywords.json: no such file"),
    "no tokenizer": (lambda f: (f / "tokenizer.json").unlink(), "tokenizer.json: no such file"),
    "truncated": (lambda f: (f / "model.safetensors").write_bytes(b"123"), "damaged or no safetensors file"),
    "a pickle": (
        lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"),
        "pytorch_model.bin is a pickle, which can run any code and is never read",
    ),
    "a tensor less": (lambda f: change_tensors(f, lambda t: t.pop("log_logit_scale")), "log_logit_scale is missing"),
    "a tensor more": (lambda f: change_tensors(f, lambda t: t.update(x=np.zeros(2))), r"x \[2\] is unknown"),
    "another width": (
        lambda f: change_tensors(f, lambda t: t.update({"query_projection.weight": np.zeros((8, 4), np.float32)})),
        r"query_projection.weight \[8, 4\] is to become query_projection/kernel \[16, 8\]",
    ),
}


@pytest.mark.parametrize("what", BAD)
def test_invalid_exports_are_rejected_in_one_line(export, what):
    change, message = BAD[what]
    change(export)
    with pytest.raises(InputError, match=message) as raised:
        torch_checkpoint.read(export)
    assert "\n" not in str(raised.value)
