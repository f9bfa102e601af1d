"""Encoded pictures to pixels, for pictures that nobody has vouched for."""

import io

from PIL import Image, ImageOps
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from make_jax.errors import InputError

MAX_BYTES = 64 << 20  # of an encoded picture
MAX_PIXELS = 64_000_000  # width x height; a picture that claims more is not decoded


def decode(data: bytes, where: str) -> Image.Image:
    """The picture as RGB, turned upright by its EXIF orientation, transparent parts on white; first frame only.

    Only JPEG, PNG and WebP are read, and size is checked before any pixel is decoded. Raises InputError, naming
    `where`, for anything else, for a broken picture and for one of more than MAX_BYTES or MAX_PIXELS.
    """
    if len(data) > MAX_BYTES:
        raise InputError(f"{where}: {len(data):,} bytes, expected a picture of at most {MAX_BYTES:,}")
    reader = _reader(data)
    if reader is None:
        raise InputError(f"{where}: not a JPEG, PNG or WebP picture")
    try:
        # The reader's class is called, not Image.open: that one warns of large pictures instead of refusing them.
        with reader(io.BytesIO(data)) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise InputError(f"{where}: {width} x {height} pixels, expected at most {MAX_PIXELS:,} in all")
            image.load()
            return _on_white(_upright(image))
    except InputError:
        raise
    except Exception as error:  # decoders of broken data raise nearly every type there is
        text = " ".join(str(error).split())[:200]
        raise InputError(f"{where}: broken picture ({text or type(error).__name__})") from None


def extension(data: bytes) -> str:
    """The ending of a file name for an encoded picture: ".jpg", ".png" or ".webp"; "" when it is none of them."""
    endings = {JpegImageFile: ".jpg", PngImageFile: ".png", WebPImageFile: ".webp"}
    reader = _reader(data)
    return endings[reader] if reader else ""


def _reader(data: bytes) -> type[JpegImageFile] | type[PngImageFile] | type[WebPImageFile] | None:
    if data.startswith(b"\xff\xd8\xff"):
        return JpegImageFile
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return PngImageFile
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return WebPImageFile
    return None


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # a broken EXIF block says nothing about the pixels
        return image


def _on_white(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits a pixel
        image = image.point(lambda value: value / 256).convert("L")
    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")
