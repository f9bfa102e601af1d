"""The pictures of the packages: what their contributors wrote, what they show, which belong together, their split."""

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

SIDE = 96  # pixels, the longer side of a packaged picture
QUALITY = 82  # of WebP
LEAST_INK = 0.02  # share of pixels that differ from white
MOST_PIXELS = 40_000_000  # a few files are absurdly large
MOST_ELONGATED = 4.0  # longer side over shorter side
NEAR_BITS = 24  # of 256: pictures this close in shape are one picture ...
NEAR_COLOUR = 24.0  # ... when their colours are this close too (mean absolute difference, 0-255) or their author is one
SHARES = {"train": 0.60, "val": 0.08, "test": 0.32}
BIG_GROUP = 20  # a larger group trains, so that no split hangs on one series

NAMES = {
    "dc": "http://purl.org/dc/elements/1.1/",
    "rdf": "http://www.w3.org/1999/02/22-rdf-syntax-ns#",
    "cc": "http://web.resource.org/cc/",
}
SVG_IMAGE = "{http://www.w3.org/2000/svg}image"


@dataclass
class Picture:
    """One clip-art picture on its way into the catalog."""

    id: str
    title: str
    author: str
    keywords: set[str]
    category: list[str]
    image: bytes  # WebP
    shape: np.ndarray  # bool [256], the difference hash
    colour: np.ndarray  # f32 [8, 8, 3]
    group: str = ""
    split: str = ""


@dataclass
class Source:
    """One file of the packages: what its contributor wrote about it."""

    path: str  # inside the collection, no suffix
    title: str
    author: str
    keywords: list[str]
    licence: str


def read_source(file: Path, path: str) -> Source | None:
    """The metadata of one SVG; None when it cannot be read or the picture needs a file that is not there."""
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
    """Text without markup escapes (the library escaped some twice), mojibake and runs of spaces."""
    text = html.unescape(html.unescape(text))
    with contextlib.suppress(UnicodeError):
        text = text.encode("latin-1").decode("utf-8")
    return " ".join(text.split())


def read_sources(folder: Path, dropped: Counter) -> list[Source]:
    """Every SVG in an object-like folder, by path; what is left out is counted in `dropped`."""
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
        elif rules.unseemly(path, " ".join([source.title, *source.keywords])):
            dropped["unseemly or trademarked"] += 1
        else:
            sources.append(source)
    return sources


def one_per_picture(sources: list[Source], png: Path) -> list[tuple[Source, bytes]]:
    """Joins the files that show the same picture (the library files one picture in several folders).

    The first path outside `unsorted` names it; the keywords are united.
    """
    same: dict[str, list[Source]] = defaultdict(list)
    content: dict[str, bytes] = {}
    for source in track(sources, description="pictures"):
        data = (png / f"{source.path}.png").read_bytes()
        digest = hashlib.sha256(data).hexdigest()
        content[digest] = data
        same[digest].append(source)
    joined = []
    for digest, copies in same.items():
        copies.sort(key=lambda source: (source.path.startswith("unsorted"), -source.path.count("/"), source.path))
        first = copies[0]
        first.keywords = [keyword for source in copies for keyword in source.keywords]
        joined.append((first, content[digest]))
    return sorted(joined, key=lambda pair: pair[0].path)


def render(data: bytes) -> bytes | None:
    """The picture on white without its margins, longer side SIDE, as WebP; None when empty, elongated or huge."""
    with Image.open(io.BytesIO(data)) as opened:
        if opened.width * opened.height > MOST_PIXELS:
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
    if ink < LEAST_INK or max(width, height) > MOST_ELONGATED * min(width, height) or min(width, height) < 16:
        return None
    scale = SIDE / max(width, height)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    written = io.BytesIO()
    picture.crop(box).resize(size, Image.Resampling.LANCZOS).save(written, "WEBP", quality=QUALITY, method=6)
    return written.getvalue()


def fingerprint(image: bytes) -> tuple[np.ndarray, np.ndarray]:
    """The 256-bit difference hash (bool [256]) and the colours (f32 [8, 8, 3]) of an encoded picture."""
    with Image.open(io.BytesIO(image)) as opened:
        picture = opened.convert("RGB")
    grey = np.asarray(picture.convert("L").resize((17, 16), Image.Resampling.LANCZOS), np.int16)
    colour = np.asarray(picture.resize((8, 8), Image.Resampling.BOX), np.float32)
    return (grey[:, 1:] > grey[:, :-1] + 2).reshape(-1), colour


def read_pictures(sources: list[tuple[Source, bytes]], dropped: Counter) -> list[Picture]:
    """The pictures with a title, a keyword and something to see."""
    pictures: list[Picture] = []
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
            pictures.append(Picture(name, title, source.author, keywords, category, image, *fingerprint(image)))
    merge_plurals(pictures)
    return pictures


def merge_plurals(pictures: list[Picture]) -> None:
    """Writes a plural keyword as its singular where the singular is somebody's keyword too."""
    known = set().union(*(picture.keywords for picture in pictures))
    for picture in pictures:
        picture.keywords = {rules.singular(word, known) for word in picture.keywords}


def near(pictures: list[Picture]) -> Iterable[tuple[int, int]]:
    """Pairs of pictures that are one picture to the eye, or one series: same author, same title but for numbers."""
    shapes = np.stack([picture.shape for picture in pictures])
    colours = np.stack([picture.colour.reshape(-1) for picture in pictures])
    for i in track(range(len(pictures)), description="near-duplicates"):
        bits = np.count_nonzero(shapes[i + 1 :] != shapes[i], axis=1)
        for j in i + 1 + np.flatnonzero(bits <= NEAR_BITS):
            close = np.abs(colours[i] - colours[j]).mean() <= NEAR_COLOUR
            if close or pictures[i].author == pictures[j].author:
                yield i, int(j)
    series: dict[tuple[str, str], int] = {}
    for i, picture in enumerate(pictures):
        yield series.setdefault((picture.author.lower(), rules.stem(picture.title)), i), i


def group_and_split(pictures: list[Picture]) -> None:
    """Gives every picture its group (union of near pairs) and its split (hash of the group)."""
    parent = list(range(len(pictures)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    for i, j in near(pictures):
        parent[max(root(i), root(j))] = min(root(i), root(j))
    sizes = Counter(root(i) for i in range(len(pictures)))
    for i, picture in enumerate(pictures):
        first = root(i)
        picture.group = pictures[first].id
        picture.split = "train" if sizes[first] > BIG_GROUP else split_of(picture.group)


def split_of(group: str) -> str:
    """A split by hash, in the shares of SHARES."""
    point = int.from_bytes(hashlib.sha256(group.encode()).digest()[:6], "big") / 2**48
    for split, share in SHARES.items():
        if point < share:
            return split
        point -= share
    return "test"
