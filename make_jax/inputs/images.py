"""Image files as uint8 arrays of one size, and training augmentation.

`load_image` is deterministic and is all that evaluation applies; training applies `augment_image` to its result.
Normalization by mean and standard deviation happens on the device, so that transfers take a quarter of the bytes.
"""

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from make_jax.catalog.images import decode
from make_jax.config import AugmentConfig

WHITE = (255, 255, 255)
_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, Pillow's mode "L"


def load_image(data: bytes, where: str, height: int, width: int) -> UInt8[np.ndarray, "{height} {width} 3"]:
    """Returns the image, resized with its aspect ratio kept to fit height x width pixels, and centered on white.

    White, because product images have white backgrounds and transparent ones are composited on white: the border adds
    no edge that the model would have to learn to ignore.

    Args:
        data: an encoded image.
        where: what errors call it, such as the file and the product's id.

    Raises:
        InputError: `data` is not a readable image.
    """
    image = decode(data, where)
    scale = min(height / image.height, width / image.width)
    size = (_pixels(image.width * scale, width), _pixels(image.height * scale, height))
    if image.size != size:
        # Pillow widens the filter when it shrinks, so nothing aliases. A reducing gap of 3 is almost exact and bounds
        # the time for large images by that of one pass over them.
        image = image.resize(size, Image.Resampling.BICUBIC, reducing_gap=3.0)
    if size != (width, height):
        canvas = Image.new("RGB", (width, height), WHITE)
        canvas.paste(image, ((width - size[0]) // 2, (height - size[1]) // 2))
        image = canvas
    return np.asarray(image)


def augment_image(
    image: UInt8[np.ndarray, "H W 3"], rng: np.random.Generator, config: AugmentConfig
) -> UInt8[np.ndarray, "H W 3"]:
    """Returns the image randomly cropped, flipped and changed in color, at the same size.

    The crop keeps the aspect ratio and between `min_crop_area` and all of the area, and is resized to the full size.
    The color change is one linear map of RGB per image: saturation, then brightness, then contrast around the mean
    luma. Seven numbers are drawn with any settings, so that a setting does not change the draws of the others. With
    min_crop_area 1, no flip and all changes 0 the image is returned unchanged.
    """
    area, left, top, flip, *changes = rng.random(7)
    picture = Image.fromarray(image)
    if config.min_crop_area < 1:
        picture = _crop(picture, config.min_crop_area + (1 - config.min_crop_area) * area, left, top)
    if config.flip and flip < 0.5:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    max_changes = (config.brightness, config.contrast, config.saturation)
    if any(max_changes):
        factors = [1 + most * (2 * change - 1) for most, change in zip(max_changes, changes, strict=True)]
        picture = picture.convert("RGB", _color_matrix(picture, *factors))
    return np.asarray(picture)


def _pixels(size: float, most: int) -> int:
    return max(1, min(most, round(size)))


def _crop(picture: Image.Image, area: float, left: float, top: float) -> Image.Image:
    side = area**0.5  # share of each side, so that the aspect ratio stays
    width, height = picture.width * side, picture.height * side
    x, y = (picture.width - width) * left, (picture.height - height) * top
    return picture.resize(picture.size, Image.Resampling.BILINEAR, box=(x, y, x + width, y + height))


def _color_matrix(picture: Image.Image, brightness: float, contrast: float, saturation: float) -> tuple[float, ...]:
    """The rows of the [3, 4] matrix that Pillow applies to (R, G, B, 1), clipping to 0..255."""
    # Reduced to one pixel, the mean of all has integer levels, so that the result is the same on every machine.
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
