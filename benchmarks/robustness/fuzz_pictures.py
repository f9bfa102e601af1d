"""Pictures and compressed bodies for `fuzz_requests.py`: valid, animated, damaged, of other formats, and bombs."""

import functools
import gzip
import io
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image

Named = tuple[str, bytes, bool]  # name, file, whether a server can search for it


@functools.cache
def small() -> list[Named]:
    """Files of some kilobytes."""
    pixels = np.random.default_rng(0).integers(256, size=(64, 48, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    frames = {"save_all": True, "append_images": [image.rotate(90, expand=False)] * 200, "duration": 20}
    jpeg, png, webp = _saved(image, "JPEG"), _saved(image, "PNG"), _saved(image, "WEBP")
    return [
        ("JPEG", jpeg, True),
        ("PNG", png, True),
        ("WebP", webp, True),
        ("gray JPEG", _saved(image.convert("L"), "JPEG"), True),
        ("CMYK JPEG", _saved(image.convert("CMYK"), "JPEG"), True),
        ("palette PNG", _saved(image.convert("P"), "PNG"), True),
        ("PNG of one pixel", _saved(image.resize((1, 1)), "PNG"), True),
        ("animated WebP", _saved(image, "WEBP", **frames), True),
        ("animated PNG", _saved(image, "PNG", **frames), True),
        ("animated GIF", _saved(image, "GIF", **frames), False),
        ("BMP", _saved(image, "BMP"), False),
        ("TIFF", _saved(image, "TIFF"), False),
        ("SVG as JPEG", b'<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"/>', False),
        ("HTML as JPEG", b"<html><script>alert(1)</script>", False),
        ("HTML behind a JPEG", jpeg + b"<script>alert(1)</script>", True),
        ("JPEG header alone", jpeg[:20], False),
        ("PNG header alone", png[:33], False),
        ("WebP header alone", webp[:30], False),
        ("nothing but zeros", bytes(5000), False),
    ]


@functools.cache
def bombs() -> list[Named]:
    """Files that are small and decode to many pixels; those of at most 64 million pixels are allowed."""
    allowed, forbidden = (7_900, 8_000), (30_000, 30_000)
    return [
        ("PNG of 63 million pixels", _png(*allowed, 2, 8), True),
        ("PNG of 63 million pixels with alpha", _png(*allowed, 6, 8), True),
        ("PNG of 63 million pixels of 16 bits", _png(*allowed, 2, 16), True),
        ("WebP of 63 million pixels", _saved(Image.new("RGB", allowed), "WEBP", method=0), True),
        ("JPEG of 63 million pixels", _saved(Image.new("RGB", allowed), "JPEG", progressive=True), True),
        ("PNG of 900 million pixels", _png(*forbidden, 2, 8, rows=10), False),
        ("PNG with a text of 200 MB", _png(8, 8, 2, 8, text=200_000_000), True),
        ("PNG of no width", _png(0, 8, 2, 8), False),
    ]


def gzipped(data: bytes) -> bytes:
    """The data, compressed."""
    return gzip.compress(data)


@functools.cache
def gzip_bomb() -> bytes:
    """A JSON text of 50 MB, compressed to 50 KB."""
    return gzip.compress(b'{"q": "' + b"a" * 50_000_000 + b'"}')


def _saved(image: Image.Image, format: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def _png(width: int, height: int, color: int, depth: int, rows: int | None = None, text: int = 0) -> bytes:
    """A black PNG with `rows` of its rows and a compressed text of so many bytes."""
    channels = {2: 3, 6: 4}[color]
    row = b"\x00" + bytes(width * channels * depth // 8)
    packer = zlib.compressobj(1)
    packed = b"".join(packer.compress(row) for _ in range(height if rows is None else rows)) + packer.flush()
    parts = [_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0))]
    if text:
        parts.append(_chunk(b"zTXt", b"a\x00\x00" + zlib.compress(bytes(text), 1)))
    return b"\x89PNG\r\n\x1a\n" + b"".join([*parts, _chunk(b"IDAT", packed), _chunk(b"IEND", b"")])


def _chunk(kind: bytes, content: bytes) -> bytes:
    body = kind + content
    return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))
