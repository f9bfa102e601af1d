"""A run that begins with public encoders: what has to agree, and that training uses them."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

from make_jax.config import Config, InputsConfig, ModelConfig, check, from_json, to_json
from make_jax.errors import InputError
from make_jax.inputs.tokenizer import Tokenizer
from make_jax.interop.import_encoders import expected_shapes, read_encoder
from make_jax.interop.init_encoders import _identity_projections, init_from_encoders, read_init_encoders
from make_jax.runs.run_folder import load_trained_model
from make_jax.training.loop import train
from tests.interop import tiny_checkpoints as tiny
from tests.training.tiny_run import tiny_config

pytestmark = pytest.mark.usefixtures("few_fit_steps")


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny BERT with its tokenizer."""
    folder = tiny.write_case(tmp_path_factory.mktemp("bert"), "bert")
    (folder / "tokenizer.json").write_text(tiny.tokenizer())
    return folder


@pytest.fixture(scope="module")
def deit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_case(tmp_path_factory.mktemp("deit"), "deit")


def pretrained(config: Config, bert: Path, deit: Path) -> Config:
    """The config with every encoder of it taken from those folders."""
    text = replace(config.model.query, layers=2, init_from=str(bert))
    image = replace(config.model.image, layers=2, class_tokens=2, init_from=str(deit))
    inputs = replace(config.inputs, image_mean=(0.485, 0.456, 0.406), image_std=(0.229, 0.224, 0.225))
    return replace(config, inputs=inputs, model=replace(config.model, query=text, title=text, image=image))


def test_a_run_starts_from_weights_and_tokenizer_and_resumes_without_their_folders(tmp_path, capsys, bert, deit):
    sources = shutil.copytree(bert, tmp_path / "bert"), shutil.copytree(deit, tmp_path / "deit")
    config = pretrained(tiny_config(tmp_path, steps=1, save_every=0, eval_every=0), *sources)
    config = replace(
        config, optim=replace(config.optim, warmup_steps=0, lr_multipliers=((".*", 0.0),))
    )  # nothing moves
    train(config)
    output = capsys.readouterr().out
    assert "positions of 4 x 4 patches resampled to 2 x 2 (bicubic)" in output and f"of {sources[0]} (bert)" in output
    assert "model.query: original pooling 'cls', model.pooling is 'mean'" in output
    trained = load_trained_model(tmp_path / "run", "last")
    averaged = trained.params
    assert trained.tokenizer.definition == Tokenizer(tiny.tokenizer()).definition
    text, image = (
        read_encoder(str(source), kind, "x") for source, kind in zip(sources, ("text", "image"), strict=True)
    )
    for name in ("query_encoder", "title_encoder"):
        ours = flatten_dict(averaged[name], sep="/")
        for path, array in text.arrays.items():
            expected = array[: len(ours[path])] if path == "position" else array
            np.testing.assert_allclose(ours[path], expected, rtol=1e-6)
    ours = flatten_dict(averaged["image_encoder"], sep="/")
    assert ours["position"].shape == (2 + 4, tiny.WIDTH)  # 16 x 16 pixels, trained on 32 x 32
    np.testing.assert_allclose(ours["position"][:2], image.arrays["position"][:2], rtol=1e-6)
    for path in image.arrays.keys() - {"position"}:
        np.testing.assert_allclose(ours[path], image.arrays[path], rtol=1e-6)
    for projection in (averaged["query_projection"], averaged["adaptation"]["title_projection"]):
        np.testing.assert_array_equal(projection["kernel"], np.eye(tiny.WIDTH))  # query and title meet as they did
    assert "are initialized as the identity" in output
    for source in sources:
        shutil.rmtree(source)
    train(config)


def test_projections_stay_random_if_query_and_title_have_different_weights(bert, tmp_path):
    encoder = read_encoder(str(bert), "text", "init_from")
    other = replace(encoder, folder=str(tmp_path))
    config = pretrained(tiny_config(tmp_path), bert, bert)
    random = unflatten_dict(
        {"query_projection/kernel": np.ones((16, 16)), "adaptation/title_projection/kernel": np.ones(2)}, sep="/"
    )
    assert _identity_projections(random, {"model.query": encoder, "model.title": other}, config, print) is random
    assert _identity_projections(random, {"model.query": encoder}, config, print) is random
    wider = replace(config, model=replace(config.model, embedding_dim=32))
    assert _identity_projections(random, {"model.query": encoder, "model.title": encoder}, wider, print) is random


