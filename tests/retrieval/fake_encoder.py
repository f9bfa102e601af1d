"""An encoder without parameters for the tiny catalog: color and shape from titles, the color alone from images."""

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

from make_jax.retrieval.embed import Modality
from make_jax.retrieval.vector_index import ProductEmbeddings
from tests.tiny_catalog import COLOURS, SHAPES

_RGB = {"red": (255, 0, 0), "green": (0, 128, 0), "blue": (0, 0, 255), "black": (0, 0, 0)}


class FakeEncoder:
    digest = "fake"

    def __init__(self, modalities: Modality = "both") -> None:
        self.modalities: Modality = modalities
        self.seen: list[tuple[list[str], list[bytes | None]]] = []

    def encode_queries(self, texts: Sequence[str]) -> np.ndarray:
        return _unit(np.stack([_text(text) for text in texts]))

    def encode_products(self, titles: Sequence[str], images: Sequence[bytes | None]) -> ProductEmbeddings:
        self.seen.append((list(titles), list(images)))
        has = np.array([[bool(t), i is not None] for t, i in zip(titles, images, strict=True)], np.float32)
        odd = np.array([[0.4, 0.6] if len(title) % 2 else [0.6, 0.4] for title in titles], np.float32)
        weights = has * odd / (has * odd).sum(axis=1, keepdims=True)
        title = np.stack([_text(t) for t in titles])
        image = np.stack([_picture(i) for i in images])
        return ProductEmbeddings(_unit(weights[:, :1] * title + weights[:, 1:] * image), weights)


def _text(text: str) -> np.ndarray:
    words = [*COLOURS.items(), *SHAPES.items()]
    return np.array([0.1, *(float(en in text or zh in text) for en, zh in words)], np.float32)


def _picture(data: bytes | None) -> np.ndarray:
    out = np.zeros(8, np.float32)
    out[0] = 0.1
    if data is not None:
        with Image.open(io.BytesIO(data)) as image:
            pixel = image.convert("RGB").getpixel((image.width // 2, image.height // 2 + 4))
        out[1 + [_RGB[colour] for colour in COLOURS].index(pixel)] = 1
    return out


def _unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
