"""Characters of the scripts that word boundaries depend on, as parts of regular expression character classes.

Python's `\\w` lacks combining marks, such as the vowel signs of Thai, Hindi and Arabic, so it cuts words at them.
"""

import unicodedata


def _ranges(points: list[int]) -> str:
    """Code points in ascending order as ranges of a character class."""
    starts = [i for i, point in enumerate(points) if i == 0 or points[i - 1] != point - 1]
    ends = [i - 1 for i in starts[1:]] + [len(points) - 1]
    return "".join(f"{chr(points[a])}-{chr(points[b])}" for a, b in zip(starts, ends, strict=True))


# Mn and Mc: a mark belongs to the letter or mark before it. Variation selectors are left out: they choose the look of
# the character before, as in emoji; no other mark
# is above U+1FFFF.
_SELECTORS = {*range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0), *range(0x180B, 0x1810)}
MARKS = _ranges([i for i in range(0x20000) if unicodedata.category(chr(i)) in ("Mn", "Mc") and i not in _SELECTORS])

# Scripts written without spaces between words: Chinese and Japanese, of characters; Thai, Lao, Burmese and Khmer, of
# letters with marks.
IDEOGRAPHIC = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
SOUTHEAST_ASIAN = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"

# Soft hyphen, zero-width joiner and non-joiner, word joiner, byte-order mark: inside a word they shape letters
# (Persian, Hindi) or concern line breaks, so words with and without them are equal. A zero-width space is a separator.
JOINERS = "\xad\u200c\u200d\u2060\ufeff"
