"""Against transformers' own PyTorch modules: tiny random models, saved by transformers, read by us, compared in f32.

Runs where torch is installed (Python 3.11 with the CPU build, extra [torch]) and is skipped elsewhere.
"""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

from make_jax.config import Config, ImageConfig, InputsConfig, ModelConfig, TextConfig
from make_jax.inputs.tokenizer import Tokenizer
from make_jax.interop.encoder_family import EncoderFamily
from make_jax.interop.families.bert import BERT
from make_jax.interop.families.vit import VIT
from make_jax.interop.import_encoders import expected_shapes, read_encoder
from make_jax.interop.init_encoders import init_from_encoders
from make_jax.interop.tensor_names import convert
from make_jax.model.image import ImageEncoder
from make_jax.model.text import TextEncoder
from tests.interop import tiny_checkpoints as tiny

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install -e '.[torch]'")
import transformers  # noqa: E402

PAD = 1  # of RoBERTa
# Set on top of what transformers has, so that nothing is near 0 or the identity.
SPREAD = 0.2


def assert_close(ours: Any, theirs: Any, what: str) -> None:
    """max |difference| / max |theirs| <= 1e-5."""
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    assert ours.shape == theirs.shape, what
    error = np.abs(ours - theirs).max() / np.abs(theirs).max()
    assert error <= 1e-5, f"{what}: {error:.2e}"


