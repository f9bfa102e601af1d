"""A folder of pictures whose file names are titles: shoes/red-leather-boots-02.jpg is "red leather boots" in "shoes".

Sellers' files are named by hand, by shop systems and by cameras [ours]:

* separators (_ - . + and %20) are spaces; "redLeatherBoots" is three words
* ids at the end are removed: numbers with a leading zero or four digits, sizes ("800x800"), hexadecimal digests, "(2)",
  "copy"; a short number ("iphone 13") stays unless it counts pictures of one name from 0 or 1 ("boots-1", "boots-2")
* a name without a word ("IMG_2041", "photo") is no title; the picture alone is the product
* the folders are the category; if those at the top are named like splits ("train", "test"), they are the splits

Pictures with one title in one folder share a group, and so a split.
"""

import argparse
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from make_jax.catalog.importers.benchmark_info import BenchmarkInfo
from make_jax.catalog.importers.columns import Column
from make_jax.catalog.importers.image_folder import SUFFIXES
from make_jax.catalog.importers.import_state import ImportState, SourceChanged
from make_jax.catalog.importers.rows import Row, short_digest
from make_jax.catalog.importers.table import read_columns
from make_jax.catalog.source import Folder
from make_jax.errors import InputError

_SPLITS = frozenset(("train", "val", "valid", "validation", "dev", "test"))
_CAMEL = re.compile(r"(?<=[a-zß-ÿ])(?=[A-Z])")
_SEPARATORS = re.compile(r"[_\-.+\s]+")
_CODE = re.compile(r"0\d+|\d{4,}|\d+x\d+|(?=[a-f]*\d)[0-9a-f]{8,}|\(\d+\)|copy|scaled|thumb|large|small", re.IGNORECASE)
_FIRST_CODE = re.compile(r"\d{5,}|(?=[a-f]*\d)[0-9a-f]{8,}", re.IGNORECASE)
_COUNTED = re.compile(r"(.*\D)[_\-.\s]+\d{1,3}")
_NO_TITLES = frozenset(  # what cameras, phones and browsers call a picture
    re.findall(
        r"\w+",
        "img image images photo photos pic pics picture pictures dsc dscn dscf dcim pxl mvimg scan screenshot untitled "
        "unnamed file upload product item front back side main detail whatsapp wechat mmexport 图片 照片 微信图片",
    )
)


def add_options(command: argparse.ArgumentParser) -> None:
    """Adds the options of this format."""
    text = "regular expression of the file name without extension; its group `title` (or `id`) is the title (or id)"
    command.add_argument("--pattern", default="", metavar="REGEX", help=text)
    command.add_argument("--keep-numbers", action="store_true", help="keep numbers and ids at the ends of names")
    command.add_argument("--no-categories", action="store_true", help="the folders are no categories")


def read(state: ImportState, options: argparse.Namespace) -> BenchmarkInfo:
    """Reads the pictures below the folder `options.source`."""
    if not options.source.is_dir():
        raise InputError(f"{options.source}: no folder, expected one of pictures")
    folder = Folder(options.source)
    names = sorted(name for name in folder.sizes if PurePosixPath(name).suffix.lower() in SUFFIXES)
    if not names:
        raise InputError(f"{options.source}: no picture, expected {', '.join(SUFFIXES)} files in it or its folders")
    others = len(folder.sizes) - len(names)
    pictures = Pictures(options.source.name, tuple(names), _pattern(options.pattern), options.keep_numbers)
    _check_unchanged(state, short_digest("".join(f"{name}\0{folder.sizes[name]}\0" for name in names)))
    columns = [Column(name, name, "the file") for name in ("id", "image", "title", "group", "split")]
    if not options.no_categories:
        columns.append(Column("category", "category", "the folders"))
    options.images = None
    unread = ((others, "other files"), (len(folder.links), "links"))
    skipped = "".join(f"; not read: {count:,} {what}" for count, what in unread if count)
    return read_columns(state, options, [pictures], columns, f"{len(names):,} pictures{skipped}")


