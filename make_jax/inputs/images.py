"""Encoded pictures as uint8 arrays of one size, and what training does to them.

`load` is deterministic and is all that evaluation does; `augment` follows it in training. Normalisation to the model's
mean and deviation happens on the device, so that a quarter of the bytes travel.
"""

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from make_jax.catalog.images import decode
from make_jax.config import AugmentConfig

WHITE = (255, 255, 255)
_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, what Pillow calls "L"


def load(data: bytes, where: str, height: int, width: int) -> UInt8[np.ndarray, "{height} {width} 3"]:
    """The picture, as large as fits into height x width pixels with its aspect kept, centred on white.

    White, because product pictures stand on white and transparent ones are laid on white too: the border then adds no
    edge that the model would have to learn to overlook.

    Args:
        data: an encoded image.
        where: what errors call it, such as the file and the product's id.

    Raises:
        InputError: `data` is no readable picture.
    """
    picture = decode(data, where)
    scale = min(height / picture.height, width / picture.width)
    size = (_pixels(picture.width * scale, width), _pixels(picture.height * scale, height))
    if picture.size != size:
        # Pillow widens the filter when it shrinks, so nothing aliases; a reducing gap of 3 is all but exact and makes
        # the time for large pictures that of one pass over them.
        picture = picture.resize(size, Image.Resampling.BICUBIC, reducing_gap=3.0)
    if size != (width, height):
        page = Image.new("RGB", (width, height), WHITE)
        page.paste(picture, ((width - size[0]) // 2, (height - size[1]) // 2))
        picture = page
    return np.asarray(picture)


def augment(
    image: UInt8[np.ndarray, "H W 3"], rng: np.random.Generator, config: AugmentConfig
) -> UInt8[np.ndarray, "H W 3"]:
    """The picture as training sees it: randomly cropped, mirrored, and changed in colour; the same size.

    The crop keeps the aspect and between `crop_area` and all of the area, and is enlarged to the full size again. The
    colour change is, per picture, one linear map of RGB: saturation, then brightness, then contrast about the mean
    luma. Seven numbers are drawn whatever the settings, so that one setting does not move the others' chances. With
    crop_area 1, no flip and all changes 0 the picture comes back as it was.
    """
    area, left, top, flip, *changes = rng.random(7)
    picture = Image.fromarray(image)
    if config.crop_area < 1:
        picture = _cropped(picture, config.crop_area + (1 - config.crop_area) * area, left, top)
    if config.flip and flip < 0.5:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    largest = (config.brightness, config.contrast, config.saturation)
    if any(largest):
        factors = [1 + most * (2 * change - 1) for most, change in zip(largest, changes, strict=True)]
        picture = picture.convert("RGB", _colour_matrix(picture, *factors))
    return np.asarray(picture)


def _pixels(wanted: float, most: int) -> int:
    return max(1, min(most, round(wanted)))


def _cropped(picture: Image.Image, area: float, left: float, top: float) -> Image.Image:
    side = area**0.5  # of each side, so that the aspect stays
    width, height = picture.width * side, picture.height * side
    x, y = (picture.width - width) * left, (picture.height - height) * top
    return picture.resize(picture.size, Image.Resampling.BILINEAR, box=(x, y, x + width, y + height))


def _colour_matrix(picture: Image.Image, brightness: float, contrast: float, saturation: float) -> tuple[float, ...]:
    """The rows of [3, 4] that Pillow applies to (R, G, B, 1), clipping to 0..255."""
    # One pixel that is the mean of all: whole levels, so that the result is the same on every machine.
    mean = np.asarray(picture.resize((1, 1), Image.Resampling.BOX))[0, 0].tolist()
    mean_luma = sum(share * level for share, level in zip(_LUMA, mean, strict=True))
    offset = (1 - contrast) * brightness * mean_luma  # saturation keeps luma, brightness scales it
    matrix: list[float] = []
    for channel in range(3):
        for other, share in enumerate(_LUMA):
            saturated = (1 - saturation) * share + (saturation if other == channel else 0.0)
            matrix.append(contrast * brightness * saturated)
        matrix.append(offset)
    return tuple(matrix)
