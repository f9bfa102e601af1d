"""The images of the packages: metadata, rendering, duplicate detection, groups and splits."""

import contextlib
import hashlib
import html
import io
import xml.etree.ElementTree as ElementTree
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import openclipart_rules as rules
from PIL import Image, ImageChops
from rich.progress import track

SIDE = 96  # pixels, longer side of a packaged image
QUALITY = 82  # of WebP
MIN_INK = 0.02  # share of pixels that differ from white
MAX_PIXELS = 40_000_000
MAX_ASPECT_RATIO = 4.0  # longer side over shorter side
MAX_HASH_DISTANCE = 24  # bits of 256: images this close are near-duplicates ...
MAX_COLOR_DISTANCE = 24.0  # ... if their colors (mean absolute difference, 0-255) are close or they share an author
SHARES = {"train": 0.60, "val": 0.08, "test": 0.32}
MAX_EVAL_GROUP = 20  # larger groups go to train, so that no evaluation split depends on one series

NAMES = {
    "dc": "http://purl.org/dc/elements/1.1/",
    "rdf": "http://www.w3.org/1999/02/22-rdf-syntax-ns#",
    "cc": "http://web.resource.org/cc/",
}
SVG_IMAGE = "{http://www.w3.org/2000/svg}image"


@dataclass
class Item:
    """One clip-art image of the catalog."""

    id: str
    title: str
    author: str
    keywords: set[str]
    category: list[str]
    image: bytes  # WebP
    shape: np.ndarray  # bool [256], the difference hash
    color: np.ndarray  # f32 [8, 8, 3]
    group: str = ""
    split: str = ""


@dataclass
class Source:
    """The metadata of one file of the packages."""

    path: str  # inside the collection, without suffix
    title: str
    author: str
    keywords: list[str]
    licence: str


def read_source(file: Path, path: str) -> Source | None:
    """The metadata of one SVG; None if it cannot be read or links an image that is not embedded."""
    try:
        root = ElementTree.parse(file).getroot()
    except ElementTree.ParseError:
        return None
    work = root.find(".//cc:Work", NAMES)
    if work is None:
        return None
    linked = [href for image in root.iter(SVG_IMAGE) for key, href in image.items() if key.endswith("href")]
    if not all(href.startswith("data:") for href in linked):
        return None
    licence = work.find("cc:license", NAMES)
    return Source(
        path=path,
        title=plain(work.findtext("dc:title", "", NAMES)),
        author=plain(work.findtext("dc:creator/cc:Agent/dc:title", "", NAMES)),
        keywords=[plain(item.text or "") for item in work.findall("dc:subject//rdf:li", NAMES)],
        licence="" if licence is None else licence.get(f"{{{NAMES['rdf']}}}resource", ""),
    )


def plain(text: str) -> str:
    """Text without markup escapes (the library escaped some twice), mojibake and repeated spaces."""
    text = html.unescape(html.unescape(text))
    with contextlib.suppress(UnicodeError):
        text = text.encode("latin-1").decode("utf-8")
    return " ".join(text.split())


def read_sources(folder: Path, dropped: Counter) -> list[Source]:
    """Every SVG in a folder of objects, by path; omitted files are counted in `dropped`."""
    sources = []
    files = sorted(folder.rglob("*.svg"))
    for file in track(files, description="metadata"):
        path = file.relative_to(folder).with_suffix("").as_posix()
        if rules.NOT_OBJECTS.match(path):
            dropped["in a folder of non-objects"] += 1
        elif (source := read_source(file, path)) is None:
            dropped["without metadata, or showing an image that is not inside"] += 1
        elif "publicdomain" not in source.licence.lower():
            dropped["whose own licence field does not say public domain"] += 1
        elif rules.is_unsuitable(path, " ".join([source.title, *source.keywords])):
            dropped["unseemly or trademarked"] += 1
        else:
            sources.append(source)
    return sources


def deduplicate(sources: list[Source], png: Path) -> list[tuple[Source, bytes]]:
    """Merges byte-equal images (the library has one image in several folders).

    The first path outside `unsorted` names the result; the keywords are merged.
    """
    by_digest: dict[str, list[Source]] = defaultdict(list)
    content: dict[str, bytes] = {}
    for source in track(sources, description="pictures"):
        data = (png / f"{source.path}.png").read_bytes()
        digest = hashlib.sha256(data).hexdigest()
        content[digest] = data
        by_digest[digest].append(source)
    unique = []
    for digest, copies in by_digest.items():
        copies.sort(key=lambda source: (source.path.startswith("unsorted"), -source.path.count("/"), source.path))
        first = copies[0]
        first.keywords = [keyword for source in copies for keyword in source.keywords]
        unique.append((first, content[digest]))
    return sorted(unique, key=lambda pair: pair[0].path)


