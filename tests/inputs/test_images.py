"""Pictures of one size, and what training does to them."""

import dataclasses
import io

import numpy as np
import pytest
from PIL import Image

from make_jax.config import AugmentConfig
from make_jax.errors import InputError
from make_jax.inputs.images import augment_image, load_image

OFF = AugmentConfig(min_crop_area=1.0, flip=False, brightness=0.0, contrast=0.0, saturation=0.0)


def encoded(picture: Image.Image, kind: str = "PNG") -> bytes:
    """The bytes of a picture file."""
    file = io.BytesIO()
    picture.save(file, kind)
    return file.getvalue()


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    """A picture of random pixels."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("size", "rows", "columns"),  # (width, height) of the file; what it covers of 32 x 24
    [
        ((24, 32), slice(0, 32), slice(0, 24)),
        ((240, 320), slice(0, 32), slice(0, 24)),
        ((100, 50), slice(10, 22), slice(0, 24)),
        ((10, 40), slice(0, 32), slice(8, 16)),
        ((4, 4), slice(4, 28), slice(0, 24)),
        ((1, 900), slice(0, 32), slice(11, 12)),
    ],
)
def test_load_keeps_the_aspect_ratio_and_centers_on_white(size: tuple[int, int], rows: slice, columns: slice) -> None:
    image = load_image(encoded(Image.new("RGB", size, (255, 0, 0))), "it", 32, 24)
    assert image.shape == (32, 24, 3) and image.dtype == np.uint8
    expected = np.full((32, 24, 3), 255, np.uint8)
    expected[rows, columns] = (255, 0, 0)
    np.testing.assert_array_equal(image, expected)


def test_load_returns_an_image_of_the_right_size_unchanged() -> None:
    pixels = noise(32, 24)
    np.testing.assert_array_equal(load_image(encoded(Image.fromarray(pixels)), "it", 32, 24), pixels)


def test_load_does_not_alias() -> None:
    checks = (np.indices((600, 600)).sum(axis=0) % 2 * 255).astype(np.uint8)
    image = load_image(encoded(Image.fromarray(checks)), "it", 48, 48)
    assert np.abs(image.astype(int) - 127).max() <= 2


def test_load_composites_transparent_parts_on_white() -> None:
    image = load_image(encoded(Image.new("RGBA", (8, 8), (0, 0, 0, 0))), "it", 8, 8)
    assert (image == 255).all()


def test_load_of_a_broken_image_is_an_input_error_that_names_it() -> None:
    jpeg = encoded(Image.fromarray(noise(32, 24)), "JPEG")
    for data in (b"not a picture", jpeg[:40]):
        with pytest.raises(InputError, match="product 'p7'"):
            load_image(data, "image of product 'p7'", 32, 24)


def test_augment_with_everything_off_is_the_identity() -> None:
    pixels = noise(33, 21)
    for seed in range(5):
        np.testing.assert_array_equal(augment_image(pixels, np.random.default_rng(seed), OFF), pixels)


def test_augment_keeps_the_size_and_does_not_modify_its_input() -> None:
    pixels = noise(33, 21)
    before = pixels.copy()
    changed = [augment_image(pixels, np.random.default_rng(seed), AugmentConfig()) for seed in range(4)]
    np.testing.assert_array_equal(pixels, before)
    assert all(image.shape == pixels.shape and image.dtype == np.uint8 for image in changed)
    assert not np.array_equal(changed[0], changed[1])
    np.testing.assert_array_equal(changed[0], augment_image(pixels, np.random.default_rng(0), AugmentConfig()))


def test_flip_mirrors_half_of_the_time() -> None:
    pixels = noise(8, 8)
    config = AugmentConfig(min_crop_area=1.0, flip=True, brightness=0.0, contrast=0.0, saturation=0.0)
    mirrored = 0
    rng = np.random.default_rng(0)
    for _ in range(200):
        image = augment_image(pixels, rng, config)
        mirrored += np.array_equal(image, pixels[:, ::-1])
        assert np.array_equal(image, pixels[:, ::-1]) or np.array_equal(image, pixels)
    assert 70 < mirrored < 130


def test_crop_keeps_the_aspect_ratio_and_the_minimum_area() -> None:
    # Red encodes the column and green the row, so that the borders of the crop can be read from the pixels.
    rows, columns = np.indices((64, 48))
    pixels = np.stack([columns * 5, rows * 4, 0 * rows], axis=-1).astype(np.uint8)
    config = AugmentConfig(min_crop_area=0.5, flip=False, brightness=0.0, contrast=0.0, saturation=0.0)
    rng = np.random.default_rng(0)
    areas = []
    for _ in range(100):
        image = augment_image(pixels, rng, config).astype(float)
        width = (image[:, -1, 0].mean() - image[:, 0, 0].mean()) / (47 * 5)
        height = (image[-1, :, 1].mean() - image[0, :, 1].mean()) / (63 * 4)
        assert width == pytest.approx(height, abs=0.03)
        areas.append(width * height)
    assert 0.46 < min(areas) < 0.6 < 0.9 < max(areas) < 1.01


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation"])
def test_color_changes_stay_within_their_maximum_and_in_range(name: str) -> None:
    config = AugmentConfig(**{**dataclasses.asdict(OFF), name: 0.2})
    pixels = noise(16, 16).clip(60, 180)
    luma = np.array([0.299, 0.587, 0.114])
    rng = np.random.default_rng(0)
    seen = []
    for _ in range(100):
        image = augment_image(pixels, rng, config).astype(float)
        if name == "brightness":
            factor = image.mean() / pixels.mean()
        elif name == "contrast":
            assert (image @ luma).mean() == pytest.approx((pixels @ luma).mean(), abs=1)
            factor = image.std() / pixels.std()
        else:
            np.testing.assert_allclose(image @ luma, pixels @ luma, atol=1.5)
            factor = np.ptp(image, axis=-1).mean() / np.ptp(pixels, axis=-1).mean()
        seen.append(factor)
    assert 0.79 < min(seen) < 0.85 and 1.15 < max(seen) < 1.21


def test_color_changes_clip_instead_of_wrapping() -> None:
    config = AugmentConfig(min_crop_area=1.0, flip=False, brightness=0.9, contrast=0.9, saturation=0.9)
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[:4] = 255
    for seed in range(20):
        image = augment_image(pixels, np.random.default_rng(seed), config).astype(int)
        assert (image[:4].mean(axis=(0, 1)) >= image[4:].mean(axis=(0, 1))).all()
