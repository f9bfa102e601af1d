"""Builds the catalog that ships inside the package from Debian's public-domain clip-art.

    apt-get download openclipart-png openclipart-svg        # 1:0.18+dfsg-19, 156 MB
    dpkg-deb -x openclipart-png_*.deb png && dpkg-deb -x openclipart-svg_*.deb svg
    python scripts/build_openclipart.py --png png --svg svg --out make_jax/catalog/openclipart.zip

Takes about two minutes. The same packages and the same Pillow give the same bytes: everything is sorted,
splits come from hashes, times in the zip are fixed. Beside the zip it writes openclipart.PROVENANCE.md.
"""

import argparse
import contextlib
import hashlib
import html
import io
import itertools
import json
import xml.etree.ElementTree as ElementTree
import zipfile
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import openclipart_rules as rules
from PIL import Image, ImageChops
from rich.progress import track

from make_jax.errors import InputError, exit_cleanly
from make_jax.files import write_atomically

SIDE = 96  # pixels, the longer side of a packaged picture
QUALITY = 82  # of WebP
LEAST_INK = 0.02  # share of pixels that differ from white
MOST_PIXELS = 40_000_000  # a few files are absurdly large
MOST_ELONGATED = 4.0  # longer side over shorter side
NEAR_BITS = 24  # of 256: pictures this close in shape are one picture ...
NEAR_COLOUR = 24.0  # ... when their colours are this close too (mean absolute difference, 0-255) or their author is one
SHARES = {"train": 0.60, "val": 0.08, "test": 0.32}
BIG_GROUP = 20  # a larger group trains, so that no split hangs on one series
TOO_GENERAL = 0.15  # a keyword on more than this share of all products is no query
LEAST_TRAIN = 2  # training products with a query's keyword; one person's word is not learnable
PAIR_LEAST = 2  # products of the split that carry both keywords of a pair
PAIR_IMPLIED = 0.8  # a pair is no query when one keyword nearly always comes with the other

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


@dataclass
class Catalog:
    """The lines of the three files."""

    products: list[dict]
    queries: list[dict] = field(default_factory=list)
    clicks: list[dict] = field(default_factory=list)


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


def make_catalog(pictures: list[Picture]) -> Catalog:
    """Products, clicks of training products, judged queries of the other splits."""
    catalog = Catalog(
        products=[
            {
                "id": picture.id,
                "title": picture.title,
                "image": f"images/{picture.id}.webp",
                "category": picture.category,
                "group": picture.group,
                "split": picture.split,
            }
            for picture in pictures
        ]
    )
    trained = [picture for picture in pictures if picture.split == "train"]
    for picture in trained:
        texts = sorted(picture.keywords) + pair_clicks(picture)
        catalog.clicks += [{"query": text, "product": picture.id, "lang": "en"} for text in texts]
    everywhere = Counter(keyword for picture in pictures for keyword in picture.keywords)
    training = Counter(keyword for picture in trained for keyword in picture.keywords)
    usable = {
        keyword
        for keyword, count in everywhere.items()
        if count <= TOO_GENERAL * len(pictures) and training[keyword] >= LEAST_TRAIN
    }
    for split in ("val", "test"):
        judged = [picture for picture in pictures if picture.split == split]
        for kind, text, relevant in itertools.chain(keyword_queries(judged, usable), pair_queries(judged, usable)):
            catalog.queries.append(
                {
                    "qid": f"oc-{split}-{len(catalog.queries):05d}",
                    "lang": "en",
                    "kind": kind,
                    "text": text,
                    "split": split,
                    "rel": {picture.id: 3 for picture in relevant},
                    "source": "contributor keyword",
                }
            )
    return catalog