def test_every_differing_field_is_named_with_the_option_to_set(tmp_path, bert, deit):
    config = pretrained(tiny_config(tmp_path), bert, deit)
    query = replace(config.model.query, layers=1, layer_norm_eps=1e-5)
    image = replace(config.model.image, class_tokens=1, embedding_norm=True)
    with pytest.raises(InputError) as caught:
        read_init_encoders(replace(config, model=replace(config.model, query=query)))
    message = str(caught.value)
    assert "model.query.init_from" in message and "\n" not in message
    expected = (
        "model.query.layers is 1, the weights have 2; model.query.layer_norm_eps is 1e-05, the weights have 1e-12"
    )
    assert expected in message
    assert "set --model.query.layers 2 --model.query.layer-norm-eps 1e-12" in message
    inputs = replace(config.inputs, image_mean=(0.5, 0.5, 0.5))
    with pytest.raises(InputError) as caught:
        read_init_encoders(replace(config, model=replace(config.model, image=image), inputs=inputs))
    assert "--model.image.class-tokens 2 --model.image.no-embedding-norm --inputs.image-mean 0.485 0.456 0.406" in str(
        caught.value
    )


def test_equal_query_and_title_weights_are_read_once_and_a_shared_encoder_is_set_once(tmp_path, bert, deit):
    config = pretrained(tiny_config(tmp_path), bert, deit)
    encoders = read_init_encoders(config)
    assert encoders["model.query"] is encoders["model.title"]
    shared = replace(config, model=replace(config.model, shared_text=True))
    assert set(read_init_encoders(shared)) == {"model.query", "model.image"}


def fresh(length: int) -> dict[str, object]:
    """What a run's query encoder looks like before; only its shapes matter."""
    shapes = {
        "word/embedding": (tiny.VOCABULARY, tiny.WIDTH),
        "position": (length, tiny.WIDTH),
    }
    return {
        "query_encoder": unflatten_dict({path: np.zeros(shape, np.float32) for path, shape in shapes.items()}, sep="/")
    }


@pytest.mark.parametrize(
    ("pretrained_tokenizer", "run_tokenizer", "expected"),
    [
        (
            tiny.tokenizer(),
            tiny.tokenizer(first="v"),
            "with other ids; set inputs.tokenizer to",
        ),
        (
            tiny.tokenizer(),
            tiny.tokenizer(40),
            "the run's has 40 tokens, that of model.query.init_from 48",
        ),
        (None, tiny.tokenizer(40), "the run's has 40 tokens, the weights of model.query.init_from 48"),
        (
            tiny.tokenizer(60),
            tiny.tokenizer(60),
            "its tokenizer has 60 tokens, its weights 48",
        ),
    ],
)
def test_a_tokenizer_that_does_not_match_the_weights_is_rejected(bert, pretrained_tokenizer, run_tokenizer, expected):
    encoder = replace(read_encoder(str(bert), "text", "x"), tokenizer=pretrained_tokenizer)
    with pytest.raises(InputError, match=expected):
        init_from_encoders(fresh(8), {"model.query": encoder}, Config(), Tokenizer(run_tokenizer), lambda line: None)


def test_texts_longer_than_the_position_table_are_rejected(bert):
    encoder = read_encoder(str(bert), "text", "x")
    with pytest.raises(InputError, match=r"positions for 20 tokens, the run needs 21; lower inputs.max_query_tokens"):
        init_from_encoders(
            fresh(21),
            {"model.query": encoder},
            Config(),
            Tokenizer(tiny.tokenizer()),
            lambda line: None,
        )


def test_weights_without_a_tokenizer_are_an_error_before_anything_is_written(tmp_path, bert, deit):
    alone = shutil.copytree(bert, tmp_path / "alone")
    (alone / "tokenizer.json").unlink()
    with pytest.raises(InputError, match=r"model.query.init_from: .* contains no tokenizer; set inputs.tokenizer"):
        train(pretrained(tiny_config(tmp_path), alone, deit))
    assert not (tmp_path / "run").exists()


