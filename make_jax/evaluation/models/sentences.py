"""A sentence-transformers model: one text encoder for queries and titles, no images."""

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from make_jax.errors import InputError, check_lists
from make_jax.evaluation.models.pytorch import TEXT_BATCH_SIZE, best_device
from make_jax.extras import import_optional
from make_jax.files import folder_digest
from make_jax.retrieval.embed import Modality
from make_jax.retrieval.vector_index import ProductEmbeddings
from make_jax.runs.training_data import TrainingData

_MODULES = "modules.json"
_OWN = "sentence_transformers."  # other classes would be imported by name


class Sentences:
    """A SentenceTransformer as an `Encoder`, with the model's prompts for queries and documents, if any."""

    modalities: Modality = "title"

    def __init__(self, model: Any, folder: Path) -> None:
        self._model, self._folder = model, folder
        self._normalize = model.similarity_fn_name == "cosine"
        self.training_data = TrainingData(folder)  # known if it is an export of a run

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the folder's files."""
        return folder_digest(self._folder)

    def encode_queries(self, texts: Sequence[str]) -> Float32[np.ndarray, "n D"]:
        """One vector per text; of unit length unless the model compares by inner product."""
        check_lists(texts=texts)
        return self._encode(self._model.encode_query, texts)

    def encode_products(self, titles: Sequence[str], images: Sequence[bytes | None]) -> ProductEmbeddings:
        """The vectors of the titles."""
        check_lists(titles=titles, images=images)
        vectors = self._encode(self._model.encode_document, titles)
        return ProductEmbeddings(vectors, np.tile(np.array([1, 0], np.float32), (len(titles), 1)))

    def _encode(self, encode: Any, texts: Sequence[str]) -> Float32[np.ndarray, "n D"]:
        options = {"batch_size": TEXT_BATCH_SIZE, "normalize_embeddings": self._normalize, "show_progress_bar": False}
        return np.asarray(encode(list(texts), convert_to_numpy=True, **options), np.float32)


def matches(path: Path) -> bool:
    """Whether sentence-transformers saved the folder."""
    return (path / _MODULES).is_file()


def load(path: Path) -> Sentences:
    """The folder's model. Raises InputError for foreign classes and for similarities other than cosine and dot."""
    try:
        classes = [str(module["type"]) for module in json.loads((path / _MODULES).read_text("utf-8-sig"))]
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{path}/{_MODULES}: damaged, expected a list of modules with a type each") from None
    for name in classes:
        if not name.startswith(_OWN):
            raise InputError(f"{path}/{_MODULES}: class {name}, expected those of {_OWN.rstrip('.')} alone")
    package = import_optional("sentence_transformers", "models", "a sentence-transformers folder")
    try:
        model = package.SentenceTransformer(
            str(path),
            device=best_device(),
            local_files_only=True,
            trust_remote_code=False,
            model_kwargs={"use_safetensors": True},
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ImportError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"{path}: sentence-transformers cannot read it ({reason}); expected modules and poolings that it has, and "
            "weights in .safetensors"
        ) from None
    if model.similarity_fn_name not in ("cosine", "dot"):
        raise InputError(f"{path}: compares by {model.similarity_fn_name}, expected cosine or dot (inner product)")
    return Sentences(model, path)
