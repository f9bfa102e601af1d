"""`decode_scaled`: the pixels of `images.decode` at less resolution, and its errors."""

import io

import numpy as np
import pytest
from PIL import Image

from make_jax.catalog import images, scaled_images
from make_jax.catalog.scaled_images import ScaledImage, decode_scaled, read_jpeg_header
from make_jax.errors import InputError
from tests.pillow_filters import FILTERS, relative_difference

WIDTH, HEIGHT = 208, 160
BOX = (24.0, 32.0, 136.0, 136.0)  # between pixels at 1/8, too


def picture(mode: str = "RGB") -> Image.Image:
    """Smooth colors with an edge and another corner of each color, so that no orientation looks like another."""
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (7, 9, 3), np.uint8)).resize((WIDTH, HEIGHT), 3)
    image.paste((250, 30, 20), (20, 30, 90, 70))
    return image.convert(mode)


def jpeg(image: Image.Image, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", **({"quality": 92} | options))
    return file.getvalue()


def scaled(data: bytes, min_scale: float) -> ScaledImage:
    return decode_scaled(data, "it", read_jpeg_header(data), min_scale)


def difference(data: bytes, pixels: np.ndarray, mirrored: bool = False) -> float:
    """Of a crop to one of the complete image; of one shifted by a pixel of the scaled image it is above 4."""
    complete, size = images.decode(data, "it"), (pixels.shape[1], pixels.shape[0])
    crops = [complete.resize(size, each, box=BOX) for each in FILTERS]
    crops = [crop.transpose(Image.Transpose.ROTATE_180) for crop in crops] if mirrored else crops
    return relative_difference(pixels, [np.asarray(crop) for crop in crops])


def exif(orientation: int) -> Image.Exif:
    block = Image.Exif()
    block[0x0112] = orientation
    return block


VARIANTS = {
    "RGB": jpeg(picture()),
    "gray": jpeg(picture("L")),
    "without subsampling": jpeg(picture(), subsampling=0),
    "progressive": jpeg(picture(), progressive=True),
    "Adobe RGB": jpeg(picture(), keep_rgb=True),
    "ICC profile": jpeg(picture(), icc_profile=b"not a profile" * 20),
}


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("min_scale", [0.45, 0.3, 0.2, 0.12])
def test_crops_of_a_scaled_image_differ_from_the_complete_one_less_than_filters_do(name: str, min_scale: float) -> None:
    data = VARIANTS[name]
    image = scaled(data, min_scale)
    assert min_scale <= image.scale < 2 * min_scale
    assert image.pixels.shape[:2] < (HEIGHT, WIDTH) and (image.width, image.height) == (WIDTH, HEIGHT)
    size = (int(112 * min_scale), int(104 * min_scale))
    assert difference(data, image.crop(BOX, *size)) < 1
    for x, y in ((1, 0), (0, 1), (-1, 0), (0, -1)):
        shift = np.array([x, y, x, y]) / image.scale
        assert difference(data, image.crop(tuple(BOX + shift), *size)) > 4


def test_a_cmyk_jpeg_has_the_pixels_of_the_complete_image_averaged_over_squares() -> None:
    data = jpeg(picture("CMYK"))
    assert read_jpeg_header(data) is None
    expected = np.asarray(images.decode(data, "it").reduce(3))
    np.testing.assert_array_equal(scaled(data, 0.3).pixels, expected)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("min_scale", [0.45, 0.2])
def test_every_exif_orientation_is_applied(orientation: int, min_scale: float) -> None:
    data = jpeg(picture(), exif=exif(orientation))
    image, size = scaled(data, min_scale), (int(112 * min_scale), int(104 * min_scale))
    assert (image.width, image.height) == images.decode(data, "it").size and image.scale < 1
    crop = image.crop(BOX, *size)
    assert difference(data, crop) < 1
    assert difference(data, crop, mirrored=True) > 4  # orientations of the picture differ


def test_damaged_exif_blocks_have_the_effect_that_they_have_on_a_complete_image() -> None:
    block = exif(6).tobytes()
    effects = set()
    for at in range(6, len(block)):
        for value in (0, 7, 255):
            data = jpeg(picture(), exif=block[:at] + bytes([value]) + block[at + 1 :])
            try:
                effect = images.decode(data, "it").size
            except InputError as error:
                effect = str(error)
                with pytest.raises(InputError) as found:
                    scaled(data, 0.3)
                assert str(found.value) == effect
            else:
                assert (scaled(data, 0.3).width, scaled(data, 0.3).height) == effect
            effects.add(effect)
    assert effects > {(WIDTH, HEIGHT), (HEIGHT, WIDTH)}  # and an error


def test_the_complete_image_is_kept_where_all_of_it_is_needed() -> None:
    data = VARIANTS["RGB"]
    for min_scale in (0.9, 1.0, 1.7):
        image = scaled(data, min_scale)
        assert image.scale == 1 and np.abs(image.pixels.astype(int) - np.asarray(images.decode(data, "it"))).max() <= 1


def test_a_very_large_image_is_averaged_to_less_than_twice_the_resolution() -> None:
    data = jpeg(Image.new("RGB", (4000, 3000), (9, 99, 199)))
    image = scaled(data, 0.02)
    assert 0.02 <= image.scale < 0.04 and image.pixels.shape == (63, 84, 3) and image.width == 4000
    assert np.abs(image.pixels.astype(int) - (9, 99, 199)).max() <= 2


@pytest.mark.parametrize("part", [0.02, 0.3, 0.6, 0.95, 0.999])
def test_a_truncated_jpeg_is_rejected_as_a_complete_one_is(part: float) -> None:
    data = jpeg(Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 300, 3), np.uint8)))
    data = data[: int(part * len(data))]
    with pytest.raises(InputError, match=r"^images/a\.jpg: ") as expected:
        images.decode(data, "images/a.jpg")
    with pytest.raises(InputError) as found:
        decode_scaled(data, "images/a.jpg", read_jpeg_header(data), 0.3)
    assert str(found.value) == str(expected.value)