def render(data: bytes) -> bytes | None:
    """The image on white without margins, longer side SIDE, as WebP; None if empty, elongated or too large."""
    with Image.open(io.BytesIO(data)) as opened:
        if opened.width * opened.height > MAX_PIXELS:
            return None
        picture = opened.convert("RGBA")
    white = Image.new("RGBA", picture.size, "white")
    picture = Image.alpha_composite(white, picture).convert("RGB")
    difference = ImageChops.difference(picture, white.convert("RGB")).convert("L").point(lambda v: 255 * (v > 8))
    box = difference.getbbox()
    if box is None:
        return None
    width, height = box[2] - box[0], box[3] - box[1]
    ink = np.asarray(difference.crop(box)).mean() / 255
    if ink < MIN_INK or max(width, height) > MAX_ASPECT_RATIO * min(width, height) or min(width, height) < 16:
        return None
    scale = SIDE / max(width, height)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    written = io.BytesIO()
    picture.crop(box).resize(size, Image.Resampling.LANCZOS).save(written, "WEBP", quality=QUALITY, method=6)
    return written.getvalue()


def fingerprint(image: bytes) -> tuple[np.ndarray, np.ndarray]:
    """The 256-bit difference hash (bool [256]) and the colors (f32 [8, 8, 3]) of an encoded image."""
    with Image.open(io.BytesIO(image)) as opened:
        picture = opened.convert("RGB")
    grey = np.asarray(picture.convert("L").resize((17, 16), Image.Resampling.LANCZOS), np.int16)
    color = np.asarray(picture.resize((8, 8), Image.Resampling.BOX), np.float32)
    return (grey[:, 1:] > grey[:, :-1] + 2).reshape(-1), color


def read_items(sources: list[tuple[Source, bytes]], dropped: Counter) -> list[Item]:
    """The items with a title, a keyword and a usable image."""
    items: list[Item] = []
    taken: set[str] = set()
    for source, data in track(sources, description="rendering"):
        title = rules.title(source.title, source.author, source.path.rsplit("/", 1)[-1])
        keywords = rules.keywords(source.keywords, source.author)
        if not title:
            dropped["without a title of words"] += 1
        elif not keywords:
            dropped["without a keyword of a person"] += 1
        elif (image := render(data)) is None:
            dropped["almost empty, very elongated or huge"] += 1
        else:
            name = rules.identifier(source.path)
            while name in taken:
                name += "-x"
            taken.add(name)
            category = source.path.split("/")[:-1]
            items.append(Item(name, title, source.author, keywords, category, image, *fingerprint(image)))
    merge_plurals(items)
    return items


def merge_plurals(items: list[Item]) -> None:
    """Replaces plural keywords by their singular if that is a keyword too."""
    known = set().union(*(item.keywords for item in items))
    for item in items:
        item.keywords = {rules.singular(word, known) for word in item.keywords}


def near_duplicates(items: list[Item]) -> Iterable[tuple[int, int]]:
    """Pairs of near-duplicate images, or of one series: same author, same title except for numbers."""
    shapes = np.stack([item.shape for item in items])
    colors = np.stack([item.color.reshape(-1) for item in items])
    for i in track(range(len(items)), description="near-duplicates"):
        bits = np.count_nonzero(shapes[i + 1 :] != shapes[i], axis=1)
        for j in i + 1 + np.flatnonzero(bits <= MAX_HASH_DISTANCE):
            close = np.abs(colors[i] - colors[j]).mean() <= MAX_COLOR_DISTANCE
            if close or items[i].author == items[j].author:
                yield i, int(j)
    series: dict[tuple[str, str], int] = {}
    for i, item in enumerate(items):
        yield series.setdefault((item.author.lower(), rules.stem(item.title)), i), i


def group_and_split(items: list[Item]) -> None:
    """Assigns groups (connected near-duplicates) and splits (hash of the group)."""
    parent = list(range(len(items)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    for i, j in near_duplicates(items):
        parent[max(root(i), root(j))] = min(root(i), root(j))
    sizes = Counter(root(i) for i in range(len(items)))
    for i, item in enumerate(items):
        first = root(i)
        item.group = items[first].id
        item.split = "train" if sizes[first] > MAX_EVAL_GROUP else split_of(item.group)


def split_of(group: str) -> str:
    """The split of a group by hash, with the proportions of SHARES."""
    point = int.from_bytes(hashlib.sha256(group.encode()).digest()[:6], "big") / 2**48
    for split, share in SHARES.items():
        if point < share:
            return split
        point -= share
    return "test"
