"""Reads the cells of a table that a shop exported: numbers, prices with a currency, booleans, lists, HTML."""

import datetime
import json
import re
import unicodedata
from collections.abc import Iterable
from decimal import Decimal
from html import unescape
from html.parser import HTMLParser
from typing import Any

from make_jax.catalog.text import strip_text

Number = int | float

# Unambiguous symbols become ISO 4217 codes. "$" and "¥" stand for several currencies and are kept.
CURRENCIES = {
    "€": "EUR", "£": "GBP", "₹": "INR", "₩": "KRW", "₽": "RUB", "₺": "TRY", "₫": "VND", "₱": "PHP", "฿": "THB",
    "₪": "ILS", "₴": "UAH", "₦": "NGN", "zł": "PLN", "kč": "CZK", "元": "CNY", "人民币": "CNY", "rmb": "CNY",
    "円": "JPY", "us$": "USD", "a$": "AUD", "au$": "AUD", "c$": "CAD", "ca$": "CAD", "hk$": "HKD", "nt$": "TWD",
    "s$": "SGD", "r$": "BRL", "$": "$", "¥": "¥", "kr": "kr", "rs": "Rs", "rs.": "Rs",
}  # fmt: skip
TRUE = frozenset(("true", "yes", "ja", "oui", "si", "sí", "sim", "是", "有", "对", "真", "✓", "✔"))
FALSE = frozenset(("false", "no", "nein", "non", "não", "否", "无", "没有", "错", "假", "✗", "✘"))

_AMOUNT = re.compile(r"(?P<before>[^\d+-]*)(?P<digits>[+-]?\s?\d(?:[\d.,'’\s]*\d)?)(?P<after>[^\d]*)")
_GROUPS = re.compile(r"\d{1,3}(?:[.,'’\s]\d{2,3})*[.,'’\s]\d{3}")  # 1,299,000 and 12,99,000
_CODE = re.compile(r"[A-Z]{3}")
_MAX_DIGITS = 40
_COMMA = re.compile(r"\d,\d{1,2}(?!\d)|\d\.\d{3},\d")  # only a decimal comma explains it
_POINT = re.compile(r"\d\.\d{1,2}(?!\d)|\d,\d{3}\.\d")
_MARKUP = re.compile(r"</?[A-Za-z!][^>]*>|&(?:#\d+|#x[0-9A-Fa-f]+|\w+);")


def decimal_mark(values: Iterable[str]) -> str:
    """ "," if more values can only be read with a decimal comma than with a decimal point, otherwise "."."""
    texts = list(values)
    commas, points = (sum(bool(mark.search(text)) for text in texts) for mark in (_COMMA, _POINT))
    return "," if commas > points else "."


def number(text: str, decimal: str = ".") -> Number | None:
    """The number in a text such as "1,299.00", "1 299" or "12,50"; None if it is no number.

    `decimal` decides where both readings are possible: with ".", "1,299" is 1299 and "1.299" is 1.299; with "," it is
    the other way around.
    """
    found = price(text, decimal)
    return found[0] if found and not found[1] else None


def price(text: str, decimal: str = ".") -> tuple[Number, str] | None:
    """The amount and its currency ("USD", "$" for a symbol of several currencies, "" without); None for no amount."""
    text = unicodedata.normalize("NFKC", text).strip()
    match = _AMOUNT.fullmatch(text) if len(text) <= _MAX_DIGITS else None
    if match is None:
        return None
    amount = _amount(match["digits"].replace(" ", ""), decimal)
    after = re.sub(r"^\s*[.,]?-", "", match["after"])  # "CHF 12.-"
    currency = _currency([word for part in (match["before"], after) if (word := "".join(part.split()))])
    return None if amount is None or currency is None else (amount, currency)


def _currency(words: list[str]) -> str | None:
    """The currency of the words around an amount: "" without words, None if they are no currency, or two. A code
    precedes a symbol that may stand for it, as in "$12 USD"."""
    parts = [part for word in words for part in _currency_parts(word)]
    found = [CURRENCIES.get(part.casefold()) or (part if _CODE.fullmatch(part) else None) for part in parts]
    codes = {currency for part, currency in zip(parts, found, strict=True) if _CODE.fullmatch(part)}
    rest = {currency for currency in found if currency not in codes}
    if (
        None in found
        or len(codes) > 1
        or len(rest) > 1
        or (codes and any(_CODE.fullmatch(currency or "") for currency in rest))
    ):
        return None
    return next(iter(codes or rest), "")


