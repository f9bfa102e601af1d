"""Latency and recall of the search engines `edge` (HNSW) and `flat` (exact) on clustered vectors, with filters.

    python benchmarks/search/engines.py --folder WORK                                  42,203 products of 636 numbers
    python benchmarks/search/engines.py --folder WORK --products 1000000 --width 384

WORK receives the folder of Qdrant Edge, which is built if it is missing. Each query is sent to both engines in turn,
one at a time, and the time is that of the caller, with the exchange between processes. Filters keep 50 %, 5 %, 0.5 % of
the products at random, and one product. Recall is the share of the ten best products of exact search, which is that of
`flat`, that HNSW returned. The result file keeps one entry for each size; the plot shows recall against latency.
"""

import argparse
import io
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the repository root

from benchmarks import RESULTS, ROOT
from benchmarks.search.clustered import ROWS, Clustered
from make_jax.catalog.reader import Catalog
from make_jax.errors import exit_cleanly
from make_jax.files import write_atomically
from make_jax.runs.provenance import metadata
from make_jax.serving.engines import Engine, EngineQuery, EngineResult, Rows
from make_jax.serving.engines.edge import EdgeEngine
from make_jax.serving.engines.flat import FlatEngine
from make_jax.serving.engines.qdrant import QdrantSettings
from make_jax.serving.filters import Compare, Filter

K = 10
LEXICAL_WEIGHT = 0.3
CANDIDATES = (32, 64, 128, 256, 512, 1024)
PLOT = ROOT / "docs" / "search-engines.png"


def filters(count: int) -> dict[str, Filter | None]:
    """The filters by what they keep."""
    return {
        "all": None,
        "50 %": Compare("percent", "<", 50),
        "5 %": Compare("percent", "<", 5),
        "0.5 %": Compare("permille", "<", 5),
        "one product": Compare("number", "=", count // 2),
    }


def alternate(
    engines: dict[str, Engine], queries: list[EngineQuery]
) -> dict[str, tuple[np.ndarray, list[EngineResult]]]:
    """Seconds and results of every query by each engine; both answer a query before the next one is sent."""
    seconds: dict[str, list[float]] = {name: [] for name in engines}
    results: dict[str, list[EngineResult]] = {name: [] for name in engines}
    for engine in engines.values():
        engine.search(queries[:1])
    for query in queries:
        for name, engine in engines.items():
            start = time.perf_counter()
            results[name] += engine.search([query])
            seconds[name].append(time.perf_counter() - start)
    return {name: (np.array(seconds[name]), results[name]) for name in engines}


def recall(found: list[EngineResult], exact: list[EngineResult]) -> float:
    """The mean share of the exact results that were found."""
    shares = [np.isin(b.rows, a.rows).mean() for a, b in zip(found, exact, strict=True) if len(b.rows)]
    return round(float(np.mean(shares)), 4)


def milliseconds(seconds: np.ndarray) -> dict[str, float]:
    """Median and 99th percentile."""
    return {f"p{share}": round(float(np.percentile(seconds, share)) * 1e3, 2) for share in (50, 99)}


def compare(engines: dict[str, Engine], products: Clustered, count: int) -> list[dict[str, Any]]:
    """A row for each filter and kind of query."""
    rows = []
    vectors, texts = products.queries(count)
    for kept, condition in filters(products.count).items():
        for kind in ("vector", "vector and text"):
            queries = [
                EngineQuery(vector, text if "text" in kind else "", LEXICAL_WEIGHT, condition, limit=K)
                for vector, text in zip(vectors, texts, strict=True)
            ]
            measured = alternate(engines, queries)
            times = {name: milliseconds(seconds) for name, (seconds, _) in measured.items()}
            rows.append(
                {"kept": kept, "query": kind, **times, "recall": recall(measured["edge"][1], measured["flat"][1])}
            )
            print(json.dumps(rows[-1]), flush=True)
    return rows


def batches(engines: dict[str, Engine], products: Clustered, size: int = 32, rounds: int = 5) -> dict[str, float]:
    """Queries per second where `size` of them, with texts, are sent together."""
    vectors, texts = products.queries(size)
    queries = [EngineQuery(vector, text, LEXICAL_WEIGHT, limit=K) for vector, text in zip(vectors, texts, strict=True)]
    rates: dict[str, list[float]] = {name: [] for name in engines}
    for turn in range(rounds + 1):
        for name, engine in engines.items():
            start = time.perf_counter()
            engine.search(queries)
            if turn:  # the first compiles
                rates[name].append(size / (time.perf_counter() - start))
    return {name: round(float(np.median(found)), 1) for name, found in rates.items()}


def open_edge(folder: Path, products: Clustered, candidates: int = 128) -> EdgeEngine:
    """Opens the folder of the products, or builds it and writes how long that took."""
    is_new = not (folder / "state.json").exists()
    start = time.perf_counter()

    def parts() -> Iterator[Rows]:
        for part in products.parts():
            yield part
            print(f"{part.rows[-1] + 1:,} products sent", file=sys.stderr, flush=True)

    edge = EdgeEngine(folder, QdrantSettings(products.width, candidates=candidates), parts)
    if is_new:
        (folder / "build-seconds").write_text(f"{time.perf_counter() - start:.1f}")
    return edge


def open_flat(products: Clustered) -> FlatEngine:
    """The engine over one array, without a second copy of it."""
    vectors = np.empty((products.count, products.width), np.float32)
    titles, attributes = [], []
    for part in products.parts():
        vectors[part.rows] = part.vectors
        titles += part.titles
        attributes += part.attributes
    return FlatEngine([Rows(np.arange(products.count), vectors, titles, attributes)])


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Everything that is measured for one size."""
    products = Clustered(options.products, options.width, options.seed)
    folder = options.edge
    edge = open_edge(folder, products)
    flat = open_flat(products)
    engines: dict[str, Engine] = {"flat": flat, "edge": edge}
    result: dict[str, Any] = {
        "products": products.count,
        "width": products.width,
        "build_seconds": float((folder / "build-seconds").read_text()),
        "disk_bytes": sum(file.stat().st_size for file in (folder / "shard").rglob("*") if file.is_file()),
        "vector_bytes": 4 * products.count * products.width,
        "rows": compare(engines, products, options.queries),
        "queries_per_second": batches(engines, products),
    }
    memory = psutil.Process(edge._process.pid).memory_info()
    result["edge_memory_bytes"] = {"anonymous": memory.rss - memory.shared, "with_mapped_files": memory.rss}
    result["curve"] = curve(edge, flat, folder, products, options.queries)
    return result


def curve(edge: EdgeEngine, flat: FlatEngine, folder: Path, products: Clustered, count: int) -> list[dict[str, float]]:
    """Recall and latency of HNSW by the number of candidates, without filter; closes `edge`."""
    points = []
    vectors, _ = products.queries(count)
    queries = [EngineQuery(vector, limit=K) for vector in vectors]
    for candidates in CANDIDATES:
        edge.close()
        edge = open_edge(folder, products, candidates)
        measured = alternate({"flat": flat, "edge": edge}, queries)
        found = recall(measured["edge"][1], measured["flat"][1])
        points.append({"candidates": candidates, "recall": found, **milliseconds(measured["edge"][0])})
        points[-1]["flat_p50"] = milliseconds(measured["flat"][0])["p50"]
        print(json.dumps(points[-1]), flush=True)
    edge.close()
    return points


def draw(sizes: list[dict[str, Any]], path: Path) -> None:
    """Draws recall against latency."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    for size in sizes:
        label = f"{size['products']:,} x {size['width']}"
        points = size["curve"]
        (line,) = axes.plot([p["p50"] for p in points], [p["recall"] for p in points], "o-", label=f"edge, {label}")
        exact = float(np.median([point["flat_p50"] for point in points]))
        axes.plot(exact, 1.0, "*", markersize=12, color=line.get_color(), label=f"flat, {label}")
        for point in points:
            axes.annotate(f"{point['candidates']}", (point["p50"], point["recall"]), fontsize=7)
    axes.set(xscale="log", xlabel="p50, ms", ylabel=f"recall@{K}")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=100)
    plt.close(figure)
    write_atomically(path, image.getvalue())


