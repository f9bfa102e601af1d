"""Builds the catalog that ships inside the package from Debian's public-domain clip-art.

    apt-get download openclipart-png openclipart-svg        # 1:0.18+dfsg-19, 156 MB
    dpkg-deb -x openclipart-png_*.deb png && dpkg-deb -x openclipart-svg_*.deb svg
    python scripts/build_openclipart.py --png png --svg svg --out make_jax/catalog/openclipart.zip

Takes about two minutes. The same packages and the same Pillow give the same bytes: everything is sorted,
splits come from hashes, times in the zip are fixed. Beside the zip it writes openclipart.PROVENANCE.md.
"""

import argparse
import hashlib
import io
import itertools
import json
import zipfile
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import openclipart_rules as rules
from openclipart_pictures import Picture, group_and_split, one_per_picture, read_pictures, read_sources
from PIL import Image

from make_jax.errors import InputError, exit_cleanly
from make_jax.files import write_atomically

TOO_GENERAL = 0.15  # a keyword on more than this share of all products is no query
LEAST_TRAIN = 2  # training products with a query's keyword; one person's word is not learnable
PAIR_LEAST = 2  # products of the split that carry both keywords of a pair
PAIR_IMPLIED = 0.8  # a pair is no query when one keyword nearly always comes with the other


@dataclass
class Catalog:
    """The lines of the three files."""

    products: list[dict]
    queries: list[dict] = field(default_factory=list)
    clicks: list[dict] = field(default_factory=list)


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