def test_a_jpeg_with_damaged_bytes_is_accepted_or_rejected_as_by_full_decoding() -> None:
    rng = np.random.default_rng(2)
    data = jpeg(Image.fromarray(rng.integers(0, 256, (90, 110, 3), np.uint8)))
    intact = rejected = 0
    for _ in range(100):
        broken = bytearray(data)
        for at in rng.integers(3, 900, 2):
            broken[at] = rng.integers(0, 256)
        try:
            images.decode(bytes(broken), "it")
        except InputError as error:
            rejected += 1
            with pytest.raises(InputError) as found:
                scaled(bytes(broken), 0.3)
            assert str(found.value) == str(error)
        else:
            intact += 1
            image = scaled(bytes(broken), 0.3)
            factor = round(1 / image.scale)
            assert factor in (2, 3)  # at 1/2 libjpeg has decoded it without a warning, at 1/3 the fallback
            if factor == 3:
                expected = np.asarray(images.decode(bytes(broken), "it").reduce(3))
                np.testing.assert_array_equal(image.pixels, expected)
    assert intact > 20 and rejected > 20


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "BMP"])
def test_other_formats_named_jpg_are_decoded_or_rejected_by_their_content(kind: str) -> None:
    file = io.BytesIO()
    picture().save(file, kind, **({"lossless": True} if kind == "WEBP" else {}))
    data = file.getvalue()
    assert read_jpeg_header(data) is None
    if kind == "BMP":
        with pytest.raises(InputError, match=r"a\.jpg: not a JPEG, PNG or WebP image"):
            decode_scaled(data, "a.jpg", None, 0.3)
        return
    image = decode_scaled(data, "a.jpg", None, 0.3)
    assert image.scale == pytest.approx(1 / 3) and (image.width, image.height) == (WIDTH, HEIGHT)


def test_a_jpeg_over_the_limits_is_rejected_before_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    data = VARIANTS["RGB"]
    for module in (images, scaled_images):
        monkeypatch.setattr(module, "MAX_PIXELS", WIDTH * HEIGHT - 1)
    with pytest.raises(InputError, match=r"it: 208 x 160 pixels"):
        scaled(data, 0.3)