def main() -> None:
    """Measures one size, and writes the result file and the plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="receives the folder of Qdrant Edge")
    parser.add_argument("--products", type=int, default=42_203)
    parser.add_argument("--width", type=int, default=636, help="dimensions of a vector")
    parser.add_argument("--queries", type=int, default=200, help="of each kind and filter")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--build-only", action="store_true", help="build the folder, measure nothing")
    parser.add_argument("--out", type=Path, default=RESULTS / "search-engines.json")
    parser.add_argument("--plot", type=Path, default=PLOT)
    options = parser.parse_args()
    options.edge = options.folder / f"edge-{options.products}-{options.width}-{options.seed}"
    if options.build_only:
        open_edge(options.edge, Clustered(options.products, options.width, options.seed)).close()
        return
    size = measure(options)
    about = metadata(
        Catalog.load(""),
        seed=options.seed,
        command="python benchmarks/search/engines.py --folder WORK",
        cores=os.cpu_count(),
        load_at_end=round(os.getloadavg()[0], 2),
    )
    kept = json.loads(options.out.read_text("utf-8"))["sizes"] if options.out.exists() else []
    sizes = [old for old in kept if (old["products"], old["width"]) != (size["products"], size["width"])]
    sizes = sorted([*sizes, size | {"about": about}], key=lambda one: one["products"])
    settings = {"queries": options.queries, "k": K, "lexical_weight": LEXICAL_WEIGHT, "part_rows": ROWS}
    write_atomically(options.out, json.dumps({**settings, "sizes": sizes}, indent=1) + "\n")
    draw(sizes, options.plot)


if __name__ == "__main__":
    exit_cleanly(main)