def randomize(model: Any) -> Any:
    """The model with every parameter moved, biases and norms too."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(SPREAD * torch.randn_like(parameter))
    return model.eval()


def text_models() -> dict[str, Any]:
    t = transformers
    text = {**tiny.TEXT, "vocab_size": tiny.VOCABULARY}
    clip = t.ChineseCLIPConfig(text_config=text, vision_config=tiny.VISION, projection_dim=8)
    return {
        "bert": lambda: t.BertModel(t.BertConfig(**text)),
        "bert-mlm": lambda: t.BertForMaskedLM(t.BertConfig(**text, layer_norm_eps=1e-5, hidden_act="gelu_new")),
        "roberta": lambda: t.RobertaModel(t.RobertaConfig(**text)),
        "xlm-r": lambda: t.XLMRobertaForMaskedLM(t.XLMRobertaConfig(**text)),
        "chinese-clip": lambda: t.ChineseCLIPModel(clip),
    }


def image_models() -> dict[str, Any]:
    t, vision = transformers, tiny.VISION
    clip = {"text_config": dict(tiny.TEXT), "vision_config": vision, "projection_dim": 8}
    dinov2 = t.Dinov2Config(**tiny.DINOV2, layerscale_value=0.5)
    return {
        "vit": lambda: t.ViTModel(t.ViTConfig(**vision)),
        "vit-classifier": lambda: t.ViTForImageClassification(t.ViTConfig(**vision, layer_norm_eps=1e-6)),
        "deit": lambda: t.DeiTModel(t.DeiTConfig(**vision)),
        "dinov2": lambda: t.Dinov2Model(dinov2),
        "clip": lambda: t.CLIPModel(t.CLIPConfig(**clip)),
        "clip-vision": lambda: t.CLIPVisionModel(t.CLIPVisionConfig(**vision)),
        "chinese-clip": lambda: t.ChineseCLIPModel(t.ChineseCLIPConfig(**clip)),
        "siglip": lambda: t.SiglipModel(t.SiglipConfig(text_config=dict(tiny.TEXT), vision_config=vision)),
        "siglip2": lambda: t.Siglip2Model(
            t.Siglip2Config(text_config=dict(tiny.TEXT), vision_config=tiny.SIGLIP2)
        ),
    }  # fmt: skip


def tower(model: Any, kind: str) -> Any:
    """The encoder inside a model with heads or with two towers."""
    names = ("text_model", "bert", "roberta") if kind == "text" else ("vision_model", "vit")
    return next((getattr(model, name) for name in names if hasattr(model, name)), model)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    """Of as many word pieces as the tiny models have."""
    return Tokenizer(tiny.tokenizer())


def init_encoder(folder: Path, kind: str, settings: Any, inputs: InputsConfig, tokenizer: Tokenizer) -> Any:
    """The encoder that a run would begin with: its parameters, by the way that training takes."""
    encoder = read_encoder(str(folder), kind, "init_from")
    model = ModelConfig(**{"query" if kind == "text" else "image": settings})
    length = inputs.max_query_tokens if kind == "text" else 0
    name, place = ("query_encoder", "model.query") if kind == "text" else ("image_encoder", "model.image")
    if kind == "text":
        shapes = expected_shapes(kind, encoder.settings, tiny.VOCABULARY, length)
    else:
        image = ImageEncoder(settings, inputs.image_mean, inputs.image_std)
        pixels = jax.ShapeDtypeStruct((1, inputs.image_height, inputs.image_width, 3), jnp.uint8)
        tree = jax.eval_shape(image.init, jax.random.key(0), pixels)
        shapes = {path: leaf.shape for path, leaf in flatten_dict(tree["params"], sep="/").items()}
    fresh = {name: unflatten_dict({path: np.zeros(shape, np.float32) for path, shape in shapes.items()}, sep="/")}
    log: list[str] = []
    new = init_from_encoders(fresh, {place: encoder}, Config(model=model, inputs=inputs), tokenizer, log.append)
    return new[name], log


def layer_outputs(module: Any, params: Any, *inputs: Any) -> tuple[Any, dict[str, Any]]:
    """What our encoder gives, and what each of its parts gave."""
    out, state = module.apply(
        {"params": params},
        *inputs,
        capture_intermediates=lambda part, _: part.name is not None,
        mutable="intermediates",
    )
    return out, {name: value["__call__"][0] for name, value in state["intermediates"].items() if "__call__" in value}


@pytest.mark.parametrize("name", ["bert", "bert-mlm", "roberta", "xlm-r", "chinese-clip"])
def test_every_layer_of_a_text_encoder_equals_pytorch_with_padding_and_odd_lengths(tmp_path, tokenizer, name):
    model = randomize(text_models()[name]())
    model.save_pretrained(tmp_path)
    encoder = read_encoder(str(tmp_path), "text", "init_from")
    settings = TextConfig(**encoder.settings)
    length = 7
    params, _ = init_encoder(tmp_path, "text", settings, InputsConfig(max_query_tokens=length), tokenizer)
    rng = np.random.default_rng(1)
    mask = np.arange(length)[None] < np.array([7, 5, 3, 1])[:, None]
    tokens = np.where(mask, rng.integers(PAD + 1, tiny.VOCABULARY, mask.shape), PAD)
    with torch.no_grad():
        theirs = tower(model, "text")(
            torch.from_numpy(tokens), torch.from_numpy(mask.astype(np.int64)), output_hidden_states=True
        ).hidden_states
    module = TextEncoder(settings, tiny.VOCABULARY, length)
    out, parts = layer_outputs(module, params, jnp.asarray(tokens, jnp.int32), jnp.asarray(mask))
    assert_close(parts["norm"][mask], theirs[0][mask], "embeddings")  # at padding RoBERTa has another position
    for i in range(tiny.LAYERS):
        assert_close(parts[f"layer_{i}"][mask], theirs[i + 1][mask], f"layer {i}")
    assert_close(out[mask], theirs[-1][mask], "output")


def pixels_for(name: str, image: np.ndarray, mean: Any, std: Any) -> dict[str, Any]:
    """A batch of uint8 images as the family's module wants it."""
    values = ((image / 255.0 - np.asarray(mean)) / np.asarray(std)).astype(np.float32)
    if name != "siglip2":
        given = {"pixel_values": torch.from_numpy(values.transpose(0, 3, 1, 2).copy())}
        return given if name == "dinov2" else given | {"interpolate_pos_encoding": True}
    b, h, w = len(image), image.shape[1] // tiny.PATCH, image.shape[2] // tiny.PATCH
    rows = values.reshape(b, h, tiny.PATCH, w, tiny.PATCH, 3).transpose(0, 1, 3, 2, 4, 5).reshape(b, h * w, -1)
    return {
        "pixel_values": torch.from_numpy(rows),
        "pixel_attention_mask": torch.ones(b, h * w, dtype=torch.int64),
        "spatial_shapes": torch.tensor([[h, w]] * b),
    }