def test_pixel_normalization_is_read_from_the_preprocessing_files(tmp_path):
    source = tiny.write_case(tmp_path / "clip", "clip")
    assert read_encoder(str(source), "image", "x").pixels.mean == (0.48145466, 0.4578275, 0.40821073)
    (source / "preprocessor_config.json").write_text('{"image_mean": [0.1, 0.2, 0.3], "image_std": [1, 1, 1]}')
    assert read_encoder(str(source), "image", "x").pixels.mean == (0.1, 0.2, 0.3)
    (source / "preprocessor_config.json").write_text('{"do_normalize": false}')
    assert read_encoder(str(source), "image", "x").pixels.std == (1.0, 1.0, 1.0)
    (source / "preprocessor_config.json").write_text('{"rescale_factor": 0.5}')
    with pytest.raises(InputError, match=r"rescale_factor is 0.5"):
        read_encoder(str(source), "image", "x")
    (source / "preprocessor_config.json").write_text('{"image_mean": [0.1, 0.2]}')
    with pytest.raises(InputError, match=r"image_mean is .*, expected three numbers"):
        read_encoder(str(source), "image", "x")


def test_pooling_is_read_from_sentence_transformers(tmp_path, bert):
    source = shutil.copytree(bert, tmp_path / "bert")
    assert read_encoder(str(source), "text", "x").pooling == "cls"
    (source / "1_Pooling").mkdir()
    (source / "1_Pooling" / "config.json").write_text('{"pooling_mode_mean_tokens": true}')
    assert read_encoder(str(source), "text", "x").pooling == "mean"


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ({"adaptation": {"modalities": "title"}, "image": {"init_from": "x"}}, "model.image.init_from is 'x', expe"),
        ({"adaptation": {"modalities": "image"}, "title": {"init_from": "x"}}, "model.title.init_from is 'x', expe"),
        ({"adaptation": {"single_stream": True}, "title": {"init_from": "x"}}, "with model.adaptation.single_stream"),
        ({"shared_text": True, "query": {"init_from": "x"}}, "model.title differs from model.query"),
        ({"pooling": "cls", "image": {"class_tokens": 0}}, "expected 'mean' with model.image.class_tokens 0"),
        ({"image": {"class_tokens": -1}}, "model.image.class_tokens is -1"),
    ],
)  # fmt: skip
def test_check_names_weights_that_no_encoder_uses(model, expected):
    with pytest.raises(InputError) as caught:
        check(from_json(json.dumps({"model": model}), "config.json"))
    assert expected in str(caught.value)


def test_init_from_round_trips_json_and_is_optional():
    config = Config(model=ModelConfig(), inputs=InputsConfig())
    assert from_json(to_json(config), "x").model.query.init_from == ""
    assert from_json('{"model": {"image": {"patch_size": 16}}}', "x").model.image.class_tokens == 1


def test_the_default_image_encoder_has_one_class_token_and_no_embedding_norm():
    shapes = expected_shapes("image", {"layers": 1, "width": 8, "heads": 2, "mlp_width": 16}, 16, 0)
    assert shapes["class"] == (1, 1, 8) and shapes["position"] == (5, 8)
    assert not any("embedding_norm" in path for path in shapes)


def test_tokens_that_the_weights_lack_are_random_rows_at_the_end(bert):
    encoder = read_encoder(str(bert), "text", "x")
    tokenizer = Tokenizer(tiny.tokenizer(tiny.VOCABULARY + 8))
    shapes = {path: array.shape for path, array in encoder.arrays.items()}
    shapes |= {
        "word/embedding": (tiny.VOCABULARY + 8, tiny.WIDTH),
        "position": (8, tiny.WIDTH),
    }
    rng = np.random.default_rng(0)
    before = {
        "query_encoder": unflatten_dict({path: rng.normal(size=shape) for path, shape in shapes.items()}, sep="/")
    }
    config = pretrained(Config(), bert, bert)
    log: list[str] = []
    table = flatten_dict(init_from_encoders(before, {"model.query": encoder}, config, tokenizer, log.append), sep="/")[
        "query_encoder/word/embedding"
    ]
    theirs = encoder.arrays["word/embedding"]
    np.testing.assert_array_equal(table[: tiny.VOCABULARY], theirs)
    assert len(np.unique(table[tiny.VOCABULARY :], axis=0)) == 8
    assert 0.5 < table[tiny.VOCABULARY :].std() / theirs.std() < 2
    assert any("8 new tokens are initialized at random" in line for line in log)
