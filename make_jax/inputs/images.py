"""Image files as uint8 arrays of one size, and training augmentation.

`load_image` is deterministic and is all that evaluation applies; training applies `augment_image` to what
`decode_image` returns. Without augmentation the two give the same pixels. Normalization by mean and standard deviation
happens on the device, so that transfers take a quarter of the bytes.

`inputs.image_decoding` travels with the checkpoint, so that evaluation, search and exports see the pixels of training:

scaled  Images of more than twice the model's height and width are decoded at no more resolution than a crop needs, and
        random crops are cut from that. All others as "full".
full    Images are decoded at their own size and resized once, bicubically; random crops are cut from the result. Runs
        made before the setting existed have this value.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import UInt8
from PIL import Image

from make_jax.catalog import scaled_images
from make_jax.catalog.images import decode
from make_jax.catalog.scaled_images import ScaledImage
from make_jax.config import AugmentConfig, InputsConfig

WHITE = (255, 255, 255)
_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, Pillow's mode "L"

Pixels = UInt8[np.ndarray, "H W 3"]


@dataclass(frozen=True)
class LargeImage:
    """An image of more than twice the model's height and width, from which crops are cut [ours]."""

    image: ScaledImage
    height: int  # of the model, in pixels
    width: int

    @property
    def nbytes(self) -> int:
        """Bytes of the decoded pixels."""
        return self.image.pixels.nbytes

    def crop(self, area: float = 1.0, left: float = 0.0, top: float = 0.0) -> Pixels:
        """Returns a part of the image, fitted to the model's size as `load_image` states, at the model's size.

        The part has the share `area` of the fitted image and its aspect ratio; `left` and `top` are its position, as
        shares of what it leaves.
        """
        side = area**0.5
        x, y = (self.width - self.width * side) * left, (self.height - self.height * side) * top
        columns, rows = _fitted_size(self.image.width, self.image.height, self.height, self.width)
        to_left, to_right, from_left, from_right = _visible(self.width, columns, side, x, self.image.width)
        to_top, to_bottom, from_top, from_bottom = _visible(self.height, rows, side, y, self.image.height)
        size = (to_right - to_left, to_bottom - to_top)
        if size == (self.width, self.height):
            return self.image.crop((from_left, from_top, from_right, from_bottom), *size)
        canvas = np.full((self.height, self.width, 3), WHITE, np.uint8)
        if min(size) >= 1:  # else the part has nothing but the border of a narrow image
            part = self.image.crop((from_left, from_top, from_right, from_bottom), *size)
            canvas[to_top:to_bottom, to_left:to_right] = part
        return canvas


def load_image(data: bytes, where: str, inputs: InputsConfig) -> Pixels:
    """Returns the image, resized with its aspect ratio kept to fit the model's size, and centered on white.

    White, because product images have white backgrounds and transparent ones are composited on white: the border adds
    no edge that the model would have to learn to ignore.

    Args:
        data: an encoded image.
        where: what errors call it, such as the file and the product's id.
        inputs: the model's size in pixels, and how large images are decoded.

    Raises:
        InputError: `data` is not a readable image.
    """
    image = decode_image(data, where, inputs)
    return image.crop() if isinstance(image, LargeImage) else image


def decode_image(data: bytes, where: str, inputs: InputsConfig, min_crop_area: float = 1.0) -> Pixels | LargeImage:
    """Returns what `augment_image` reads: the pixels of `load_image`, or a large image that is not resized yet.

    A large image has the resolution for the crop of `min_crop_area` to have at least the model's, or all that the file
    has, and less than twice of it per side. Errors are those of `load_image`.
    """
    height, width = inputs.image_height, inputs.image_width
    if inputs.image_decoding == "full":
        return _fit(decode(data, where), height, width)
    header = scaled_images.read_jpeg_header(data)
    if header is not None:
        if not _is_large(header.width, header.height, height, width):
            return _fit(decode(data, where), height, width)
        scale = _min_scale(header.width, header.height, height, width, min_crop_area)
        return LargeImage(scaled_images.decode_scaled(data, where, header, scale), height, width)
    image = decode(data, where)
    if not _is_large(*image.size, height, width):
        return _fit(image, height, width)
    scale = _min_scale(*image.size, height, width, min_crop_area)
    return LargeImage(scaled_images.reduce_to(scaled_images.from_image(image), scale), height, width)


