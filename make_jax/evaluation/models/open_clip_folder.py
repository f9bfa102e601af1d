"""An OpenCLIP model in the layout of the Hugging Face hub (open_clip_config.json and weights): late fusion."""

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

_CONFIG = "open_clip_config.json"
# What open_clip prefers to a pickle in the same folder.
_WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors")


class OpenClipTowers:
    """The L2-normalized `encode_text` and `encode_image` of an OpenCLIP model. `Towers`."""

    def __init__(self, folder: Path, model: Any, tokenizer: Any, preprocess: Any, device: str) -> None:
        self._folder, self._device = folder, device
        self._model, self._tokenizer, self._preprocess = model, tokenizer, preprocess

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the folder's files."""
        return folder_digest(self._folder)

    def encode_queries(self, texts: Sequence[str]) -> Float32[np.ndarray, "n D"]:
        """One vector per text, truncated at the model's context length."""
        check_lists(texts=texts)

        def features(batch: Sequence[str]) -> Any:
            return self._model.encode_text(self._tokenizer(list(batch)).to(self._device))

        return l2_normalized_rows(features, texts, TEXT_BATCH_SIZE)

    encode_titles = encode_queries  # one text tower

    def encode_images(self, images: Sequence[bytes]) -> Float32[np.ndarray, "n D"]:
        """One vector per image, preprocessed as the folder's configuration defines."""
        check_lists(images=images)
        torch = import_optional("torch", "models", "an OpenCLIP folder")

        def features(batch: Sequence[bytes]) -> Any:
            preprocessed = [self._preprocess(decode(data, "image of a product")) for data in batch]
            return self._model.encode_image(torch.stack(preprocessed).to(self._device))

        return l2_normalized_rows(features, images, IMAGE_BATCH_SIZE)


def matches(path: Path) -> bool:
    """Whether the folder has OpenCLIP's configuration."""
    return (path / _CONFIG).is_file()


def load(path: Path) -> LateFusion:
    """The folder's model. Raises InputError for weights other than safetensors, which would be unpickled."""
    pickles = [*path.glob("*.bin"), *path.glob("*.pth")]
    candidates = [path / name for name in _WEIGHTS] if pickles else [*path.glob("*.safetensors")]
    if not any(file.is_file() for file in candidates):
        raise InputError(f"{path}: no {_WEIGHTS[0]}, expected it there; pickles are not read")
    package = import_optional("open_clip", "models", "an OpenCLIP folder")
    device, name = best_device(), f"local-dir:{path}"
    try:
        model, preprocess = package.create_model_from_pretrained(name, device=device)
        tokenizer = package.get_tokenizer(name)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{path}: open_clip cannot read it ({reason}); expected the layout of the hub") from None
    return LateFusion(OpenClipTowers(path, model.eval(), tokenizer, preprocess, device))
