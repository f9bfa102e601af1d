"""Decodes images at no more resolution than requested, and crops from them.

libjpeg computes a JPEG at an eighth to eight eighths of its size from its frequencies, which saves most of the time of
decoding it. CMYK JPEGs, all other formats, and JPEGs that libjpeg warns about are decoded by `images.decode`, so that
the same files are rejected, for the same reason.
"""

import io
import itertools
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
import simplejpeg
from jaxtyping import UInt8
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from make_jax.catalog.images import MAX_BYTES, MAX_PIXELS, decode, upright

_EIGHTHS = (1, 2, 4, 8)  # libjpeg-turbo has vector code for these: 5/8 takes longer than all of the image

cv2.setNumThreads(0)  # no threads of OpenCV's own: several threads of ours each decode an image

Box = tuple[float, float, float, float]  # left, top, right, bottom


class Orientation(NamedTuple):
    """How stored pixels become upright: transposed, then flipped."""

    transpose: bool = False
    flip_x: bool = False
    flip_y: bool = False


UPRIGHT = Orientation()


class JpegHeader(NamedTuple):
    """Size of a gray or RGB JPEG in upright pixels, and its orientation."""

    width: int
    height: int
    orientation: Orientation


@dataclass(frozen=True)
class ScaledImage:
    """An RGB image with at least the requested resolution. Positions count pixels of the upright file."""

    pixels: UInt8[np.ndarray, "h w 3"]  # as stored
    scale: float  # of `pixels` to the file, at most 1; the last row and column may be cut off in the file
    width: int  # of the file, upright
    height: int
    orientation: Orientation = UPRIGHT

    def crop(self, box: Box, width: int, height: int) -> UInt8[np.ndarray, "{height} {width} 3"]:
        """Returns the part of the image inside `box`, upright and resized to width x height pixels.

        `box` is rounded to pixels of the scaled image. Plain bilinear interpolation, the same on every machine: these
        pixels are averages already, and less than twice as many as needed.
        """
        left, top, right, bottom = box
        transpose, flip_x, flip_y = self.orientation
        if flip_x:
            left, right = self.width - right, self.width - left
        if flip_y:
            top, bottom = self.height - bottom, self.height - top
        if transpose:
            left, top, right, bottom = top, left, bottom, right
        rows, columns, _ = self.pixels.shape
        inside = (
            _rounded(top * self.scale, bottom * self.scale, rows),
            _rounded(left * self.scale, right * self.scale, columns),
        )
        size = (height, width) if transpose else (width, height)
        pixels = cv2.resize(self.pixels[inside], size, interpolation=cv2.INTER_LINEAR_EXACT)
        pixels = pixels.transpose(1, 0, 2) if transpose else pixels
        pixels = pixels[:, ::-1] if flip_x else pixels
        return pixels[::-1] if flip_y else pixels


def read_jpeg_header(data: bytes) -> JpegHeader | None:
    """Returns the header of a gray or RGB JPEG within the limits of `images.decode`; None for anything else."""
    if not data.startswith(b"\xff\xd8\xff") or len(data) > MAX_BYTES:
        return None
    try:
        with JpegImageFile(io.BytesIO(data)) as image:
            width, height = image.size
            if image.mode not in ("L", "RGB") or width * height > MAX_PIXELS:
                return None
            orientation = UPRIGHT
            if not _ORIENTING.isdisjoint(image.info):
                # Through the same function as a decoded image, which ignores some damaged EXIF blocks and not others.
                probe = _PROBE.copy()
                probe.info = image.info
                orientation = _ORIENTATIONS[upright(probe).tobytes()]
    except Exception:  # Pillow raises many types for damaged data
        return None
    return JpegHeader(*((height, width) if orientation.transpose else (width, height)), orientation)


def decode_scaled(data: bytes, where: str, header: JpegHeader | None, min_scale: float) -> ScaledImage:
    """Decodes an image to at least `min_scale` (and at most 1) of its size and less than twice that per side.

    Args:
        data: an encoded image.
        where: what errors call it.
        header: that `read_jpeg_header` returned for it.

    Raises:
        InputError: as `images.decode`.
    """
    scaled = None if header is None else _decode_jpeg(data, header, min_scale)
    if scaled is None:
        scaled = from_image(decode(data, where))
    return reduce_to(scaled, min_scale)


def from_image(image: Image.Image) -> ScaledImage:
    """Returns a decoded RGB image at its full size."""
    return ScaledImage(np.asarray(image), 1.0, image.width, image.height)


def reduce_to(image: ScaledImage, min_scale: float) -> ScaledImage:
    """Returns the image, averaged over squares of pixels where at least `min_scale` remains."""
    factor = int(image.scale / min_scale)
    if factor < 2:
        return image
    pixels = np.asarray(Image.fromarray(image.pixels).reduce(factor))
    return ScaledImage(pixels, image.scale / factor, image.width, image.height, image.orientation)


def _decode_jpeg(data: bytes, header: JpegHeader, min_scale: float) -> ScaledImage | None:
    """None for a JPEG with the slightest damage."""
    eighths = next((n for n in _EIGHTHS if n / 8 >= min_scale), 8)
    width, height, orientation = header
    columns, rows = (height, width) if orientation.transpose else (width, height)
    shape = (-(-rows * eighths // 8), -(-columns * eighths // 8), 3)
    try:
        pixels = simplejpeg.decode_jpeg(data, "RGB", min_height=shape[0], min_width=shape[1], min_factor=1)
    except ValueError:  # strict: for what libjpeg only warns about, too
        return None
    return ScaledImage(pixels, eighths / 8, width, height, orientation) if pixels.shape == shape else None


def _rounded(first: float, last: float, count: int) -> slice:
    """The pixels between two positions along an axis of `count` pixels, at least one."""
    begin = max(0, min(count - 1, round(first)))
    return slice(begin, max(begin + 1, min(count, round(last))))


def _oriented(image: Image.Image, orientation: Orientation) -> Image.Image:
    methods = (Image.Transpose.TRANSPOSE, Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.FLIP_TOP_BOTTOM)
    for method, applies in zip(methods, orientation, strict=True):
        image = image.transpose(method) if applies else image
    return image


_ORIENTING = frozenset({"exif", "Raw profile type exif", "XML:com.adobe.xmp", "xmp"})  # what Pillow's getexif reads
_PROBE = Image.frombytes("L", (2, 2), bytes(range(4)))  # each orientation gives it other pixels
_ORIENTATIONS = {
    _oriented(_PROBE, orientation).tobytes(): orientation
    for orientation in itertools.starmap(Orientation, itertools.product((False, True), repeat=3))
}
