"""Pictures are small, upright and never enlarged; an image that cannot be decoded is a warning."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from make_jax.catalog.reader import Catalog
from make_jax.serving.index.reader import open_index
from make_jax.serving.index.thumbnails import thumbnail
from make_jax.serving.index.writer import build_index
from tests.retrieval.fake_encoder import FakeEncoder
from tests.serving.index.tiny_index import fake_model
from tests.tiny_catalog import write_catalog


def encoded(image: Image.Image, format: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, format, **options)
    return out.getvalue()


def opened(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    assert image.format == "WEBP"
    return image


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((1600, 800), (320, 160)),
        ((500, 1001), (160, 320)),
        ((24, 32), (24, 32)),
        ((320, 1), (320, 1)),
        ((4000, 2), (320, 1)),
    ],
)
def test_the_longest_side_is_at_most_320_and_small_images_keep_their_size(
    format: str, size: tuple[int, int], expected: tuple[int, int]
) -> None:
    assert opened(thumbnail(encoded(Image.new("RGB", size, "red"), format), "x")).size == expected


@pytest.mark.parametrize("format", ["JPEG", "PNG"])
def test_a_large_image_is_averaged_and_not_sampled(format: str) -> None:
    stripes = np.zeros((640, 1280, 3), np.uint8)
    stripes[:, ::2] = 255  # sampling every fourth column would give black or white
    pixels = np.asarray(opened(thumbnail(encoded(Image.fromarray(stripes), format), "x")).convert("L")).astype(int)
    assert abs(pixels - 127).max() <= 16


def test_a_picture_is_upright_and_has_no_metadata() -> None:
    image = Image.new("RGB", (60, 30), "white")
    image.paste("red", (0, 0, 30, 30))
    exif = Image.Exif()
    exif[0x0112] = 6  # turned: the left becomes the top
    exif[0x010E] = "taken at home"
    picture = opened(thumbnail(encoded(image, "JPEG", exif=exif), "x"))
    assert picture.size == (30, 60) and not picture.getexif()
    top, bottom = picture.getpixel((15, 10)), picture.getpixel((15, 50))
    assert isinstance(top, tuple) and isinstance(bottom, tuple) and top[1] < 60 and bottom[1] > 200


def test_an_image_that_cannot_be_decoded_is_a_warning(tmp_path: Path) -> None:
    path, warnings = write_catalog(tmp_path / "tiny", products=10, queries=0), []
    (path / "images" / "p4.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    build_index(tmp_path / "index", fake_model(FakeEncoder("title")), Catalog.load(path), log=warnings.append)
    index = open_index(tmp_path / "index")
    assert index.thumbnail(4) is None and index.thumbnail(5) is not None
    assert index.image_checksum(4) is not None  # so that an update notices another image
    (warning,) = [line for line in warnings if line.startswith("warning: ")]
    assert "product 'p4': images/p4.png: damaged image" in warning and warning.endswith("has no picture in the index")
