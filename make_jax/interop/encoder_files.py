"""Imported encoders on disk: what `convert.py import` writes and init_from reads.

encoders.json                           settings and source of each encoder
text.safetensors, image.safetensors     parameters by path, float32
tokenizer.json                          tokenizer of the text encoder, if it has one
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
from jaxtyping import Float32
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from make_jax.config import ImageConfig, TextConfig
from make_jax.config_renames import renamed
from make_jax.errors import InputError
from make_jax.files import folder_atomically
from make_jax.interop.encoder_family import EncoderKind
from make_jax.interop.model_folder import JsonObject, read_json

NAME = "encoders.json"
TOKENIZER = "tokenizer.json"
FORMAT = 1


@dataclass(frozen=True)
class PixelNormalization:
    """The pixels that an image encoder was trained on."""

    mean: tuple[float, float, float]  # subtracted, per channel, from values in [0, 1]
    std: tuple[float, float, float]  # divisor per channel
    size: int  # pixels per side


@dataclass(frozen=True)
class PretrainedEncoder:
    """A public encoder in our parameter names."""

    folder: str  # where it was read from
    family: str
    kind: EncoderKind
    settings: dict[str, Any]  # fields of TextConfig or ImageConfig
    pooling: str  # the original pooling: "mean", "cls", or "attention", which our model does not have
    resample: Literal["bicubic", "bilinear"]  # how positions adapt to another image size
    pixels: PixelNormalization | None  # of an image encoder
    tokenizer: str | None  # definition, of a text encoder that has a tokenizer
    arrays: dict[str, Float32[np.ndarray, "..."]]  # parameters by path
    notes: tuple[str, ...] = ()  # what the original does and this encoder does not, a line each


def is_encoder_folder(folder: Path) -> bool:
    """Returns whether `save_encoders` wrote this folder."""
    return (folder / NAME).is_file()


def save_encoders(encoders: Sequence[PretrainedEncoder], out: Path) -> None:
    """Writes at most one encoder of each kind to the new folder `out`, completely or not at all.

    Raises:
        InputError: `out` exists.
    """
    if out.exists():
        raise InputError(f"{out}: exists; name a folder that does not")
    header: dict[str, Any] = {"format": FORMAT}
    for encoder in encoders:
        entry = asdict(encoder)
        del entry["arrays"], entry["tokenizer"], entry["kind"]
        header[encoder.kind] = entry
    with folder_atomically(out) as partial:
        for encoder in encoders:
            path = partial / f"{encoder.kind}.safetensors"
            save_file(encoder.arrays, path)
            path.chmod(0o644)  # safetensors creates files with mode 0600
            if encoder.tokenizer is not None:
                (partial / TOKENIZER).write_text(encoder.tokenizer, encoding="utf-8")
        (partial / NAME).write_text(json.dumps(header, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def load_encoder(folder: Path, kind: EncoderKind) -> PretrainedEncoder:
    """Returns the encoder of `kind` that `save_encoders` wrote. InputError if it is missing or a file is damaged."""
    header = read_json(folder / NAME)
    if header.integer("format", 0) != FORMAT:
        raise InputError(f"{folder / NAME}: format {header.values.get('format')!r}, expected {FORMAT}")
    if kind not in header.values:
        raise InputError(f"{folder}: has no {kind} encoder")
    entry = header.section(kind)
    known = {field.name for field in fields(TextConfig if kind == "text" else ImageConfig)}
    settings = entry.section("settings").values
    section = "model.image" if kind == "image" else "model.query"
    if renames := [sentence for name in settings if (sentence := renamed(f"{section}.{name}"))]:
        raise InputError(f"{entry.where}: {'; '.join(renames)}; import it again with convert.py import")
    if not set(settings) <= known:
        raise InputError(f"{entry.where}: settings {sorted(set(settings) - known)} are unknown")
    path = folder / f"{kind}.safetensors"
    try:
        arrays = load_file(path)
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: damaged or absent: {error}") from None
    tokenizer = folder / TOKENIZER
    return PretrainedEncoder(
        folder=str(folder),
        family=entry.string("family", ""),
        kind=kind,
        settings=settings,
        pooling=_one_of(entry, "pooling", ("mean", "cls", "attention")),
        resample=cast(Literal["bicubic", "bilinear"], _one_of(entry, "resample", ("bicubic", "bilinear"))),
        pixels=_pixels(entry.section("pixels")) if kind == "image" else None,
        tokenizer=tokenizer.read_text(encoding="utf-8-sig") if kind == "text" and tokenizer.is_file() else None,
        arrays=arrays,
        notes=tuple(map(str, entry.values.get("notes", ()))),
    )


def _one_of(entry: JsonObject, key: str, known: tuple[str, ...]) -> str:
    if (value := entry.string(key, "")) not in known:
        raise InputError(f"{entry.where}: {key} is {value!r}, expected one of {', '.join(known)}")
    return value


def _pixels(entry: JsonObject) -> PixelNormalization:
    return PixelNormalization(entry.triple("mean"), entry.triple("std"), entry.integer("size", 0))
