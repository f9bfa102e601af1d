"""A folder of OpenCLIP (open_clip_config.json beside the weights), as the Hugging Face hub has them: late fusion."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from make_jax.catalog.images import decode
from make_jax.errors import InputError
from make_jax.evaluation.late_fusion import LateFusion
from make_jax.evaluation.models.clip import unit_rows
from make_jax.evaluation.models.torch_device import best_device
from make_jax.files import folder_digest
from make_jax.interop.optional_imports import import_optional

_CONFIG = "open_clip_config.json"
# What open_clip takes before a pickle beside it.
_WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors")
_TEXTS_AT_ONCE, _IMAGES_AT_ONCE = 64, 32


class OpenClipTowers:
    """`encode_text` and `encode_image` of an OpenCLIP model, in unit length."""

    def __init__(self, folder: Path, model: Any, tokenizer: Any, prepare: Any, device: str) -> None:
        self._folder, self._device = folder, device
        self._model, self._tokenizer, self._prepare = model, tokenizer, prepare

    @cached_property
    def digest(self) -> str:
        """Of the folder's files."""
        return folder_digest(self._folder)

    def encode_queries(self, texts: Sequence[str]) -> Float32[np.ndarray, "n D"]:
        """One vector a text, which is cut at the model's context length."""
        return unit_rows(
            lambda some: self._model.encode_text(self._tokenizer(list(some)).to(self._device)), texts, _TEXTS_AT_ONCE
        )

    encode_titles = encode_queries  # texts like any other

    def encode_images(self, images: Sequence[bytes]) -> Float32[np.ndarray, "n D"]:
        """One vector an image, prepared as the folder's configuration says."""
        torch = import_optional("torch", "models", "an OpenCLIP folder")

        def features(some: Sequence[bytes]) -> Any:
            pictures = [self._prepare(decode(data, "image of a product")) for data in some]
            return self._model.encode_image(torch.stack(pictures).to(self._device))

        return unit_rows(features, images, _IMAGES_AT_ONCE)


def matches(path: Path) -> bool:
    """Whether the folder has OpenCLIP's configuration."""
    return (path / _CONFIG).is_file()


def load(path: Path) -> LateFusion:
    """The folder's model. InputError for weights that are not safetensors, which would be unpickled."""
    pickles = [*path.glob("*.bin"), *path.glob("*.pth")]
    taken = [path / name for name in _WEIGHTS] if pickles else [*path.glob("*.safetensors")]
    if not any(file.is_file() for file in taken):
        raise InputError(f"{path}: no {_WEIGHTS[0]}, expected it there; pickles are not read")
    package = import_optional("open_clip", "models", "an OpenCLIP folder")
    device, name = best_device(), f"local-dir:{path}"
    try:
        model, prepare = package.create_model_from_pretrained(name, device=device)
        tokenizer = package.get_tokenizer(name)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        said = " ".join(str(error).split())[:200]
        raise InputError(f"{path}: open_clip cannot read it ({said}); expected a folder as the hub has it") from None
    return LateFusion(OpenClipTowers(path, model.eval(), tokenizer, prepare, device))
