"""Decodes untrusted images."""

import io

from PIL import Image, ImageOps
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from make_jax.errors import InputError

MAX_BYTES = 64 << 20  # of an encoded image
MAX_PIXELS = 64_000_000  # width x height; larger images are rejected before decoding


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
        # Image.open would warn about large images instead of rejecting them, so the format's class is used.
        with reader(io.BytesIO(data)) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise InputError(f"{where}: {width} x {height} pixels, expected at most {MAX_PIXELS:,} in all")
            image.load()
            return _on_white(_upright(image))
    except InputError:
        raise
    except Exception as error:  # decoders raise many types for damaged data
        text = " ".join(str(error).split())[:200]
        raise InputError(f"{where}: damaged image ({text or type(error).__name__})") from None


def extension(data: bytes) -> str:
    """The file name extension of an encoded image: ".jpg", ".png" or ".webp"; "" for other formats."""
    extensions = {JpegImageFile: ".jpg", PngImageFile: ".png", WebPImageFile: ".webp"}
    reader = _reader(data)
    return extensions[reader] if reader else ""


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
    except Exception:  # a damaged EXIF block does not affect the pixels
        return image


def _on_white(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits a pixel
        image = image.point(lambda value: value / 256).convert("L")
    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")
