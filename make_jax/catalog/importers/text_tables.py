"""Guesses the encoding and the separator of a text table, and states both."""

import codecs
import csv
import re
from pathlib import Path

from make_jax.catalog.importers.tables import MAX_LINE, Csv, JsonLines
from make_jax.catalog.text import shortened
from make_jax.errors import InputError

_CHINESE = ("gb18030", r"[\u4e00-\u9fff\u3000-\u303f\uff00-\uffef]")  # and the characters that are expected in it
_JAPANESE = ("cp932", r"[\u4e00-\u9fff\u3000-\u30ff\uff00-\uff60]")
_KANA = re.compile(r"[\u3040-\u30ff]")  # in no Chinese text, and not what GB 18030 becomes if it is read as cp932
_WESTERN = ("cp1252", r"[\xa0-\xff€–—‘’“”™]")
SAMPLE = 1 << 20  # bytes from which the encoding and the separator are guessed
SEPARATORS = (",", "\t", ";", "|")  # of equally good ones the first is taken
_NAMES = {",": "comma", "\t": "tab", ";": "semicolon", "|": "vertical bar"}
_BOMS = ((codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
_BINARY = (b"PK\x03\x04", b"PAR1", b"\x1f\x8b", b"\xd0\xcf\x11\xe0", b"%PDF")
_EXCEL_HINT = re.compile(r"sep=(.)\r?\n?")  # Excel's line before the header


def delimited(path: Path, encoding: str = "", separator: str = "") -> tuple[Csv, str]:
    """A table of separated values, and how it is read: "UTF-8, separated by comma".

    `encoding` and `separator` "" are guessed. Raises InputError for a text in no known encoding.
    """
    if len(separator) > 1 or (separator in ('"', "\r", "\n", " ") and separator):
        raise InputError(f"option --separator: found {separator!r}, expected one character such as ; or tab")
    encoding, text = _encoding(path, encoding)
    hint = _EXCEL_HINT.match(text)
    text = text[hint.end() :] if hint else text
    separator = separator or (hint[1] if hint else _separator(text, path.suffix.lower() == ".tsv"))
    table = Csv(path, (), separator, encoding=encoding, skip=1 if hint else 0, pad=True)
    return table, f"{encoding.upper()}, separated by {_NAMES.get(separator, separator)}"


def json_lines(path: Path, encoding: str = "") -> tuple[JsonLines, str]:
    """A table of JSON lines, and how it is read."""
    encoding, _ = _encoding(path, encoding)
    return JsonLines(path, encoding), encoding.upper()


def _encoding(path: Path, encoding: str) -> tuple[str, str]:
    """The encoding of a file and the text of its first bytes: the given one, that of its mark, or UTF-8.

    No other encoding is guessed, because many read any bytes and give wrong letters; the error names the likely one.
    """
    with path.open("rb") as file:
        data = file.read(SAMPLE)
    if data.startswith(_BINARY) or (not encoding and b"\0" in data and not data.startswith(tuple(m for m, _ in _BOMS))):
        if not data.startswith(_BINARY) and (name := _utf16(data)):
            text = f"UTF-16 without a byte-order mark, expected UTF-8; add --encoding {name}"
            raise InputError(f"{path}: {text}, or save it as UTF-8 (in Excel: CSV UTF-8)")
        raise InputError(f"{path}: no text, expected lines of text in UTF-8, or the file name extension of its format")
    if encoding:
        encoding = _known(encoding)
    else:
        encoding = next((name for mark, name in _BOMS if data.startswith(mark)), "utf-8")
    try:
        text = codecs.getincrementaldecoder(encoding)().decode(data, len(data) < SAMPLE)
    except UnicodeError as error:
        at = getattr(error, "start", 0)
        line = data[:at].count(b"\n") + 1
        raise InputError(f"{path}:{line}: not {encoding.upper()} at byte {at + 1}, {_suggestion(data, at)}") from None
    return encoding, text.removeprefix("\ufeff")


def _utf16(data: bytes) -> str:
    """The form of UTF-16 in which ASCII letters have zeros where `data` has them; "" if most bytes of no half are."""
    halves = {"utf-16-le": data[1::2], "utf-16-be": data[::2]}
    return next((name for name, half in halves.items() if 2 * half.count(0) > len(half)), "")


def _known(encoding: str) -> str:
    try:
        "".encode(encoding)  # LookupError for codecs between bytes too, such as hex
        return codecs.lookup(encoding).name
    except (LookupError, UnicodeError):
        text = f"option --encoding: found {encoding!r}, expected a known one such as utf-8, gb18030 or cp1252"
        raise InputError(text) from None


def _suggestion(data: bytes, at: int) -> str:
    """The likely encoding of a text that is not UTF-8, with the words around `at` as it reads them."""
    start = data.rfind(b"\n", 0, at) + 1
    end = data.find(b"\n", at)
    line = data[start : end if end > 0 else len(data)]
    advice = "save it as UTF-8 (in Excel: CSV UTF-8)"
    runs = re.findall(rb"[\x80-\xff]+", line)
    # Chinese has two bytes a character; accents of western languages stand alone among ASCII letters.
    likely = [_JAPANESE, _CHINESE, _WESTERN] if sum(len(run) > 1 for run in runs) > len(runs) / 2 else [_WESTERN]
    for encoding, pattern in likely:
        try:
            text = line.decode(encoding)
        except UnicodeDecodeError:
            continue
        if encoding == _JAPANESE[0] and not _KANA.search(text):
            continue
        foreign = [letter for letter in text if not letter.isascii()]
        if foreign and sum(bool(re.match(pattern, letter)) for letter in foreign) > 0.9 * len(foreign):
            word = next(word for word in re.split(r"[\s,;\t|\"]+", text) if not word.isascii())
            return f"expected UTF-8; --encoding {encoding} would read {shortened(word, 30)!r}; or {advice}"
    return f"expected UTF-8; name the encoding with --encoding, or {advice}"


def _separator(text: str, is_tsv: bool) -> str:
    """The separator that gives the most fields, the same number in every record of the sample."""
    best, best_score = ",", (0.0, 0)
    complete = text[: text.rfind("\n") + 1] or text
    for separator in ("\t", *SEPARATORS) if is_tsv else SEPARATORS:
        widths = _widths(complete, separator)
        if not widths or widths[0] < 2:
            continue
        score = (round(sum(width == widths[0] for width in widths) / len(widths), 1), widths[0])
        if score > best_score:
            best, best_score = separator, score
    return "\t" if is_tsv and not best_score[1] else best


def _widths(text: str, separator: str) -> list[int]:
    """Numbers of fields of the first records."""
    csv.field_size_limit(MAX_LINE)
    widths: list[int] = []
    try:
        for fields in csv.reader(text.splitlines(keepends=True)[:200], delimiter=separator):
            if fields:
                widths.append(len(fields))
    except csv.Error:
        pass
    return widths
