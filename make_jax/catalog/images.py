"""Decodes untrusted images."""

import contextlib
import io
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from make_jax.errors import InputError

MAX_BYTES = 64 << 20  # of an encoded image
MAX_PIXELS = 64_000_000  # width x height; larger images are rejected before decoding
_PIXEL_CHUNKS = ((b"tRNS", b"eXIf"), (b"tRNS",))  # optional chunks that change pixels, without the orientation at last

_Reader: TypeAlias = type[JpegImageFile] | type[PngImageFile] | type[WebPImageFile]


def decode(data: bytes, where: str) -> Image.Image:
    """Decodes a JPEG, PNG or WebP image to RGB: EXIF orientation applied, transparency on white, first frame only.

    The size is checked before any pixel is decoded. Raises InputError, naming `where`, for other formats, damaged
    images, and images of more than MAX_BYTES or MAX_PIXELS.
    """
    if len(data) > MAX_BYTES:
        raise InputError(f"{where}: {len(data):,} bytes, expected an image of at most {MAX_BYTES:,}")
    reader = _reader(data)
    if reader is None:
        raise InputError(f"{where}: not a JPEG, PNG or WebP image")
    try:
        return _pixels(reader, data, where)
    except InputError:
        raise
    except Exception as error:  # decoders raise many types for damaged data
        for kept in _PIXEL_CHUNKS if reader is PngImageFile else ():  # Pillow rejects a PNG for its metadata too
            with contextlib.suppress(Exception):
                return _pixels(reader, _png_of(data, kept), where)
        text = " ".join(str(error).split())[:200]
        raise InputError(f"{where}: damaged image ({text or type(error).__name__})") from None


def pixel_count(data: bytes) -> int:
    """Width x height as the header of an encoded image states them; 0 if it cannot be read."""
    reader = _reader(data)
    with contextlib.suppress(Exception):  # decoders raise many types for damaged data
        if reader is not None:
            with reader(io.BytesIO(data)) as image:
                return int(image.size[0] * image.size[1])
    return 0


def extension(data: bytes) -> str:
    """The file name extension of an encoded image: ".jpg", ".png" or ".webp"; "" for other formats."""
    extensions = {JpegImageFile: ".jpg", PngImageFile: ".png", WebPImageFile: ".webp"}
    reader = _reader(data)
    return extensions[reader] if reader else ""


def upright(image: Image.Image) -> Image.Image:
    """Returns the image turned as its EXIF or XMP orientation states."""
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # a damaged EXIF block does not affect the pixels
        return image


def _pixels(reader: _Reader, data: bytes, where: str) -> Image.Image:
    # Image.open would warn about large images instead of rejecting them, so the format's class is used.
    with reader(io.BytesIO(data)) as image:
        width, height = image.size
        if width * height > MAX_PIXELS:
            raise InputError(f"{where}: {width} x {height} pixels, expected at most {MAX_PIXELS:,} in all")
        return _on_white(upright(_with_alpha(image, data)))


def _png_of(data: bytes, kept: tuple[bytes, ...]) -> bytes:
    """A PNG with its critical chunks and those of the types `kept`. Every other chunk is dropped: text, color profile,
    time, ... do not change pixels here."""
    parts, at = [data[:8]], 8
    while at < len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")  # length, type, content, checksum
        name = data[at + 4 : at + 8]
        if name[:1].isupper() or name in kept:
            parts.append(data[at:end])
        at = end
    return b"".join(parts)


def _reader(data: bytes) -> _Reader | None:
    if data.startswith(b"\xff\xd8\xff"):
        return JpegImageFile
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return PngImageFile
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return WebPImageFile
    return None


def _with_alpha(image: Image.Image, data: bytes) -> Image.Image:
    """The loaded image; the transparent color (tRNS) of a gray or RGB PNG becomes an alpha channel.

    Pillow compares that color, in the file's bits, with pixels that it scaled to 8 bits [ours].
    """
    key = image.info.pop("transparency", None) if isinstance(image, PngImageFile) and image.mode != "P" else None
    if key is None:
        image.load()
        return image
    depth = data[24]  # bits of a channel, in the header that begins the file
    if image.mode == "RGB":
        wanted = np.array(key) & (2**depth - 1)
        pixels = _samples(image, data, "RGB;16L" if depth == 16 else "")
    elif depth == 16:
        wanted, pixels = np.array(key), np.asarray(image)[..., None]
    else:  # Pillow scales 1, 2 and 4 bits to the range of 8, and the key of 1 bit
        wanted = np.array((key & (2**depth - 1)) * (255 // (2**depth - 1)) if depth > 1 else key)
        pixels = np.asarray(image.convert("L"))[..., None]
    opaque = (pixels != wanted).any(axis=-1)
    keyed = _eight_bits(image).convert("RGB")
    keyed.putalpha(Image.fromarray(np.where(opaque, 255, 0).astype(np.uint8)))
    return keyed


def _samples(image: Image.Image, data: bytes, low_bytes: str) -> npt.NDArray[np.integer]:
    """The RGB samples of a PNG. Of 16 bits Pillow reads the high byte; the raw mode `low_bytes` reads the low one."""
    pixels = np.asarray(image)
    if not low_bytes:
        return pixels
    with PngImageFile(io.BytesIO(data)) as second:
        second.tile = [tile._replace(args=low_bytes) for tile in second.tile]
        return pixels.astype(np.uint16) << 8 | np.asarray(second)


def _eight_bits(image: Image.Image) -> Image.Image:
    """The image with at most 8 bits a channel."""
    return image.point(lambda value: value / 256).convert("L") if image.mode.startswith("I") else image


def _on_white(image: Image.Image) -> Image.Image:
    image = _eight_bits(image)
    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")
