"""The vector of a search: text, picture, and products that the user liked or did not."""

import ctypes
import threading

import numpy as np
from jaxtyping import Float32

from make_jax.catalog.images import decode, pixel_count
from make_jax.errors import InputError
from make_jax.retrieval.embed import Encoder
from make_jax.serving.query_encoder import QueryEncoder
from make_jax.serving.search_service import RequestError

# Rocchio's weights of liked and other products, against 1 of the query (Manning et al. 2008, section 9.1.1).
LIKE_WEIGHT = 0.75
UNLIKE_WEIGHT = 0.15
_LARGE = 4_000_000  # pixels
_one_large_image = threading.Lock()  # each may need 1.5 GB: copies of 64 million pixels, of up to 16 bits


def accepts_images(model: Encoder) -> bool:
    """Whether the model encodes a picture alone."""
    return model.modalities != "title"


def encode_image(encoder: QueryEncoder, data: bytes) -> Float32[np.ndarray, " D"]:
    """The vector of a product that has this picture and no title. A picture of 64 million pixels takes seconds.

    Raises RequestError for a model without image encoder, and for what is no readable JPEG, PNG or WebP image.
    """
    if not accepts_images(encoder.model):
        raise RequestError("image", "the model of this index has no image encoder: search by text")
    if pixel_count(data) <= _LARGE:
        return _encode_image(encoder, data)
    with _one_large_image:
        try:
            return _encode_image(encoder, data)
        finally:
            _return_memory()


def _encode_image(encoder: QueryEncoder, data: bytes) -> Float32[np.ndarray, " D"]:
    try:
        decode(data, "the query's image")  # names it in an error; the encoder would call it product number 0
        with encoder.lock:
            vector: Float32[np.ndarray, " D"] = encoder.model.encode_products([""], [data]).vectors[0]
    except InputError as error:
        raise RequestError("image", str(error)) from None
    return vector


def _return_memory() -> None:
    """Gives freed memory back to the system, of which glibc keeps gigabytes after large pictures in several threads."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def combine(
    text: Float32[np.ndarray, " D"] | None,
    image: Float32[np.ndarray, " D"] | None,
    image_weight: float,
    liked: Float32[np.ndarray, "l D"],
    unliked: Float32[np.ndarray, "u D"],
) -> Float32[np.ndarray, " D"] | None:
    """The query's vector; None without any part.

    (1 - image_weight) text + image_weight image, each of unit length, plus and minus the mean of the liked and the
    other products by Rocchio's weights. A text or an image alone keeps its vector as it is; the rest has unit length.
    """
    if text is not None and image is not None:
        base = np.float32(1 - image_weight) * _unit(text) + np.float32(image_weight) * _unit(image)
    else:
        one = text if text is not None else image
        if not len(liked) and not len(unliked):
            return one
        base = np.zeros(liked.shape[1], np.float32) if one is None else one
    if len(liked):
        base = base + np.float32(LIKE_WEIGHT) * liked.mean(axis=0)
    if len(unliked):
        base = base - np.float32(UNLIKE_WEIGHT) * unliked.mean(axis=0)
    return _unit(base)


def _unit(vector: Float32[np.ndarray, " D"]) -> Float32[np.ndarray, " D"]:
    length = np.linalg.norm(vector)
    return vector / length if length > 0 else vector