def augment_image(image: Pixels | LargeImage, rng: np.random.Generator, config: AugmentConfig) -> Pixels:
    """Returns the image randomly cropped, flipped and changed in color, at the model's size.

    The crop keeps the aspect ratio and between `min_crop_area` and all of the area, and is resized to the full size.
    The color change is one linear map of RGB per image: saturation, then brightness, then contrast around the mean
    luma. Seven numbers are drawn with any settings, so that a setting does not change the draws of the others. With
    min_crop_area 1, no flip and all changes 0 the pixels are those of `load_image`.
    """
    area, left, top, flip, *changes = rng.random(7)
    area = config.min_crop_area + (1 - config.min_crop_area) * area
    mirror = config.flip and flip < 0.5
    max_changes = (config.brightness, config.contrast, config.saturation)
    factors = [1 + most * (2 * change - 1) for most, change in zip(max_changes, changes, strict=True)]
    if isinstance(image, LargeImage):
        pixels = image.crop(area, left, top)
        pixels = pixels[:, ::-1] if mirror else pixels
        if any(max_changes):
            pixels = np.ascontiguousarray(pixels)
            matrix = _color_matrix(cv2.mean(pixels)[:3], *factors)
            pixels = cv2.transform(pixels, np.reshape(matrix, (3, 4)))
        return pixels
    picture = Image.fromarray(image)
    if config.min_crop_area < 1:
        picture = _crop(picture, area, left, top)
    if mirror:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if any(max_changes):
        # Reduced to one pixel, the mean of all has integer levels, so that the result is the same on every machine.
        mean = np.asarray(picture.resize((1, 1), Image.Resampling.BOX))[0, 0].tolist()
        picture = picture.convert("RGB", _color_matrix(mean, *factors))
    return np.asarray(picture)


def _is_large(width: int, height: int, model_height: int, model_width: int) -> bool:
    return width > 2 * model_width and height > 2 * model_height


def _min_scale(width: int, height: int, model_height: int, model_width: int, min_crop_area: float) -> float:
    """The scale at which the smallest crop of an image has the model's resolution."""
    columns, rows = _fitted_size(width, height, model_height, model_width)
    return max(columns / width, rows / height) / min_crop_area**0.5


def _fit(image: Image.Image, height: int, width: int) -> Pixels:
    size = _fitted_size(*image.size, height, width)
    if image.size != size:
        # Pillow widens the filter when it shrinks, so nothing aliases. A reducing gap of 3 is almost exact and bounds
        # the time for large images by that of one pass over them.
        image = image.resize(size, Image.Resampling.BICUBIC, reducing_gap=3.0)
    return np.asarray(_on_canvas(image, ((width - size[0]) // 2, (height - size[1]) // 2), height, width))


def _fitted_size(width: int, height: int, model_height: int, model_width: int) -> tuple[int, int]:
    """Columns and rows of an image of width x height in one of the model's size."""
    scale = min(model_height / height, model_width / width)
    return _pixels(width * scale, model_width), _pixels(height * scale, model_height)


def _on_canvas(image: Image.Image, position: tuple[int, int], height: int, width: int) -> Image.Image:
    if image.size == (width, height):
        return image
    canvas = Image.new("RGB", (width, height), WHITE)
    canvas.paste(image, position)
    return canvas


def _visible(model: int, fitted: int, side: float, start: float, file: int) -> tuple[int, int, float, float]:
    """Along one axis: first and last pixel of the model's size that show the image, and which part of the file they do.

    The window of `side` x `model` pixels at `start` is enlarged to `model` pixels; the image has `fitted` pixels in the
    center, from `file` pixels. All of them are positions between pixels.
    """
    offset = (model - fitted) // 2
    first = max(0, round((offset - start) / side))
    last = min(model, round((offset + fitted - start) / side))
    begin, end = ((start + at * side - offset) * file / fitted for at in (first, last))
    return first, last, max(0.0, begin), min(float(file), end)


def _pixels(size: float, most: int) -> int:
    return max(1, min(most, round(size)))


def _crop(picture: Image.Image, area: float, left: float, top: float) -> Image.Image:
    side = area**0.5  # share of each side, so that the aspect ratio stays
    width, height = picture.width * side, picture.height * side
    x, y = (picture.width - width) * left, (picture.height - height) * top
    return picture.resize(picture.size, Image.Resampling.BILINEAR, box=(x, y, x + width, y + height))


def _color_matrix(
    mean: Sequence[int | float], brightness: float, contrast: float, saturation: float
) -> tuple[float, ...]:
    """The rows of the [3, 4] matrix for (R, G, B, 1) of an image whose mean color is `mean`."""
    mean_luma = sum(share * level for share, level in zip(_LUMA, mean, strict=True))
    offset = (1 - contrast) * brightness * mean_luma  # saturation keeps luma, brightness scales it
    matrix: list[float] = []
    for channel in range(3):
        for other, share in enumerate(_LUMA):
            saturated = (1 - saturation) * share + (saturation if other == channel else 0.0)
            matrix.append(contrast * brightness * saturated)
        matrix.append(offset)
    return tuple(matrix)
