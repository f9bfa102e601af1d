"""Throughput of keyword tagging of titles on one core.

    python benchmarks/scaling/keyword_tagging.py --catalog PATH [--titles 1000000]
                                                 [--out docs/results/keyword-tagging.json]

Any CPU, about half a minute. The titles of a catalog, repeated up to `--titles`, are tagged and packed with the keyword
vocabulary mined from it.
"""

import argparse
import itertools
import json
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the repository root

from benchmarks import RESULTS
from make_jax.catalog.mining import mine_keywords
from make_jax.catalog.reader import Catalog
from make_jax.errors import exit_cleanly
from make_jax.files import write_atomically
from make_jax.runs.provenance import metadata

ROUNDS = 3
CHUNK = 10_000  # titles packed at a time


def main() -> None:
    """Measures and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--catalog", required=True, help="a catalog folder or .zip")
    parser.add_argument("--titles", type=int, default=1_000_000)
    parser.add_argument("--out", type=Path, default=RESULTS / "keyword-tagging.json")
    args = parser.parse_args()
    catalog = Catalog.load(args.catalog)
    keywords = mine_keywords(catalog)
    every = itertools.cycle(product.title for product in catalog.products)
    titles = list(itertools.islice(every, args.titles))
    seconds = []
    for _ in range(ROUNDS):
        start = time.process_time()  # CPU time, independent of other load
        for first in range(0, len(titles), CHUNK):
            keywords.pack([keywords.tag(title) for title in titles[first : first + CHUNK]])
        seconds.append(time.process_time() - start)
    result = {
        "about": metadata(catalog, seed=0),
        "titles": len(titles),
        "keywords": len(keywords),
        "cpu_seconds": [round(second, 2) for second in seconds],
    }
    write_atomically(args.out, json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    print(f"{len(titles):,} titles, {len(keywords)} keywords: {statistics.median(seconds):.1f} s of one core")


if __name__ == "__main__":
    exit_cleanly(main)
