"""Encoders in our own names: what `convert.py import` writes and init_from reads.

encoders.json                           settings of each encoder, where it comes from
text.safetensors, image.safetensors     parameters by path, float32
tokenizer.json                          of the text encoder, where it has one
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

from make_jax.config import ImageConfig, TextConfig, renamed
from make_jax.errors import InputError
from make_jax.files import folder_atomically
from make_jax.interop.model_folder import read_json
from make_jax.interop.tensor_names import EncoderKind

NAME = "encoders.json"
TOKENIZER = "tokenizer.json"
FORMAT = 1


@dataclass(frozen=True)
class ImagePreprocessing:
    """What an image encoder was trained to see."""

    mean: tuple[float, float, float]  # subtracted, per channel, of values in [0, 1]
    std: tuple[float, float, float]  # divided by, per channel
    size: int  # pixels a side


@dataclass(frozen=True)
class PretrainedEncoder:
    """A public encoder as ours."""

    folder: str  # where it lies
    family: str
    kind: EncoderKind
    settings: dict[str, Any]  # fields of TextConfig or ImageConfig
    pooling: str  # "mean" or "cls": how its makers use the states
    resample: Literal["bicubic", "bilinear"]  # of positions to another image size
    pixels: ImagePreprocessing | None  # of an image encoder
    tokenizer: str | None  # definition, of a text encoder that has one
    arrays: dict[str, Float32[np.ndarray, "..."]]  # parameters by path


def is_encoder_folder(folder: Path) -> bool:
    """Whether `save` wrote this folder."""
    return (folder / NAME).is_file()


def save_encoders(encoders: Sequence[PretrainedEncoder], out: Path) -> None:
    """Writes one encoder of each kind to the folder `out`, whole or not at all. InputError when `out` exists."""
    if out.exists():
        raise InputError(f"{out}: exists; name a folder that does not")
    told: dict[str, Any] = {"format": FORMAT}
    for encoder in encoders:
        entry = asdict(encoder)
        del entry["arrays"], entry["tokenizer"], entry["kind"]
        told[encoder.kind] = entry
    with folder_atomically(out) as partial:
        for encoder in encoders:
            path = partial / f"{encoder.kind}.safetensors"
            save_file(encoder.arrays, path)
            path.chmod(0o644)  # the library writes for its own user alone
            if encoder.tokenizer is not None:
                (partial / TOKENIZER).write_text(encoder.tokenizer, encoding="utf-8")
        (partial / NAME).write_text(json.dumps(told, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def load_encoder(folder: Path, kind: EncoderKind) -> PretrainedEncoder:
    """The encoder of `kind` that `save` wrote. InputError when there is none, or a file is not what it wrote."""
    told = read_json(folder / NAME)
    if told.whole("format", 0) != FORMAT:
        raise InputError(f"{folder / NAME}: format {told.values.get('format')!r}, expected {FORMAT}")
    if kind not in told.values:
        raise InputError(f"{folder}: has no {kind} encoder")
    entry = told.part(kind)
    known = {field.name for field in fields(TextConfig if kind == "text" else ImageConfig)}
    settings = entry.part("settings").values
    place = "model.image" if kind == "image" else "model.query"
    if gone := [sentence for name in settings if (sentence := renamed(f"{place}.{name}"))]:
        raise InputError(f"{entry.where}: {'; '.join(gone)}; import it again with convert.py import")
    if not set(settings) <= known:
        raise InputError(f"{entry.where}: settings {sorted(set(settings) - known)} are unknown")
    pixels = None
    if kind == "image":
        p = entry.part("pixels")
        pixels = ImagePreprocessing(_three(p.values["mean"]), _three(p.values["std"]), p.whole("size", 0))
    path = folder / f"{kind}.safetensors"
    try:
        arrays = load_file(path)
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: damaged or absent: {error}") from None
    tokenizer = folder / TOKENIZER
    return PretrainedEncoder(
        folder=str(folder),
        family=entry.text("family", ""),
        kind=kind,
        settings=settings,
        pooling=entry.text("pooling", "mean"),
        resample=cast(Literal["bicubic", "bilinear"], entry.text("resample", "bicubic")),
        pixels=pixels,
        tokenizer=tokenizer.read_text(encoding="utf-8") if kind == "text" and tokenizer.is_file() else None,
        arrays=arrays,
    )


def _three(values: list[float]) -> tuple[float, float, float]:
    first, second, third = map(float, values)
    return (first, second, third)