def pair_clicks(picture: Picture) -> list[str]:
    """Up to three texts of two keywords of one picture, chosen and ordered by hash."""
    words = [word for word in sorted(picture.keywords) if " " not in word]
    pairs = sorted(itertools.permutations(words, 2), key=lambda pair: hashlib.sha256(repr(pair).encode()).digest())
    chosen: dict[frozenset[str], str] = {}
    for pair in pairs:
        chosen.setdefault(frozenset(pair), " ".join(pair))
    return list(chosen.values())[: min(3, len(words) // 2)]


def keyword_queries(judged: list[Picture], usable: set[str]) -> Iterable[tuple[str, str, list[Picture]]]:
    """(kind, text, relevant pictures) of every usable keyword; the kind says whether a relevant title has the word."""
    for keyword in sorted(usable):
        relevant = [picture for picture in judged if keyword in picture.keywords]
        if relevant:
            said = any(rules.stands_in(keyword, picture.title) for picture in relevant)
            yield "keyword:title" if said else "keyword:picture", keyword, relevant


def pair_queries(judged: list[Picture], usable: set[str]) -> Iterable[tuple[str, str, list[Picture]]]:
    """(kind, text, relevant pictures) of pairs of keywords that do not imply each other."""
    holders: dict[tuple[str, str], list[Picture]] = defaultdict(list)
    count: Counter = Counter()
    for picture in judged:
        words = sorted(word for word in picture.keywords & usable if " " not in word)
        count.update(words)
        for pair in itertools.combinations(words, 2):
            holders[pair].append(picture)
    for pair, relevant in sorted(holders.items()):
        if len(relevant) >= PAIR_LEAST and len(relevant) <= PAIR_IMPLIED * min(count[word] for word in pair):
            flip = hashlib.sha256(repr(pair).encode()).digest()[0] % 2
            yield "keyword:pair", " ".join(reversed(pair) if flip else pair), relevant


def lines(rows: list[dict]) -> str:
    """JSON lines."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def pack(files: dict[str, bytes]) -> bytes:
    """A zip whose bytes depend on the files only: pictures stored, texts deflated, one fixed time."""
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as archive:
        for name, data in files.items():
            entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            entry.external_attr = 0o644 << 16
            entry.compress_type = zipfile.ZIP_STORED if name.endswith(".webp") else zipfile.ZIP_DEFLATED
            archive.writestr(entry, data, compresslevel=9)
    return written.getvalue()


def collection(folder: Path, kind: str) -> Path:
    """The folder of pictures inside an extracted package."""
    for candidate in (folder / "usr/share/openclipart" / kind, folder):
        if (candidate / "animals").is_dir():
            return candidate
    raise InputError(f"--{kind} {folder}: no usr/share/openclipart/{kind}/animals; expected the extracted package")


def main() -> None:
    """Reads the packages, writes the zip and its PROVENANCE.md, prints the counts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--png", type=Path, required=True, help="extracted openclipart-png")
    parser.add_argument("--svg", type=Path, required=True, help="extracted openclipart-svg")
    parser.add_argument("--out", type=Path, required=True, help="the zip to write")
    arguments = parser.parse_args()
    Image.MAX_IMAGE_PIXELS = None  # render() looks at the size itself
    dropped: Counter = Counter()
    sources = read_sources(collection(arguments.svg, "svg"), dropped)
    joined = one_per_picture(sources, collection(arguments.png, "png"))
    dropped["that repeat a picture of another folder"] = len(sources) - len(joined)
    pictures = read_pictures(joined, dropped)
    group_and_split(pictures)
    catalog = make_catalog(pictures)
    provenance = rules.provenance(catalog.products, catalog.queries, catalog.clicks, dropped)
    texts = {
        "catalog.json": json.dumps(rules.INFO, indent=1) + "\n",
        "PROVENANCE.md": provenance,
        "products.jsonl": lines(catalog.products),
        "queries.jsonl": lines(catalog.queries),
        "clicks.jsonl": lines(catalog.clicks),
    }
    files = {name: text.encode() for name, text in texts.items()}
    files |= {f"images/{picture.id}.webp": picture.image for picture in pictures}
    content = pack(files)
    write_atomically(arguments.out, content)
    write_atomically(arguments.out.with_suffix(".PROVENANCE.md"), provenance)
    print(f"{provenance.split('## Counts')[-1].strip()}\n{arguments.out}: {len(content) / 2**20:.2f} MiB")


if __name__ == "__main__":
    exit_cleanly(main)
