"""Builds the packaged catalog from Debian's public-domain clip art. One-off data preparation.

    apt-get download openclipart-png openclipart-svg        # 1:0.18+dfsg-19, 156 MB
    dpkg-deb -x openclipart-png_*.deb png && dpkg-deb -x openclipart-svg_*.deb svg
    python scripts/openclipart/build_openclipart.py --png png --svg svg --out make_jax/catalog/openclipart.zip

Takes about two minutes. The same packages and Pillow version give the same bytes: everything is sorted, splits are
hashes, times in the zip are fixed. Also writes openclipart.PROVENANCE.md next to the zip.
"""

import argparse
import hashlib
import io
import itertools
import json
import zipfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import openclipart_rules as rules
from openclipart_images import Item, deduplicate, group_and_split, read_items, read_sources
from PIL import Image

from make_jax.errors import InputError, exit_cleanly
from make_jax.files import write_atomically

MAX_SHARE = 0.15  # keywords of a larger share of all products are not queries
MIN_TRAIN = 2  # training products with a query's keyword; with one it cannot be learned
MIN_PAIR = 2  # products of the split with both keywords of a pair
MAX_IMPLIED = 0.8  # pairs are not queries if one keyword nearly always implies the other


@dataclass
class Catalog:
    """The lines of the three JSON files."""

    products: list[dict]
    queries: list[dict] = field(default_factory=list)
    clicks: list[dict] = field(default_factory=list)


def make_catalog(items: list[Item]) -> Catalog:
    """Products, clicks on training products, and judged queries of the other splits."""
    catalog = Catalog(
        products=[
            {
                "id": item.id,
                "title": item.title,
                "image": f"images/{item.id}.webp",
                "category": item.category,
                "group": item.group,
                "split": item.split,
            }
            for item in items
        ]
    )
    training_items = [item for item in items if item.split == "train"]
    for item in training_items:
        texts = sorted(item.keywords) + pair_clicks(item)
        catalog.clicks += [{"query": text, "product": item.id, "lang": "en"} for text in texts]
    total = Counter(keyword for item in items for keyword in item.keywords)
    training = Counter(keyword for item in training_items for keyword in item.keywords)
    usable = {
        keyword
        for keyword, count in total.items()
        if count <= MAX_SHARE * len(items) and training[keyword] >= MIN_TRAIN
    }
    for split in ("val", "test"):
        judged = [item for item in items if item.split == split]
        for kind, text, relevant in itertools.chain(keyword_queries(judged, usable), pair_queries(judged, usable)):
            catalog.queries.append(
                {
                    "qid": f"oc-{split}-{len(catalog.queries):05d}",
                    "lang": "en",
                    "kind": kind,
                    "text": text,
                    "split": split,
                    "rel": {item.id: 3 for item in relevant},
                    "source": "contributor keyword",
                }
            )
    return catalog


def pair_clicks(item: Item) -> list[str]:
    """Up to three queries of two keywords of one item, chosen and ordered by hash."""
    words = [word for word in sorted(item.keywords) if " " not in word]
    pairs = sorted(itertools.permutations(words, 2), key=lambda pair: hashlib.sha256(repr(pair).encode()).digest())
    chosen: dict[frozenset[str], str] = {}
    for pair in pairs:
        chosen.setdefault(frozenset(pair), " ".join(pair))
    return list(chosen.values())[: min(3, len(words) // 2)]


def keyword_queries(judged: list[Item], usable: set[str]) -> Iterable[tuple[str, str, list[Item]]]:
    """(kind, text, relevant items) of every usable keyword; the kind states whether a relevant title has the word."""
    for keyword in sorted(usable):
        relevant = [item for item in judged if keyword in item.keywords]
        if relevant:
            in_title = any(rules.occurs_in(keyword, item.title) for item in relevant)
            yield "keyword:title" if in_title else "keyword:picture", keyword, relevant


def pair_queries(judged: list[Item], usable: set[str]) -> Iterable[tuple[str, str, list[Item]]]:
    """(kind, text, relevant items) of keyword pairs that do not imply each other."""
    by_pair: dict[tuple[str, str], list[Item]] = defaultdict(list)
    count: Counter = Counter()
    for item in judged:
        words = sorted(word for word in item.keywords & usable if " " not in word)
        count.update(words)
        for pair in itertools.combinations(words, 2):
            by_pair[pair].append(item)
    for pair, relevant in sorted(by_pair.items()):
        if len(relevant) >= MIN_PAIR and len(relevant) <= MAX_IMPLIED * min(count[word] for word in pair):
            flip = hashlib.sha256(repr(pair).encode()).digest()[0] % 2
            yield "keyword:pair", " ".join(reversed(pair) if flip else pair), relevant


def lines(rows: list[dict]) -> str:
    """JSON lines."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def pack(files: dict[str, bytes]) -> bytes:
    """A zip whose bytes depend on the files only: images stored, texts deflated, one fixed time."""
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as archive:
        for name, data in files.items():
            entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            entry.external_attr = 0o644 << 16
            entry.compress_type = zipfile.ZIP_STORED if name.endswith(".webp") else zipfile.ZIP_DEFLATED
            archive.writestr(entry, data, compresslevel=9)
    return written.getvalue()


def collection(folder: Path, kind: str) -> Path:
    """The image folder of an extracted package."""
    for candidate in (folder / "usr/share/openclipart" / kind, folder):
        if (candidate / "animals").is_dir():
            return candidate
    raise InputError(f"--{kind} {folder}: no usr/share/openclipart/{kind}/animals; expected the extracted package")


def main(argv: Sequence[str] | None = None) -> None:
    """Reads the packages, writes the zip and its PROVENANCE.md, and prints the counts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--png", type=Path, required=True, help="extracted openclipart-png")
    parser.add_argument("--svg", type=Path, required=True, help="extracted openclipart-svg")
    parser.add_argument("--out", type=Path, required=True, help="the zip to write")
    arguments = parser.parse_args(argv)
    Image.MAX_IMAGE_PIXELS = None  # render() checks the size
    dropped: Counter = Counter()
    sources = read_sources(collection(arguments.svg, "svg"), dropped)
    unique = deduplicate(sources, collection(arguments.png, "png"))
    dropped["that repeat a picture of another folder"] = len(sources) - len(unique)
    items = read_items(unique, dropped)
    group_and_split(items)
    catalog = make_catalog(items)
    provenance = rules.provenance(catalog.products, catalog.queries, catalog.clicks, dropped)
    texts = {
        "catalog.json": json.dumps(rules.INFO, indent=1) + "\n",
        "PROVENANCE.md": provenance,
        "products.jsonl": lines(catalog.products),
        "queries.jsonl": lines(catalog.queries),
        "clicks.jsonl": lines(catalog.clicks),
    }
    files = {name: text.encode() for name, text in texts.items()}
    files |= {f"images/{item.id}.webp": item.image for item in items}
    content = pack(files)
    write_atomically(arguments.out, content)
    write_atomically(arguments.out.with_suffix(".PROVENANCE.md"), provenance)
    print(f"{provenance.split('## Counts')[-1].strip()}\n{arguments.out}: {len(content) / 2**20:.2f} MiB")


if __name__ == "__main__":
    exit_cleanly(main)