@dataclass
class Pictures:
    """One row a picture. The files themselves are read later."""

    folder: str  # its name
    names: tuple[str, ...]  # of files below the folder
    pattern: re.Pattern[str] | None
    keep_numbers: bool

    name: str = "pictures"
    files: tuple[Path, ...] = ()  # not listed in PROVENANCE.md

    def rows(self, start: int) -> Iterator[Row]:
        """One row a picture: id, image, title, category, group and split."""
        counters = _counters(self.names)
        top = {name.partition("/")[0].lower() for name in self.names}
        has_splits = len(top) > 1 and top <= _SPLITS
        for name in self.names[start:]:
            path = PurePosixPath(name)
            title, id = self._title(path, counters), ""
            if self.pattern is not None:
                if not (match := self.pattern.fullmatch(path.stem)):
                    text = f"the name {path.stem[:100]!r} does not match --pattern {self.pattern.pattern}"
                    yield Row(f"{self.folder}: {name}", {}, f"{text}, expected it to")
                    continue
                groups = match.groupdict()
                title = clean_title(groups["title"] or "", True) if "title" in groups else title
                id = groups.get("id") or ""
            folders = path.parent.parts[has_splits:]
            values = {
                "id": id or name,
                "image": [name],  # a list: a name may have a comma
                "title": title,
                "category": [text for part in folders if (text := clean_title(part, True))],
                "group": f"g-{short_digest(f'{path.parent}/{title.lower()}')}" if title else "",
                "split": path.parts[0] if has_splits else "",
            }
            yield Row(f"{self.folder}: {name}", values)

    def _title(self, path: PurePosixPath, counters: Counter[tuple[str, str]]) -> str:
        stem = path.stem
        if not self.keep_numbers and counters[_counted(path)] and (match := _COUNTED.fullmatch(stem)):
            stem = match[1]
        return clean_title(stem, self.keep_numbers)


def clean_title(stem: str, keep_numbers: bool) -> str:
    """The title in a file name without its extension; "" if it has no word that describes a product."""
    words = _SEPARATORS.sub(" ", _CAMEL.sub(" ", unquote(stem))).split()
    if keep_numbers:
        return " ".join(words)
    while words and _CODE.fullmatch(words[-1]):
        words.pop()
    while len(words) > 1 and _FIRST_CODE.fullmatch(words[0]):
        words.pop(0)
    letters = [re.sub(r"[\W\d_]", "", word).lower() for word in words]
    return "" if all(not word or word in _NO_TITLES for word in letters) else " ".join(words)


def _counted(path: PurePosixPath) -> tuple[str, str]:
    """Folder and name without the number at its end."""
    match = _COUNTED.fullmatch(path.stem)
    return str(path.parent), match[1].rstrip("_-. ").lower() if match else ""


def _counters(names: tuple[str, ...]) -> Counter[tuple[str, str]]:
    """The names whose numbers count pictures: those that occur with 0 or 1 and with another number."""
    numbers: dict[tuple[str, str], set[int]] = {}
    for name in names:
        path = PurePosixPath(name)
        if _COUNTED.fullmatch(path.stem):
            number = re.search(r"\d+$", path.stem)
            numbers.setdefault(_counted(path), set()).add(int(number[0]) if number else 0)
    return Counter({key: 1 for key, found in numbers.items() if len(found) > 1 and found & {0, 1}})


def _check_unchanged(state: ImportState, digest: str) -> None:
    """Raises SourceChanged if an interrupted import saw other pictures."""
    step = f"listing {digest}"
    state.run_once(step, lambda: None)
    sql = "SELECT 1 FROM step WHERE name LIKE 'listing %' AND name != ?"
    if state.database.execute(sql, (step,)).fetchone():
        raise SourceChanged


def _pattern(text: str) -> re.Pattern[str] | None:
    if not text:
        return None
    try:
        pattern = re.compile(text)
    except re.error as error:
        raise InputError(f"option --pattern: {text!r} is no regular expression ({error})") from None
    if not {"title", "id"} & set(pattern.groupindex):
        raise InputError(f"option --pattern: {text!r} has no group `title` or `id`, such as (?P<title>.+)-(?P<id>\\d+)")
    return pattern
