"""Import: public encoders in our parameter names, checked tensor by tensor against their own config.json."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict
from jaxtyping import Float32

from make_jax.config import ImageConfig, TextConfig
from make_jax.errors import InputError
from make_jax.inputs.tokenizer import load_tokenizer, lower_case
from make_jax.interop import encoder_files
from make_jax.interop.encoder_family import EncoderFamily, EncoderKind
from make_jax.interop.encoder_files import PixelNormalization, PretrainedEncoder
from make_jax.interop.families import FAMILIES
from make_jax.interop.model_folder import ModelFolder, open_model_folder, resolve_model_folder
from make_jax.interop.sentence_modules import POOLINGS, SentenceModules, read_sentence_modules
from make_jax.interop.tensor_names import convert, join_problems
from make_jax.model.image import ImageEncoder
from make_jax.model.text import TextEncoder

_TOKENIZER_FILES = ("tokenizer.json", "vocab.txt", "vocab.json", "sentencepiece.bpe.model")
_MAX_SIZES = {"layers": 256, "width": 1 << 16, "heads": 1 << 10, "mlp_width": 1 << 18, "patch_size": 1 << 10}


def import_encoders(source: str, out: str, log: Callable[[str], None]) -> None:
    """Writes every encoder of known families in `source`, a folder or hub id, to the new folder `out`.

    `log` receives what was read and the settings for a recipe, line by line. Raises InputError, with nothing written,
    as `read_encoder` does, and when `out` exists.
    """
    folder = resolve_model_folder(source, "SOURCE")
    if Path(out).exists():
        raise InputError(f"OUT: {out} exists; name a folder that does not")
    model = open_model_folder(folder)
    encoders = [read_family(model, family) for family in families_of(model)]
    encoder_files.save_encoders(encoders, Path(out))
    for encoder in encoders:
        count = sum(array.size for array in encoder.arrays.values())
        log(f"{out}: the {encoder.kind} encoder of {encoder.family}, {count / 1e6:.1f}M parameters; in a recipe:")
        log(recipe_lines(encoder, out))
        for note in encoder.notes:
            log(note)
        if encoder.kind == "text" and encoder.tokenizer is None:
            log("the folder has no tokenizer; set inputs.tokenizer to the folder of the tokenizer of these weights")


def recipe_lines(encoder: PretrainedEncoder, folder: str | Path) -> str:
    """Returns the settings that initialize a run from `encoder` in `folder`, as lines of a recipe."""
    config = "TextConfig" if encoder.kind == "text" else "ImageConfig"
    arguments = ", ".join(f"{name}={value!r}" for name, value in encoder.settings.items())
    lines = [f"{config}({arguments}, init_from={str(folder)!r})"]
    if encoder.pixels is not None:
        p = encoder.pixels
        lines.append(
            f"InputsConfig(image_mean={p.mean}, image_std={p.std}, image_height={p.size}, image_width={p.size})"
            "  # other sizes resample the positions"
        )
    if encoder.pooling in POOLINGS:
        lines.append(f"ModelConfig(pooling={encoder.pooling!r})  # its original pooling")
    else:
        lines.append(f"# its original pooling, {encoder.pooling}, does not exist here: choose model.pooling")
    return "\n".join(lines)


def read_encoder(name: str, kind: EncoderKind, setting: str) -> PretrainedEncoder:
    """Returns the text or image encoder of a folder or hub id.

    Args:
        name: a folder in the layout of Hugging Face transformers, one that `convert.py import` wrote, or a hub id.
        kind: "text" or "image".
        setting: what errors call it.

    Raises:
        InputError: no such folder, another family or kind, tensors that are missing, unknown or of another shape (all
            listed), a pickle, a damaged file, a config that requests custom code.
    """
    folder = resolve_model_folder(name, setting)
    if encoder_files.is_encoder_folder(folder):
        return _check_params(encoder_files.load_encoder(folder, kind))
    model = open_model_folder(folder)
    for family in families_of(model):
        if family.kind == kind:
            return read_family(model, family)
    model_type = model.model_type
    known = ", ".join(sorted({family.name for family in FAMILIES if family.kind == kind}))
    raise InputError(f"{setting}: {folder} is {model_type!r}, expected a family with an encoder of {kind}: {known}")


def families_of(model: ModelFolder) -> list[EncoderFamily]:
    """Returns the families of the model's encoders: two for both towers of Chinese-CLIP. InputError for none."""
    model_type = model.model_type
    families = [family for family in FAMILIES if model_type in family.model_types]
    if not families:
        known = ", ".join(sorted({name for family in FAMILIES for name in family.model_types}))
        key = "architecture" if "architecture" in model.config.values else "model_type"
        raise InputError(f"{model.config.where}: {key} is {model_type!r}, expected one of {known}")
    return families


def read_family(model: ModelFolder, family: EncoderFamily) -> PretrainedEncoder:
    """Returns the encoder of one family in `model`; errors as `read_encoder`."""
    section = family.model_types[model.model_type]
    config = model.config.section(section) if section else model.config
    settings = family.settings(config)
    _check_sizes(settings, config.where)
    size, offset = family.size(config), family.position_offset(config)
    length = 0
    if family.kind == "text":
        length = config.integer("max_position_embeddings", 512)
    else:
        size -= size % settings["patch_size"]  # pixels beyond the last complete patch are not read
    arrays = _read_params(model, family, settings["layers"], expected_shapes(family.kind, settings, size, length))
    if offset:
        arrays["position"] = arrays["position"][offset:]
    sentences = read_sentence_modules(model.folder) if family.kind == "text" else None
    return PretrainedEncoder(
        folder=str(model.folder),
        family=family.name,
        kind=family.kind,
        settings=settings,
        pooling=family.pooling if sentences is None else sentences.pooling,
        resample=family.resample,
        pixels=_pixel_normalization(model, family, size) if family.kind == "image" else None,
        tokenizer=_tokenizer(model.folder, sentences) if family.kind == "text" else None,
        arrays=arrays,
        notes=() if sentences is None else sentences.notes,
    )


