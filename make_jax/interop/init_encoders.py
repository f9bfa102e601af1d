"""Initialization of a run from public encoders: do they fit its config, and parameters with them in place.

A config names them by init_from. Its shapes, epsilon and activation must equal those of the weights, so that a printed
config describes the run completely; the error names every field that differs, with the option that would agree.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import tokenizers
from flax.traverse_util import flatten_dict, unflatten_dict

from make_jax.config import Config, ImageConfig, TextConfig
from make_jax.errors import InputError
from make_jax.inputs.tokenizer import Tokenizer
from make_jax.interop.encoder_family import EncoderKind
from make_jax.interop.encoder_files import PretrainedEncoder
from make_jax.interop.import_encoders import read_encoder
from make_jax.interop.position_resampling import resample_positions
from make_jax.interop.tensor_names import Params

Log = Callable[[str], None]


@dataclass(frozen=True)
class EncoderSlot:
    """An encoder of the model that init_from can initialize."""

    setting: str  # its section of the config
    kind: EncoderKind
    params: str  # its submodule in the parameters


ENCODER_SLOTS = (
    EncoderSlot("model.query", "text", "query_encoder"),
    EncoderSlot("model.title", "text", "title_encoder"),
    EncoderSlot("model.image", "image", "image_encoder"),
)


def read_init_encoders(config: Config) -> dict[str, PretrainedEncoder]:
    """Returns the encoders that `config` names by init_from, by section ("model.query"), checked against the config.

    Raises:
        InputError: an encoder cannot be read, or its shape or pixel normalization differs from the config; all fields
            that differ are named, with the options that would agree.
    """
    encoders: dict[str, PretrainedEncoder] = {}
    cache: dict[tuple[str, EncoderKind], PretrainedEncoder] = {}  # query and title usually share one
    for slot in ENCODER_SLOTS:
        settings: TextConfig | ImageConfig = getattr(config.model, slot.setting.removeprefix("model."))
        if not settings.init_from or (config.model.shared_text and slot.setting == "model.title"):
            continue
        key = (settings.init_from, slot.kind)
        if key not in cache:
            cache[key] = read_encoder(settings.init_from, slot.kind, f"{slot.setting}.init_from")
        encoders[slot.setting] = cache[key]
        _check_settings(cache[key], settings, slot.setting, config)
    return encoders


def init_from_encoders(
    params: Params, encoders: Mapping[str, PretrainedEncoder], config: Config, tokenizer: Tokenizer, log: Log
) -> Params:
    """Returns `params` with `encoders` (of `read_init_encoders`) as NumPy arrays in place of the random ones.

    If query and title have the same weights and the embedding has their width, both projections become the identity, so
    that queries find titles as with the public encoder; random projections would destroy that.

    `log` receives one line per remark, such as a resampled position table. Raises InputError when the run's tokenizer
    is not that of the weights, or texts are longer than their position table.
    """
    new = dict(params)
    for slot in ENCODER_SLOTS:
        if slot.setting not in encoders:
            continue
        encoder = encoders[slot.setting]
        shapes = {path: leaf.shape for path, leaf in flatten_dict(params[slot.params], sep="/").items()}
        arrays = dict(encoder.arrays)
        if slot.kind == "text":
            _check_tokenizer(encoder, tokenizer, slot.setting)
            num_new = tokenizer.vocab_size - len(arrays["word/embedding"])
            arrays["word/embedding"] = _word_embeddings(encoder, params[slot.params], tokenizer.vocab_size)
            if num_new > 0:
                log(f"{slot.setting}: {num_new:,} new tokens are initialized at random, the weights do not have them")
            arrays["position"] = _text_positions(encoder, shapes["position"][0], slot.setting)
        else:
            arrays["position"] = _image_positions(encoder, config, log)
        assert {path: array.shape for path, array in arrays.items()} == shapes, slot.setting  # all else was checked
        new[slot.params] = unflatten_dict(arrays, sep="/")
        count = sum(array.size for array in arrays.values())
        log(f"{slot.setting}: {count / 1e6:.1f}M parameters of {encoder.folder} ({encoder.family})")
        if encoder.pooling != config.model.pooling:
            log(f"{slot.setting}: original pooling {encoder.pooling!r}, model.pooling is {config.model.pooling!r}")
        for note in encoder.notes:
            log(f"{slot.setting}: {note}")
    return _identity_projections(new, encoders, config, log)


def command_line_option(name: str, value: Any) -> str:
    """Returns a setting as an option of the command line."""
    flag = "--" + name.replace("_", "-")
    if isinstance(value, bool):
        section, _, last = flag.rpartition(".")
        return flag if value else f"{section}.no-{last}"
    return f"{flag} {' '.join(map(str, value)) if isinstance(value, tuple) else value}"


def _identity_projections(
    params: Params, encoders: Mapping[str, PretrainedEncoder], config: Config, log: Log
) -> Params:
    """`params` with identity projections of query and title, if both have the same weights and width [ours]."""
    model = config.model
    query, title = (encoders.get(f"model.{side}") for side in ("query", "title"))
    title = query if model.shared_text else title
    if query is None or title is None or query.folder != title.folder:
        return params
    if model.embedding_dim != model.query.width or model.adaptation.modalities == "image":
        return params
    title_only = model.adaptation.modalities == "title"
    title_kernel = "product_projection/kernel" if title_only else "adaptation/title_projection/kernel"
    flat = flatten_dict(params, sep="/")
    if title_kernel not in flat:  # a single stream has no title projection
        return params
    for path in ("query_projection/kernel", title_kernel):
        flat[path] = np.eye(model.embedding_dim, dtype=np.float32)
    log(f"projections of query and title are initialized as the identity: both encoders are {query.folder}")
    return unflatten_dict(flat, sep="/")


def _check_settings(
    encoder: PretrainedEncoder, settings: TextConfig | ImageConfig, setting: str, config: Config
) -> None:
    """Raises InputError that lists every field in which the config differs from the weights."""
    differing = [
        (f"{setting}.{field.name}", getattr(settings, field.name), encoder.settings[field.name])
        for field in fields(settings)
        if field.name in encoder.settings and getattr(settings, field.name) != encoder.settings[field.name]
    ]
    if encoder.pixels is not None:
        for name, expected in (("image_mean", encoder.pixels.mean), ("image_std", encoder.pixels.std)):
            value = getattr(config.inputs, name)
            if not np.allclose(value, expected, rtol=0, atol=1e-6):
                differing.append((f"inputs.{name}", value, expected))
    if differing:
        message = "; ".join(
            f"{name} is {value!r}, the weights have {expected!r}" for name, value, expected in differing
        )
        options = " ".join(command_line_option(name, expected) for name, _, expected in differing)
        raise InputError(f"{setting}.init_from: {encoder.folder} does not fit: {message}; set {options}")


def _check_tokenizer(encoder: PretrainedEncoder, tokenizer: Tokenizer, setting: str) -> None:
    """Raises InputError if a token id of the run means another token to the weights."""
    rows = len(encoder.arrays["word/embedding"])
    if encoder.tokenizer is None:
        if tokenizer.vocab_size == rows:
            return
        raise InputError(
            f"inputs.tokenizer: the run's has {tokenizer.vocab_size:,} tokens, the weights of "
            f"{setting}.init_from {rows:,}; set inputs.tokenizer to the folder of the tokenizer they were trained with"
        )
    expected = tokenizers.Tokenizer.from_str(encoder.tokenizer).get_vocab(with_added_tokens=True)
    vocab = tokenizers.Tokenizer.from_str(tokenizer.definition).get_vocab(with_added_tokens=True)
    if any(vocab.get(token) != number for token, number in expected.items()):
        raise InputError(
            f"inputs.tokenizer: the run's has {len(vocab):,} tokens, that of {setting}.init_from {len(expected):,}, "
            f"with other ids; set inputs.tokenizer to {encoder.folder}, or leave it empty"
        )
    if (count := 1 + max(expected.values())) > rows:
        raise InputError(f"{encoder.folder}: its tokenizer has {count:,} tokens, its weights {rows:,}")


def _word_embeddings(encoder: PretrainedEncoder, initial: Params, count: int) -> np.ndarray:
    """A row for each of `count` tokens; new tokens are drawn with mean and deviation of the pretrained table."""
    table = encoder.arrays["word/embedding"][:count]
    new = np.asarray(initial["word"]["embedding"])[len(table) : count]
    if not len(new):
        return table
    standardized = (new - new.mean()) / new.std()
    return np.concatenate([table, (table.mean(0) + table.std(0) * standardized).astype(np.float32)])


def _text_positions(encoder: PretrainedEncoder, length: int, setting: str) -> np.ndarray:
    table = encoder.arrays["position"]
    if length > len(table):
        raise InputError(
            f"{setting}.init_from: {encoder.folder} has positions for {len(table)} tokens, the run needs {length}; "
            "lower inputs.max_query_tokens and inputs.max_title_tokens"
        )
    return table[:length]


def _image_positions(encoder: PretrainedEncoder, config: Config, log: Log) -> np.ndarray:
    """Positions for the run's image size; those of class tokens stay."""
    num_class, patch = encoder.settings["class_tokens"], encoder.settings["patch_size"]
    table = encoder.arrays["position"]
    grid = (config.inputs.image_height // patch, config.inputs.image_width // patch)
    side = round((len(table) - num_class) ** 0.5)
    if grid != (side, side):
        log(
            f"model.image: positions of {side} x {side} patches resampled to {grid[0]} x {grid[1]} "
            f"({encoder.resample}): inputs.image_height and image_width differ from {side * patch} pixels per side"
        )
    return np.concatenate([table[:num_class], resample_positions(table[num_class:], grid, encoder.resample)])
