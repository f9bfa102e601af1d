"""A run that begins with public encoders: do they fit its config, and its parameters with them in place.

A config names them by init_from. What it says of shape, epsilon and activation has to agree with the weights, so that a
printed config stays the whole truth; the error names every field that does not, with the option that would.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers

from make_jax.config import Config, ImageConfig, TextConfig
from make_jax.errors import InputError
from make_jax.inputs.tokenizer import Tokenizer
from make_jax.interop.encoder_files import PretrainedEncoder
from make_jax.interop.import_encoders import flatten, nest, read_encoder
from make_jax.interop.position_resampling import resample_positions
from make_jax.interop.tensor_names import EncoderKind, Params


@dataclass(frozen=True)
class EncoderSlot:
    """An encoder of the model that weights can be named for."""

    setting: str  # what config and errors call it
    kind: EncoderKind
    params: str  # its name among the parameters


ENCODER_SLOTS = (
    EncoderSlot("model.query", "text", "query_encoder"),
    EncoderSlot("model.title", "text", "title_encoder"),
    EncoderSlot("model.image", "image", "image_encoder"),
)


def read_init_encoders(config: Config) -> dict[str, PretrainedEncoder]:
    """The encoders that `config` names by init_from, by their setting ("model.query"); each checked against it.

    Raises:
        InputError: one cannot be read, or its shape or its pixels are not what the config says; all differing fields
            are named, with the options that would make them agree.
    """
    found: dict[str, PretrainedEncoder] = {}
    read: dict[tuple[str, EncoderKind], PretrainedEncoder] = {}  # query and title nearly always begin with the same
    for place in ENCODER_SLOTS:
        ours: TextConfig | ImageConfig = getattr(config.model, place.setting.removeprefix("model."))
        if not ours.init_from or (config.model.shared_text and place.setting == "model.title"):
            continue
        key = (ours.init_from, place.kind)
        if key not in read:
            read[key] = read_encoder(ours.init_from, place.kind, f"{place.setting}.init_from")
        found[place.setting] = read[key]
        _check_settings(found[place.setting], ours, place.setting, config)
    return found


def init_from_encoders(
    params: Params,
    encoders: Mapping[str, PretrainedEncoder],
    config: Config,
    tokenizer: Tokenizer,
    note: Callable[[str], None],
) -> Params:
    """Returns `params` with the pretrained `encoders` (of `read_init_encoders`) in place, as NumPy arrays.

    Where query and title begin with the same weights and vectors are as wide as these, both projections begin as the
    identity, so that queries find titles as they do by the public encoder; any other start would be random to them.

    `note` is told what was brought to another size. Raises InputError when the run's tokenizer is not that of the
    weights, or texts are longer than they have positions for.
    """
    new = dict(params)
    for place in ENCODER_SLOTS:
        if place.setting not in encoders:
            continue
        encoder = encoders[place.setting]
        shapes = {path: leaf.shape for path, leaf in flatten(params[place.params]).items()}
        arrays = dict(encoder.arrays)
        if place.kind == "text":
            _check_tokenizer(encoder, tokenizer, place.setting)
            more = tokenizer.vocab_size - len(arrays["word/embedding"])
            arrays["word/embedding"] = _words(encoder, params[place.params], tokenizer.vocab_size)
            if more > 0:
                note(f"{place.setting}: {more:,} word pieces begin at random, the weights do not have them")
            arrays["position"] = _positions_of_text(encoder, shapes["position"][0], place.setting)
        else:
            arrays["position"] = _positions_of_image(encoder, config, note)
        assert {path: array.shape for path, array in arrays.items()} == shapes, place.setting  # all else was checked
        new[place.params] = nest(arrays)
        count = sum(array.size for array in arrays.values())
        note(f"{place.setting}: {count / 1e6:.1f}M parameters of {encoder.folder} ({encoder.family})")
        if encoder.pooling != config.model.pooling:
            note(f"{place.setting}: its makers pool by {encoder.pooling!r}, model.pooling is {config.model.pooling!r}")
    return _alike(new, encoders, config, note)


def _alike(
    params: Params, encoders: Mapping[str, PretrainedEncoder], config: Config, note: Callable[[str], None]
) -> Params:
    """`params` whose projections of query and title are the identity, if that has a meaning [ours]."""
    model = config.model
    query, title = (encoders.get(f"model.{side}") for side in ("query", "title"))
    title = query if model.shared_text else title
    if query is None or title is None or query.folder != title.folder:
        return params
    if model.embedding_dim != model.query.width or model.adaptation.modalities == "image":
        return params
    one = model.adaptation.modalities == "title"
    where = "product_projection/kernel" if one else "adaptation/title_projection/kernel"
    flat = flatten(params)
    if where not in flat:  # a single stream has no projection of titles
        return params
    for name in ("query_projection/kernel", where):
        flat[name] = np.eye(model.embedding_dim, dtype=np.float32)
    note(f"projections of query and title begin as the identity, so that they meet as in {query.folder}")
    return nest(flat)


def _check_settings(encoder: PretrainedEncoder, ours: TextConfig | ImageConfig, setting: str, config: Config) -> None:
    """InputError, field by field, when the config says something else than the weights have."""
    differing = [
        (f"{setting}.{field.name}", getattr(ours, field.name), encoder.settings[field.name])
        for field in fields(ours)
        if field.name in encoder.settings and getattr(ours, field.name) != encoder.settings[field.name]
    ]
    if encoder.pixels is not None:
        for name, wanted in (("image_mean", encoder.pixels.mean), ("image_std", encoder.pixels.std)):
            found = getattr(config.inputs, name)
            if not np.allclose(found, wanted, rtol=0, atol=1e-6):
                differing.append((f"inputs.{name}", found, wanted))
    if differing:
        told = "; ".join(f"{name} is {found!r}, the weights have {wanted!r}" for name, found, wanted in differing)
        options = " ".join(command_line_option(name, wanted) for name, _, wanted in differing)
        raise InputError(f"{setting}.init_from: {encoder.folder} does not fit: {told}; set {options}")


def command_line_option(name: str, value: Any) -> str:
    """A setting as on the command line."""
    flag = "--" + name.replace("_", "-")
    if isinstance(value, bool):
        head, _, last = flag.rpartition(".")
        return flag if value else f"{head}.no-{last}"
    return f"{flag} {' '.join(map(str, value)) if isinstance(value, tuple) else value}"


def _check_tokenizer(encoder: PretrainedEncoder, tokenizer: Tokenizer, setting: str) -> None:
    """InputError when token ids of the run would mean other words to the weights."""
    rows = len(encoder.arrays["word/embedding"])
    if encoder.tokenizer is None:
        if tokenizer.vocab_size == rows:
            return
        raise InputError(
            f"inputs.tokenizer: the run's has {tokenizer.vocab_size:,} word pieces, the weights of "
            f"{setting}.init_from {rows:,}; set inputs.tokenizer to the folder of the tokenizer they were trained with"
        )
    theirs = tokenizers.Tokenizer.from_str(encoder.tokenizer).get_vocab(with_added_tokens=True)
    ours = tokenizers.Tokenizer.from_str(tokenizer.definition).get_vocab(with_added_tokens=True)
    if any(ours.get(piece) != number for piece, number in theirs.items()):
        raise InputError(
            f"inputs.tokenizer: the run's has {len(ours):,} word pieces, that of {setting}.init_from {len(theirs):,}, "
            f"which have other numbers; set inputs.tokenizer to {encoder.folder}, or to nothing"
        )
    if max(theirs.values()) >= rows:
        raise InputError(
            f"{encoder.folder}: its tokenizer counts {1 + max(theirs.values()):,} word pieces, its weights {rows:,}"
        )


def _words(encoder: PretrainedEncoder, fresh: Params, count: int) -> np.ndarray:
    """A row for each of `count` pieces; those that the weights lack are drawn as if they were of the same table."""
    table = encoder.arrays["word/embedding"][:count]
    new = np.asarray(fresh["word"]["embedding"])[len(table) : count]
    if not len(new):
        return table
    drawn = (new - new.mean()) / new.std()
    return np.concatenate([table, (table.mean(0) + table.std(0) * drawn).astype(np.float32)])


def _positions_of_text(encoder: PretrainedEncoder, length: int, setting: str) -> np.ndarray:
    table = encoder.arrays["position"]
    if length > len(table):
        raise InputError(
            f"{setting}.init_from: {encoder.folder} has positions for {len(table)} tokens, the run asks for {length}; "
            "lower inputs.max_query_tokens and inputs.max_title_tokens"
        )
    return table[:length]


def _positions_of_image(encoder: PretrainedEncoder, config: Config, note: Callable[[str], None]) -> np.ndarray:
    """Positions for the run's image size; those of class tokens stay."""
    first, patch = encoder.settings["class_tokens"], encoder.settings["patch_size"]
    table = encoder.arrays["position"]
    grid = (config.inputs.image_height // patch, config.inputs.image_width // patch)
    side = round((len(table) - first) ** 0.5)
    if grid != (side, side):
        note(
            f"model.image: positions of {side} x {side} patches resampled to {grid[0]} x {grid[1]} "
            f"({encoder.resample}): inputs.image_height and image_width differ from {side * patch} pixels a side"
        )
    return np.concatenate([table[:first], resample_positions(table[first:], grid, encoder.resample)])


def recipe_lines(encoder: PretrainedEncoder, folder: str | Path) -> str:
    """The settings with which a run begins with `encoder` from `folder`, as lines of a recipe."""
    kind = "TextConfig" if encoder.kind == "text" else "ImageConfig"
    given = ", ".join(f"{name}={value!r}" for name, value in encoder.settings.items())
    lines = [f"{kind}({given}, init_from={str(folder)!r})"]
    if encoder.pixels is not None:
        p = encoder.pixels
        lines.append(
            f"InputsConfig(image_mean={p.mean}, image_std={p.std}, image_height={p.size}, image_width={p.size})"
            "  # other sizes resample_positions the positions"
        )
    lines.append(f"ModelConfig(pooling={encoder.pooling!r})  # how its makers use it")
    return "\n".join(lines)
