"""Fonts for pictures: DejaVu Sans, which comes with matplotlib, and a Chinese font if one is installed."""

import functools
from pathlib import Path

from PIL import ImageFont

_CHINESE = (
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "Noto Sans SC",
    "Source Han Sans SC",
    "Source Han Sans CN",
    "PingFang SC",
    "Hiragino Sans GB",
    "Heiti SC",
    "STHeiti",
    "Songti SC",
    "WenQuanYi Zen Hei",
    "WenQuanYi Micro Hei",
    "Droid Sans Fallback",
    "Arial Unicode MS",
    "Hiragino Sans",
)

_MAX_CHECKED = 1000  # characters of a text that decide its font, more than a picture shows


class Fonts:
    """Selects a font that has the characters of a text."""

    def __init__(self) -> None:
        import matplotlib
        from matplotlib import font_manager

        bundled = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
        self._regular, self._bold = bundled / "DejaVuSans.ttf", bundled / "DejaVuSans-Bold.ttf"
        installed = {font.name: Path(font.fname) for font in font_manager.fontManager.ttflist}
        self._chinese = [installed[name] for name in _CHINESE if name in installed]

    def covers(self, text: str) -> bool:
        """Returns whether one font has every character of `text`."""
        return any(_has(path, text) for path in (self._regular, *self._chinese))

    def for_text(self, text: str, size: int, *, bold: bool = False) -> ImageFont.FreeTypeFont:
        """Returns a font of `size` pixels for `text`; DejaVu Sans, with boxes for missing characters, if none fits."""
        default = self._bold if bold else self._regular
        return _loaded(next((path for path in (default, *self._chinese) if _has(path, text)), default), size)


def wrap(text: str, font: ImageFont.FreeTypeFont, width: int, lines: int) -> list[str]:
    """Returns at most `lines` lines of at most `width` pixels, broken at spaces if possible; "…" marks a cut.

    The time is bounded by `lines` and `width`, however long the text is.
    """
    out: list[str] = []
    rest = " ".join(text.split())[: lines * width + 1]  # a character has one pixel or more, else the line is cut early
    while rest:
        end = min(len(rest), width)
        while end > 1 and font.getlength(rest[:end]) > width:
            end -= 1
        if end < len(rest):
            space = rest.rfind(" ", 1, end + 1)
            end = space if space > 0 else end
        if len(out) == lines - 1 and end < len(rest):
            while end > 1 and font.getlength(rest[:end].rstrip() + "…") > width:
                end -= 1
            return [*out, rest[:end].rstrip() + "…"]
        out.append(rest[:end])
        rest = rest[end:].lstrip()
    return out


@functools.cache
def _loaded(path: Path, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(path), size)


@functools.cache
def _characters(path: Path) -> frozenset[int]:
    from matplotlib.ft2font import FT2Font

    return frozenset(FT2Font(str(path)).get_charmap())


def _has(path: Path, text: str) -> bool:
    characters = _characters(path)
    text = text[:_MAX_CHECKED]
    return all(ord(character) in characters or character.isspace() for character in text)