@pytest.mark.parametrize("size", [(tiny.SIDE, tiny.SIDE), (24, 48)], ids=["its-own-size", "another-size"])
@pytest.mark.parametrize("name", list(image_models()) if hasattr(transformers, "ViTModel") else [])
def test_every_layer_of_an_image_encoder_equals_pytorch(tmp_path, tokenizer, name, size):
    model = randomize(image_models()[name]())
    model.save_pretrained(tmp_path)
    encoder = read_encoder(str(tmp_path), "image", "init_from")
    assert encoder.pixels is not None
    settings = ImageConfig(**encoder.settings)
    mean, std = encoder.pixels.mean, encoder.pixels.std
    inputs = InputsConfig(image_height=size[0], image_width=size[1], image_mean=mean, image_std=std)
    params, log = init_encoder(tmp_path, "image", settings, inputs, tokenizer)
    assert any("resampled to 3 x 6" in line for line in log) == (size != (tiny.SIDE, tiny.SIDE))
    image = np.random.default_rng(1).integers(0, 256, (3, *size, 3), np.uint8)
    with torch.no_grad():
        theirs = tower(model, "image")(**pixels_for(name, image, mean, std), output_hidden_states=True)
    module = ImageEncoder(settings, mean, std)
    out, parts = layer_outputs(module, params, jnp.asarray(image))
    assert len(theirs.hidden_states) == tiny.LAYERS + 1
    for i in range(tiny.LAYERS):
        assert_close(parts[f"layer_{i}"], theirs.hidden_states[i + 1], f"layer {i}")
    if settings.embedding_norm:  # of CLIP, which norms the pooled state alone
        assert_close(out[:, 0], theirs.pooler_output, "pooled")
    else:
        assert_close(out, theirs.last_hidden_state, "output")


def gradients_in_our_names(
    model: Any, family: EncoderFamily, settings: Any, size: int, length: int
) -> dict[str, np.ndarray]:
    """PyTorch's gradients under our names: the table is linear, so it carries them too."""
    theirs = {name: p.grad.numpy() for name, p in checkpoint_params(model).items() if p.grad is not None}
    expected = expected_shapes(family.kind, settings, size, length)
    found = convert(
        family.table(tiny.LAYERS),
        expected,
        {name: g.shape for name, g in theirs.items()},
        theirs.__getitem__,
    )
    assert not found.problems
    return found.arrays


def checkpoint_params(model: Any) -> dict[str, Any]:
    """Parameters under the names with which they are saved; transformers 5 has others for ViT inside."""
    named = dict(model.named_parameters())
    if not isinstance(model, transformers.ViTModel):
        return named
    renamed = {}
    for name, parameter in named.items():
        for inside, outside in (
            ("layers.", "encoder.layer."),
            ("attention.q_proj", "attention.attention.query"),
            ("attention.k_proj", "attention.attention.key"),
            ("attention.v_proj", "attention.attention.value"),
            ("attention.o_proj", "attention.output.dense"),
            ("mlp.fc1", "intermediate.dense"),
            ("mlp.fc2", "output.dense"),
        ):
            name = name.replace(inside, outside)
        renamed[name] = parameter
    return renamed


def compare_gradients(ours: Any, theirs: dict[str, np.ndarray]) -> None:
    """Each tensor by its own largest entry; a key's bias has no gradient, since softmax does not see it."""
    largest = max(np.abs(g).max() for g in theirs.values())
    flat = flatten_dict(ours, sep="/")
    assert set(flat) == set(theirs)
    for path, gradient in theirs.items():
        if path.endswith("attention/key/bias"):
            assert np.abs(flat[path]).max() <= 1e-5 * largest and np.abs(gradient).max() <= 1e-5 * largest
        else:
            assert_close(flat[path], gradient, path)


