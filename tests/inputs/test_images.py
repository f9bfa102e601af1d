"""Pictures of one size, and what training does to them."""

import dataclasses
import io
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image

from make_jax.catalog import images
from make_jax.catalog.scaled_images import ScaledImage
from make_jax.config import AugmentConfig, InputsConfig
from make_jax.errors import InputError
from make_jax.inputs.images import LargeImage, augment_image, decode_image, load_image
from tests.pillow_filters import FILTERS, relative_difference

OFF = AugmentConfig(min_crop_area=1.0, flip=False, brightness=0.0, contrast=0.0, saturation=0.0)


def encoded(picture: Image.Image, kind: str = "PNG") -> bytes:
    """The bytes of a picture file."""
    file = io.BytesIO()
    picture.save(file, kind)
    return file.getvalue()


def sized(height: int, width: int, **settings: Any) -> InputsConfig:
    """Inputs with images of this size."""
    return InputsConfig(image_height=height, image_width=width, **settings)


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
    image = load_image(encoded(Image.new("RGB", size, (255, 0, 0))), "it", sized(32, 24))
    assert image.shape == (32, 24, 3) and image.dtype == np.uint8
    expected = np.full((32, 24, 3), 255, np.uint8)
    expected[rows, columns] = (255, 0, 0)
    np.testing.assert_array_equal(image, expected)


def test_load_returns_an_image_of_the_right_size_unchanged() -> None:
    pixels = noise(32, 24)
    np.testing.assert_array_equal(load_image(encoded(Image.fromarray(pixels)), "it", sized(32, 24)), pixels)


def test_load_does_not_alias() -> None:
    checks = (np.indices((600, 600)).sum(axis=0) % 2 * 255).astype(np.uint8)
    image = load_image(encoded(Image.fromarray(checks)), "it", sized(48, 48))
    assert np.abs(image.astype(int) - 127).max() <= 2


def test_load_composites_transparent_parts_on_white() -> None:
    image = load_image(encoded(Image.new("RGBA", (8, 8), (0, 0, 0, 0))), "it", sized(8, 8))
    assert (image == 255).all()


def test_load_of_a_broken_image_is_an_input_error_that_names_it() -> None:
    jpeg = encoded(Image.fromarray(noise(32, 24)), "JPEG")
    for data in (b"not a picture", jpeg[:40]):
        with pytest.raises(InputError, match="product 'p7'"):
            load_image(data, "image of product 'p7'", sized(32, 24))


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


# --- images of more than twice the model's size ---

CROP_ONLY = dataclasses.replace(OFF, min_crop_area=0.5)


def photo(height: int, width: int) -> Image.Image:
    """Smooth colors with a sharp edge."""
    picture = Image.fromarray(noise(4, 3)).resize((width, height), Image.Resampling.BICUBIC)
    picture.paste((250, 20, 20), (width // 8, height // 8, width // 3, height // 2))
    return picture


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("size", [(64, 48), (100, 48), (64, 90), (40, 40), (900, 20)])
def test_images_up_to_twice_the_size_have_the_pixels_of_full_decoding(kind: str, size: tuple[int, int]) -> None:
    data = encoded(photo(*size), kind)
    expected = load_image(data, "it", sized(32, 24, image_decoding="full"))
    np.testing.assert_array_equal(load_image(data, "it", sized(32, 24)), expected)


class Complete(ScaledImage):
    """An image at full size whose crops are shifted and resized by a filter of Pillow."""

    resampling, shift = Image.Resampling.HAMMING, 0.0  # in pixels of the file

    def crop(self, box: tuple[float, float, float, float], width: int, height: int) -> np.ndarray:
        inside = (np.array(box) + self.shift).clip(0, (self.width, self.height) * 2)
        return np.asarray(Image.fromarray(self.pixels).resize((width, height), self.resampling, box=tuple(inside)))


def difference(pixels: np.ndarray, data: bytes, large: LargeImage, crop: Callable[[LargeImage], np.ndarray]) -> float:
    """Of a crop to those of the complete image, at most half a pixel of `large` apart, since that rounds its boxes."""
    decoded, answers = images.decode(data, "it"), []
    for resampling, pixel in itertools.product(FILTERS, (-0.5, 0, 0.5)):
        complete = Complete(np.asarray(decoded), 1.0, *decoded.size)
        vars(complete).update(resampling=resampling, shift=pixel / large.image.scale)
        answers.append(crop(LargeImage(complete, 32, 24)))
    return relative_difference(pixels, answers)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("size", [(65, 49), (320, 240), (400, 130), (130, 400), (777, 555)])
def test_large_images_differ_from_the_complete_ones_less_than_filters_do(kind: str, size: tuple[int, int]) -> None:
    data = encoded(photo(*size), kind)
    found, large = load_image(data, "it", sized(32, 24)), decode_image(data, "it", sized(32, 24))
    assert isinstance(large, LargeImage)
    assert difference(found, data, large, lambda image: image.crop()) < 1
    white = (load_image(data, "it", sized(32, 24, image_decoding="full")) == 255).all(axis=-1)
    np.testing.assert_array_equal((found == 255).all(axis=-1), white)  # the border has the same place


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_evaluation_sees_the_pixels_of_training_without_augmentation(kind: str) -> None:
    data = encoded(photo(320, 200), kind)
    image = decode_image(data, "it", sized(32, 24), OFF.min_crop_area)
    assert isinstance(image, LargeImage)
    found = augment_image(image, np.random.default_rng(0), OFF)
    np.testing.assert_array_equal(found, load_image(data, "it", sized(32, 24)))


@pytest.mark.parametrize("size", [(320, 240), (320, 130), (130, 400)])
def test_crops_of_large_images_show_what_crops_of_the_complete_image_show(size: tuple[int, int]) -> None:
    data = encoded(photo(*size), "JPEG")
    large = decode_image(data, "it", sized(32, 24), CROP_ONLY.min_crop_area)
    assert isinstance(large, LargeImage)
    for seed in range(10):

        def crop(image: LargeImage, seed: int = seed) -> np.ndarray:
            return augment_image(image, np.random.default_rng(seed), CROP_ONLY)

        assert difference(crop(large), data, large, crop) < 1


def test_crops_of_large_images_have_the_resolution_of_the_model() -> None:
    stripes = np.zeros((320, 240, 3), np.uint8)
    stripes[:, np.arange(240) // 9 % 2 == 0] = 255  # 1.3 stripes a pixel would be gray, 0.9 of a crop's are not
    for area, contrast in ((1.0, 40), (0.25, 100)):
        image = decode_image(encoded(Image.fromarray(stripes), "PNG"), "it", sized(32, 24), area)
        assert isinstance(image, LargeImage)
        assert np.asarray(image.crop(area, 0.5, 0.5)).std() > contrast


def test_a_crop_beside_a_narrow_large_image_is_white() -> None:
    image = decode_image(encoded(Image.new("RGB", (50, 3000))), "it", sized(32, 24), 0.01)
    assert isinstance(image, LargeImage)
    assert (np.asarray(image.crop(0.01, 0.0, 0.5)) == 255).all() and (np.asarray(image.crop(0.01, 0.5, 0.5)) == 0).any()


def test_augmentation_of_a_large_image_is_a_function_of_the_generator() -> None:
    large = decode_image(encoded(photo(320, 240), "JPEG"), "it", sized(32, 24), 0.7)
    first, again, other = (augment_image(large, np.random.default_rng(seed), AugmentConfig()) for seed in (0, 0, 1))
    assert first.shape == (32, 24, 3) and first.dtype == np.uint8
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
