"""`decode`: pixels of untrusted images."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from make_jax.catalog import images
from make_jax.catalog.images import decode
from make_jax.errors import InputError


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def noise(width: int = 40, height: int = 30) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8))


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(depth: int, color: int, row: bytes, width: int, *chunks: bytes) -> bytes:
    """A PNG of one unfiltered row of samples, with other chunks before its pixels."""
    header = struct.pack(">IIBBBBB", width, 1, depth, color, 0, 0, 0)
    parts = (chunk(b"IHDR", header), *chunks, chunk(b"IDAT", zlib.compress(b"\0" + row)), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def png_that_claims(width: int, height: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize(("kind", "options"), [("PNG", {}), ("WEBP", {"lossless": True}), ("JPEG", {"quality": 95})])
def test_reads_jpeg_png_and_webp(kind: str, options: dict[str, object]) -> None:
    image = decode(encoded(noise(), kind, **options), "x")
    assert image.mode == "RGB" and image.size == (40, 30)
    if kind != "JPEG":
        assert np.array_equal(np.asarray(image), np.asarray(noise()))


@pytest.mark.parametrize("size", [(20_000, 20_000), (9_000, 8_000), (2**31 - 1, 1)])
def test_a_decompression_bomb_is_rejected_before_decoding(size: tuple[int, int]) -> None:
    with pytest.raises(InputError, match=r"images/bomb.png: \d+ x \d+ pixels, expected at most 64,000,000"):
        decode(png_that_claims(*size), "images/bomb.png")


def test_a_large_webp_is_rejected() -> None:
    data = bytearray(encoded(noise().convert("RGBA"), "WEBP", lossless=True))
    extended = b"VP8X" + struct.pack("<I", 10) + bytes(4) + (16382).to_bytes(3, "little") * 2
    data[12:12] = extended
    struct.pack_into("<I", data, 4, len(data) - 8)
    with pytest.raises(InputError, match=r"x\.webp"):
        decode(bytes(data), "x.webp")


def test_too_many_bytes_are_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(noise(), "PNG")
    monkeypatch.setattr(images, "MAX_BYTES", len(data) - 1)
    with pytest.raises(InputError, match="expected an image of at most"):
        decode(data, "x")


@pytest.mark.parametrize("data", [b"", b"GIF89a", b"<svg/>", encoded(noise(), "BMP"), encoded(noise(), "GIF"), b"RIFF"])
def test_only_jpeg_png_and_webp_are_read(data: bytes) -> None:
    with pytest.raises(InputError, match="images/a: not a JPEG, PNG or WebP image"):
        decode(data, "images/a")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("part", [0.1, 0.5, 0.9])
def test_a_truncated_image_is_rejected(kind: str, part: float) -> None:
    data = encoded(noise(200, 200), kind)
    with pytest.raises(InputError, match=r"images/a: damaged image \(.+\)"):
        decode(data[: int(part * len(data))], "images/a")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_damaged_bytes_raise_only_input_errors(kind: str) -> None:
    rng = np.random.default_rng(1)
    data = encoded(noise(), kind)
    for _ in range(200):
        broken = bytearray(data)
        for at in rng.integers(3 if kind == "JPEG" else 12, len(data), 3):
            broken[at] = rng.integers(0, 256)
        try:
            decode(bytes(broken), "x")
        except InputError as error:
            assert str(error).startswith("x: ")


def test_transparent_parts_become_white() -> None:
    image = Image.new("RGBA", (2, 1), (255, 0, 0, 255))
    image.putpixel((1, 0), (0, 0, 255, 0))
    for data in (encoded(image, "PNG"), encoded(image, "WEBP", lossless=True)):
        assert [decode(data, "x").getpixel((x, 0)) for x in (0, 1)] == [(255, 0, 0), (255, 255, 255)]
    half = encoded(Image.new("RGBA", (1, 1), (0, 0, 0, 128)), "PNG")
    assert decode(half, "x").getpixel((0, 0)) == (127, 127, 127)
    palette = Image.new("RGB", (1, 1)).quantize()
    assert decode(encoded(palette, "PNG", transparency=0), "x").getpixel((0, 0)) == (255, 255, 255)


GRAY, RGB, INDEXED, BLACK, WHITE = 0, 2, 3, (0, 0, 0), (255, 255, 255)
PALETTE = chunk(b"PLTE", bytes([0, 0, 0, 9, 9, 9, 200, 0, 0, 9, 9, 9]))


@pytest.mark.parametrize(
    ("depth", "color", "row", "key", "expected"),
    [
        (1, GRAY, b"\x40", b"\0\1", [BLACK, WHITE]),
        (1, GRAY, b"\x40", b"\0\0", [WHITE, WHITE]),
        (2, GRAY, b"\x10", b"\0\1", [BLACK, WHITE]),
        (4, GRAY, b"\x07", b"\0\7", [BLACK, WHITE]),
        (4, GRAY, b"\x67", b"\0\7", [(102, 102, 102), WHITE]),
        (8, GRAY, b"\0\x80", b"\0\x80", [BLACK, WHITE]),
        (16, GRAY, b"\0\0\x80\0", b"\x80\0", [BLACK, WHITE]),
        (16, GRAY, b"\x80\1\x80\0", b"\x80\0", [(128, 128, 128), WHITE]),
        (8, RGB, bytes([7, 8, 9, 7, 8, 8]), bytes([0, 7, 0, 8, 0, 8]), [(7, 8, 9), WHITE]),
        (16, RGB, bytes([7, 0, 8, 0, 9, 1, 7, 0, 8, 0, 9, 0]), bytes([7, 0, 8, 0, 9, 0]), [(7, 8, 9), WHITE]),
        (1, INDEXED, b"\x40", b"\xff\0", [BLACK, WHITE]),
        (2, INDEXED, b"\x90", b"\xff\0\xff", [(200, 0, 0), WHITE]),
        (4, INDEXED, b"\x02", b"\xff\xff\0", [BLACK, WHITE]),
        (8, INDEXED, b"\2\0", b"\0", [(200, 0, 0), WHITE]),
    ],
)
def test_the_transparent_color_of_a_png_becomes_white(
    depth: int, color: int, row: bytes, key: bytes, expected: list[tuple[int, int, int]]
) -> None:
    palette = (PALETTE,) if color == INDEXED else ()
    image = decode(png(depth, color, row, 2, *palette, chunk(b"tRNS", key)), "x")
    assert [image.getpixel((x, 0)) for x in (0, 1)] == expected


LONG = zlib.compress(bytes(2 << 20))  # more than Pillow accepts
WRONG = struct.pack(">I", 3) + b"tEXt" + b"a\0b" + bytes(4)  # a wrong checksum


@pytest.mark.parametrize(
    "metadata",
    [
        chunk(b"zTXt", b"Comment\0\0" + LONG),
        chunk(b"iTXt", b"XML\0\1\0\0\0" + LONG),
        chunk(b"iCCP", b"profile\0\0" + LONG),
        chunk(b"zTXt", b"Comment\0\7" + LONG),  # an unknown compression method
        chunk(b"gAMA", b"\0"),
        WRONG,
        WRONG.replace(b"tEXt", b"eXIf"),
        WRONG.replace(b"tEXt", b"tIME"),
    ],
)
def test_metadata_of_a_png_cannot_make_its_pixels_unreadable(metadata: bytes) -> None:
    key = chunk(b"tRNS", bytes([0, 7, 0, 8, 0, 8]))
    image = decode(png(8, RGB, bytes([7, 8, 9, 7, 8, 8]), 2, metadata, key), "x")
    assert [image.getpixel((x, 0)) for x in (0, 1)] == [(7, 8, 9), WHITE]


def test_a_checksum_of_pixels_or_palette_must_be_right() -> None:
    for broken in (WRONG.replace(b"tEXt", b"tRNS"), WRONG.replace(b"tEXt", b"PLTE")):
        with pytest.raises(InputError, match="damaged image"):
            decode(png(8, RGB, bytes(6), 2, broken), "x")


def test_the_transparent_color_follows_the_exif_orientation() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(Image.fromarray(np.arange(6, dtype=np.uint8).reshape(2, 3)), "PNG", transparency=0, exif=exif)
    image = decode(data, "x")
    assert image.size == (2, 3) and image.getpixel((1, 0)) == WHITE and image.getpixel((0, 2)) == (5, 5, 5)


def test_exif_orientation_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    image = decode(encoded(noise(40, 30), "JPEG", exif=exif), "x")
    assert image.size == (30, 40)


@pytest.mark.parametrize("mode", ["L", "LA", "P", "1", "I;16", "CMYK"])
def test_other_modes_become_rgb(mode: str) -> None:
    if mode == "I;16":
        image = Image.fromarray(np.full((4, 4), 51 * 257, np.uint16))
    else:
        image = Image.new("RGB", (4, 4), (51, 51, 51)).convert(mode)
    decoded = decode(encoded(image, "JPEG" if mode == "CMYK" else "PNG"), "x")
    assert decoded.mode == "RGB" and decoded.size == (4, 4)
    if mode not in ("1", "P"):
        assert np.abs(np.asarray(decoded).astype(int) - 51).max() <= 2