def _currency_parts(word: str) -> list[str]:
    """A symbol or code; both if they are joined, as in "USD$"."""
    if word.casefold() not in CURRENCIES and (match := re.fullmatch(r"([A-Z]{3})(\W+)|(\D+?)([A-Z]{3})", word)):
        return [part for part in match.groups() if part]
    return [word]


def _amount(digits: str, decimal: str) -> Number | None:
    sign = -1 if digits.startswith("-") else 1
    digits = re.sub(r"['’\s]", "", digits.lstrip("+-"))
    marks = [mark for mark in ",." if mark in digits]
    integer, fraction = digits, ""
    if len(marks) == 2 or (len(marks) == 1 and digits.count(marks[0]) == 1 and _is_decimal(digits, marks[0], decimal)):
        last = max(digits.rfind(mark) for mark in marks)
        integer, fraction = digits[:last], digits[last + 1 :]
    if not integer.isdecimal() and not _GROUPS.fullmatch(integer):
        return None
    if len({mark for mark in integer if mark in ",."}) > 1:
        return None
    plain = re.sub(r"[.,]", "", integer)
    return sign * (float(f"{plain}.{fraction}") if fraction else int(plain))


def _is_decimal(digits: str, mark: str, decimal: str) -> bool:
    """Whether the only mark of a number separates its decimals, not its thousands."""
    return mark == decimal or not _GROUPS.fullmatch(digits)


def boolean(text: str) -> bool | None:
    """True or False for a word of TRUE or FALSE, None for any other text."""
    word = text.strip().casefold()
    return True if word in TRUE else False if word in FALSE else None


def texts(value: str, separators: str = ",;，；、") -> list[str]:
    """The distinct parts of a list in one cell, in order; a JSON list of strings is read as one."""
    if value.lstrip().startswith("["):
        try:
            parts = json.loads(value)
        except ValueError:
            parts = None
        if isinstance(parts, list) and all(isinstance(part, str) for part in parts):
            return list(dict.fromkeys(text for part in parts if (text := strip_text(part))))
    parts = re.split(f"[{re.escape(separators)}]", value)
    return list(dict.fromkeys(text for part in parts if (text := strip_text(part))))


def plain_value(value: Any) -> Any:
    """A value of a typed table as in a text table: decimals are numbers, dates and times are ISO 8601 texts."""
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, datetime.datetime) and value.time() == datetime.time():
        return value.date().isoformat()
    if isinstance(value, datetime.date | datetime.time | datetime.timedelta):
        return str(value)
    return value


def category_levels(text: str) -> list[str]:
    """The levels of a category, separated by ">", "|", "»" or "/" between spaces."""
    parts = re.split(r"\s*[>|›»]\s*|\s+/\s+", plain_text(text))
    return [level for part in parts if (level := strip_text(part))]


def image_names(text: str) -> list[str]:
    """The paths or URLs in a cell, separated by "|", ";", line ends, or commas between two of them: both may have a
    comma inside."""
    if text.startswith("["):
        return texts(text)
    parts = re.split(r"[|;\n]|,(?=\s*(?:https?:)?//)|(?i:(?<=\.jpg)|(?<=\.jpeg)|(?<=\.png)|(?<=\.webp)),", text)
    return [name for part in parts if (name := strip_text(part))]


class _Text(HTMLParser):
    """Collects the text of HTML; elements that begin a line are separated by a space."""

    HIDDEN = frozenset(("script", "style", "template", "noscript", "head"))
    INLINE = frozenset(("a", "abbr", "b", "big", "cite", "code", "em", "font", "i", "ins", "kbd", "mark", "q", "s"))
    INLINE |= frozenset(("small", "span", "strong", "sub", "sup", "u"))

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self._hidden = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Begins hidden content, or a line."""
        self._hidden += tag in self.HIDDEN
        self.parts.append("" if tag in self.INLINE else " ")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Begins a line; <script/> hides nothing."""
        self.parts.append("" if tag in self.INLINE else " ")

    def handle_endtag(self, tag: str) -> None:
        """Ends hidden content, or a line."""
        self._hidden = max(0, self._hidden - (tag in self.HIDDEN))
        self.parts.append("" if tag in self.INLINE else " ")

    def handle_data(self, data: str) -> None:
        """Adds text."""
        if not self._hidden:
            self.parts.append(data)


def plain_text(html: str) -> str:
    """The text of HTML on one line, without elements, scripts and styles; a text without markup as it is."""
    if not _MARKUP.search(html):
        return strip_text(html)
    parser = _Text()
    parser.feed(html)
    parser.close()
    text = " ".join("".join(parser.parts).split())
    return strip_text(unescape(text) if "&amp;" in html else text)  # exports escape entities twice: "&amp;eacute;"
