"""A CLIP or SigLIP model saved by Hugging Face transformers: two towers, late fusion."""

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from make_jax.catalog.images import decode
from make_jax.errors import InputError, check_lists
from make_jax.evaluation.late_fusion import LateFusion
from make_jax.evaluation.models.pytorch import IMAGE_BATCH_SIZE, TEXT_BATCH_SIZE, best_device, l2_normalized_rows
from make_jax.extras import import_optional
from make_jax.files import folder_digest

FAMILIES = ("altclip", "chinese_clip", "clip", "metaclip_2", "siglip", "siglip2")  # model_type in config.json
_FIXED_LENGTH = ("siglip", "siglip2")  # families trained on texts padded to the maximum length


class TransformersTowers:
    """The L2-normalized text and image features of a transformers model. `Towers`."""

    def __init__(self, folder: Path, model: Any, tokenizer: Any, image_processor: Any, device: str) -> None:
        self._folder, self._device = folder, device
        self._model, self._tokenizer, self._image_processor = model, tokenizer, image_processor
        max_positions = model.config.text_config.max_position_embeddings
        self._max_length = min(max_positions, tokenizer.model_max_length)
        self._padding = "max_length" if model.config.model_type in _FIXED_LENGTH else "longest"

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the folder's files."""
        return folder_digest(self._folder)

    def encode_queries(self, texts: Sequence[str]) -> Float32[np.ndarray, "n D"]:
        """One vector per text, truncated at the model's maximum length."""
        check_lists(texts=texts)

        def features(batch: Sequence[str]) -> Any:
            tokens = self._tokenizer(
                list(batch), padding=self._padding, truncation=True, max_length=self._max_length, return_tensors="pt"
            )
            return self._model.get_text_features(**tokens.to(self._device)).pooler_output

        return l2_normalized_rows(features, texts, TEXT_BATCH_SIZE)

    encode_titles = encode_queries  # one text tower

    def encode_images(self, images: Sequence[bytes]) -> Float32[np.ndarray, "n D"]:
        """One vector per image, preprocessed as preprocessor_config.json of the folder defines."""
        check_lists(images=images)

        def features(batch: Sequence[bytes]) -> Any:
            decoded = [decode(data, "image of a product") for data in batch]
            pixels = self._image_processor(images=decoded, return_tensors="pt")
            return self._model.get_image_features(**pixels.to(self._device)).pooler_output

        return l2_normalized_rows(features, images, IMAGE_BATCH_SIZE)


def matches(path: Path) -> bool:
    """Whether the folder holds a model of a known family."""
    return _family(path) in FAMILIES


def load(path: Path) -> LateFusion:
    """The folder's model. Weights must be safetensors; no code of the folder is executed."""
    import_optional("torch", "models", "a CLIP or SigLIP folder")
    package = import_optional("transformers", "models", "a CLIP or SigLIP folder")
    local = {"local_files_only": True, "trust_remote_code": False}
    device = best_device()
    try:
        model = package.AutoModel.from_pretrained(path, use_safetensors=True, **local).to(device).eval()
        tokenizer = package.AutoTokenizer.from_pretrained(path, **local)
        image_processor = package.AutoImageProcessor.from_pretrained(path, **local)
    except (OSError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())[:200]
        expected = "expected weights in .safetensors, tokenizer and preprocessor_config.json"
        raise InputError(f"{path}: transformers cannot read it ({reason}); {expected}") from None
    return LateFusion(TransformersTowers(path, model, tokenizer, image_processor, device))


def _family(path: Path) -> str | None:
    try:
        config = json.loads((path / "config.json").read_text("utf-8-sig"))
    except (OSError, ValueError):
        return None
    return config.get("model_type") if isinstance(config, dict) else None