def test_gradients_of_one_loss_equal_pytorch_for_bert(tmp_path):
    model = randomize(transformers.BertModel(transformers.BertConfig(**tiny.TEXT)))
    model.save_pretrained(tmp_path)
    encoder = read_encoder(str(tmp_path), "text", "init_from")
    rng = np.random.default_rng(2)
    mask = np.arange(9)[None] < np.array([9, 4, 6])[:, None]
    tokens = rng.integers(0, tiny.VOCABULARY, mask.shape)
    weights = (rng.normal(size=(*mask.shape, tiny.WIDTH)) * mask[..., None]).astype(np.float32)
    states = model(torch.from_numpy(tokens), torch.from_numpy(mask.astype(np.int64))).last_hidden_state
    (torch.tanh(states) * torch.from_numpy(weights)).sum().backward()
    module = TextEncoder(TextConfig(**encoder.settings), tiny.VOCABULARY, tiny.LENGTH)

    def loss(params: Any) -> Any:
        out = module.apply({"params": params}, jnp.asarray(tokens, jnp.int32), jnp.asarray(mask))
        return jnp.sum(jnp.tanh(out) * weights)

    ours = jax.grad(loss)(unflatten_dict(encoder.arrays, sep="/"))
    compare_gradients(ours, gradients_in_our_names(model, BERT, encoder.settings, tiny.VOCABULARY, tiny.LENGTH))


def test_gradients_of_one_loss_equal_pytorch_for_vit(tmp_path):
    model = randomize(transformers.ViTModel(transformers.ViTConfig(**tiny.VISION)))
    model.save_pretrained(tmp_path)
    encoder = read_encoder(str(tmp_path), "image", "init_from")
    assert encoder.pixels is not None
    rng = np.random.default_rng(2)
    image = rng.integers(0, 256, (3, tiny.SIDE, tiny.SIDE, 3), np.uint8)
    weights = rng.normal(size=(3, 1 + tiny.PATCHES, tiny.WIDTH)).astype(np.float32)
    mean, std = encoder.pixels.mean, encoder.pixels.std
    given = pixels_for("vit", image, mean, std)
    (torch.tanh(model(**given).last_hidden_state) * torch.from_numpy(weights)).sum().backward()
    module = ImageEncoder(ImageConfig(**encoder.settings), mean, std)

    def loss(params: Any) -> Any:
        return jnp.sum(jnp.tanh(module.apply({"params": params}, jnp.asarray(image))) * weights)

    ours = jax.grad(loss)(unflatten_dict(encoder.arrays, sep="/"))
    compare_gradients(ours, gradients_in_our_names(model, VIT, encoder.settings, tiny.SIDE, 0))


@pytest.mark.parametrize("name", [name for name in tiny.CASES if not name.startswith("eva02")])
def test_hand_written_checkpoints_have_the_names_that_transformers_saves(tmp_path, name):
    models = image_models() | {key: make for key, make in text_models().items() if key in KINDS_OF_TEXT}
    model = models[name]()
    model.save_pretrained(tmp_path)
    from safetensors.numpy import load_file

    theirs = {key: value.shape for key, value in load_file(tmp_path / "model.safetensors").items()}
    hand_made = tiny.CASES[name][1]
    plain = {key.removeprefix("roberta."): shape for key, shape in hand_made.items()}
    saved = {key.removeprefix("roberta."): shape for key, shape in theirs.items()}
    encoder_names = {key for key in plain if "pooler" not in key}
    wanted = {key: plain[key] for key in encoder_names}
    assert {key: saved.get(key) for key in encoder_names} == wanted


KINDS_OF_TEXT = ("bert", "roberta", "xlm-r")