def _tokenizer(folder: Path, sentences: SentenceModules | None) -> str | None:
    """The definition of the folder's tokenizer, if it has one."""
    if not any((folder / name).is_file() for name in _TOKENIZER_FILES):
        return None
    tokenizer = load_tokenizer(folder)
    return (lower_case(tokenizer) if sentences is not None and sentences.lower_case else tokenizer).definition


def expected_shapes(
    kind: EncoderKind, settings: Mapping[str, Any], size: int, length: int
) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of our encoder's parameters by path, without computing values.

    `size` is the vocabulary size or the pixels per side; `length` counts tokens.
    """
    if kind == "text":
        text = TextEncoder(TextConfig(**settings), size, length)
        tokens = jnp.zeros((1, 1), jnp.int32)
        tree = jax.eval_shape(text.init, jax.random.key(0), tokens, tokens > 0)
    else:
        image = ImageEncoder(ImageConfig(**settings), (0.0,) * 3, (1.0,) * 3)
        tree = jax.eval_shape(image.init, jax.random.key(0), jax.ShapeDtypeStruct((1, size, size, 3), jnp.uint8))
    return {path: leaf.shape for path, leaf in flatten_dict(tree["params"], sep="/").items()}


def _check_sizes(settings: Mapping[str, Any], where: str) -> None:
    """Raises InputError for sizes that no encoder can have."""
    for name, largest in _MAX_SIZES.items():
        if not 1 <= settings.get(name, 1) <= largest:
            raise InputError(f"{where}: {name} of {settings[name]}, expected 1 to {largest:,}")
    if settings["width"] % settings["heads"]:
        raise InputError(f"{where}: a width of {settings['width']} is not a multiple of {settings['heads']} heads")


def _check_params(encoder: PretrainedEncoder) -> PretrainedEncoder:
    """The saved encoder, if its parameters match its settings."""
    _check_sizes(encoder.settings, encoder.folder)
    rows = {name: len(encoder.arrays.get(name, ())) for name in ("word/embedding", "position")}
    size = rows["word/embedding"] if encoder.pixels is None else encoder.pixels.size
    expected = expected_shapes(encoder.kind, encoder.settings, size, rows["position"])
    shapes = {path: array.shape for path, array in encoder.arrays.items()}
    problems = [f"{path} is missing" for path in expected if path not in shapes]
    problems += [f"{path} is unknown" for path in shapes if path not in expected]
    problems += [
        f"{path} is {list(shapes[path])}, expected {list(shape)}"
        for path, shape in expected.items()
        if path in shapes and shapes[path] != shape
    ]
    if problems:
        message = f"the parameters do not fit {encoder_files.NAME}: {join_problems(problems)}"
        raise InputError(f"{encoder.folder}: {message}")
    return encoder


def _read_params(
    model: ModelFolder, family: EncoderFamily, layers: int, expected: Mapping[str, tuple[int, ...]]
) -> dict[str, Float32[np.ndarray, "..."]]:
    """All parameters of the encoder. InputError that lists every tensor that does not fit."""
    table = family.table(layers)
    needed = {name for row in table for name in row.tensors}
    prefix = max(family.prefixes, key=lambda prefix: sum(prefix + name in model.tensors for name in needed))
    names = {_table_name(name.removeprefix(prefix), family): name for name in model.tensors if name.startswith(prefix)}
    shapes = {name: model.shape(stored) for name, stored in names.items()}
    arrays, problems = convert(table, expected, shapes, lambda name: model.read(names[name]))
    problems += [
        f"{name} {list(shape)} is unknown"
        for name, shape in shapes.items()
        if name not in needed and not name.startswith(family.ignored)
    ]
    if problems:
        message = f"the tensors are not those of {family.name} with the sizes in config.json"
        raise InputError(f"{model.folder}: {message}: {join_problems(problems)}")
    return arrays


def _table_name(name: str, family: EncoderFamily) -> str:
    """A tensor's name in the family's tables."""
    return next((new + name.removeprefix(old) for old, new in family.aliases.items() if name.startswith(old)), name)


def _pixel_normalization(model: ModelFolder, family: EncoderFamily, size: int) -> PixelNormalization:
    """Mean and deviation of the model's own preprocessing, by default the family's."""
    config = model.json("preprocessor_config.json")
    if config is None and (processor := model.json("processor_config.json")) is not None:
        config = processor.section("image_processor")
    if config is None:
        config = model.config.section("pretrained_cfg")  # of timm; empty in other models
        return PixelNormalization(config.triple("mean", family.mean), config.triple("std", family.std), size)
    config.expect("do_rescale", True)
    if abs(config.number("rescale_factor", 1 / 255) - 1 / 255) > 1e-9:
        config.expect("rescale_factor", 1 / 255)
    if config.values.get("do_normalize", True) is False:
        return PixelNormalization((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), size)
    return PixelNormalization(config.triple("image_mean", family.mean), config.triple("image_std", family.std), size)
