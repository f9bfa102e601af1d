"""A folder of CLIP, SigLIP or their kin, as Hugging Face's transformers saves them: two towers, late fusion."""

import json
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from make_jax.catalog.images import decode
from make_jax.errors import InputError
from make_jax.evaluation.late_fusion import LateFusion
from make_jax.evaluation.models.torch_device import best_device
from make_jax.files import folder_digest
from make_jax.interop.optional_imports import import_optional

FAMILIES = ("altclip", "chinese_clip", "clip", "metaclip_2", "siglip", "siglip2")  # model_type in config.json
_FIXED_LENGTH = ("siglip", "siglip2")  # families trained on texts that are all padded to the greatest length
_TEXTS_AT_ONCE, _IMAGES_AT_ONCE = 64, 32


class TransformersTowers:
    """`get_text_features` and `get_image_features` of a transformers model, in unit length."""

    def __init__(self, folder: Path, model: Any, tokenizer: Any, pixels: Any, device: str) -> None:
        self._folder, self._device = folder, device
        self._model, self._tokenizer, self._pixels = model, tokenizer, pixels
        longest = model.config.text_config.max_position_embeddings
        self._length = min(longest, tokenizer.model_max_length)
        self._padding = "max_length" if model.config.model_type in _FIXED_LENGTH else "longest"

    @cached_property
    def digest(self) -> str:
        """Of the folder's files."""
        return folder_digest(self._folder)

    def encode_queries(self, texts: Sequence[str]) -> Float32[np.ndarray, "n D"]:
        """One vector a text, which is cut at the model's greatest length."""

        def features(some: Sequence[str]) -> Any:
            tokens = self._tokenizer(
                list(some), padding=self._padding, truncation=True, max_length=self._length, return_tensors="pt"
            )
            return self._model.get_text_features(**tokens.to(self._device)).pooler_output

        return unit_rows(features, texts, _TEXTS_AT_ONCE)

    encode_titles = encode_queries  # texts like any other

    def encode_images(self, images: Sequence[bytes]) -> Float32[np.ndarray, "n D"]:
        """One vector an image, prepared as the folder's preprocessor_config.json says."""

        def features(some: Sequence[bytes]) -> Any:
            pictures = [decode(data, "image of a product") for data in some]
            pixels = self._pixels(images=pictures, return_tensors="pt")
            return self._model.get_image_features(**pixels.to(self._device)).pooler_output

        return unit_rows(features, images, _IMAGES_AT_ONCE)


def unit_rows(features: Any, things: Sequence[Any], at_once: int) -> Float32[np.ndarray, "n D"]:
    """What `features` gives for chunks of `things`, a PyTorch tensor [n, D] each, as rows of unit length."""
    torch = import_optional("torch", "models", "this model")
    with torch.inference_mode():
        rows = [features(some).float().cpu().numpy() for some in _chunks(things, at_once)]
    vectors = np.concatenate(rows)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def matches(path: Path) -> bool:
    """Whether the folder holds a model of a known family."""
    return _family(path) in FAMILIES


def load(path: Path) -> LateFusion:
    """The folder's model. Weights must be safetensors; no code of the folder is run."""
    import_optional("torch", "models", "a CLIP or SigLIP folder")
    package = import_optional("transformers", "models", "a CLIP or SigLIP folder")
    here = {"local_files_only": True, "trust_remote_code": False}
    device = best_device()
    try:
        model = package.AutoModel.from_pretrained(path, use_safetensors=True, **here).to(device).eval()
        tokenizer = package.AutoTokenizer.from_pretrained(path, **here)
        pixels = package.AutoImageProcessor.from_pretrained(path, **here)
    except (OSError, ValueError, KeyError) as error:
        said = " ".join(str(error).split())[:200]
        expected = "expected weights in .safetensors, tokenizer and preprocessor_config.json"
        raise InputError(f"{path}: transformers cannot read it ({said}); {expected}") from None
    return LateFusion(TransformersTowers(path, model, tokenizer, pixels, device))


def _family(path: Path) -> str | None:
    try:
        found = json.loads((path / "config.json").read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return found.get("model_type") if isinstance(found, dict) else None


def _chunks(things: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    for start in range(0, len(things), size):
        yield things[start : start + size]
