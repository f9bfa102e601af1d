"""Text as it is read, without white space and invisible characters at its ends; its forms for messages and queries."""

import re
import unicodedata

# Control characters, soft hyphen, zero-width and directional marks, fillers, byte-order mark. Variation selectors and
# tags are not stripped from an end, because they belong to the character before (flags), but alone they are no text.
_HIDDEN = "\0-\x1f\x7f-\xa0\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\u2800"
_HIDDEN += "\u3164\ufeff\uffa0\ufff9-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
_HIDDEN_START = re.compile(rf"[\s{_HIDDEN}]+")
_HIDDEN_END = re.compile(rf"[\s{_HIDDEN}]")
_NOTHING = re.compile(rf"[\s{_HIDDEN}\u180b-\u180f\ufe00-\ufe0f\U000e0000-\U000e0fff]*")


def strip_text(text: str) -> str:
    """The text without white space and invisible characters at its ends; "" if it has nothing else."""
    if text.isascii() and text.isprintable():
        return text.strip()
    if _NOTHING.fullmatch(text):
        return ""
    end = len(text)
    while _HIDDEN_END.match(text, end - 1):
        end -= 1
    start = _HIDDEN_START.match(text)
    return text[start.end() if start else 0 : end]


def shortened(text: str, length: int = 100) -> str:
    """The text on one line, cut to `length` characters; the last three are "..." if it was longer."""
    text = " ".join(text.split())
    return text if len(text) <= length else text[: length - 3] + "..."


def normalize_query(text: str) -> str:
    """Returns the text in NFKC, lower case, with single spaces; equal for texts that count as the same query."""
    return " ".join(unicodedata.normalize("NFKC", text).lower().split())
