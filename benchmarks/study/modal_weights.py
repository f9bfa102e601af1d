"""Measures the modal weights on a catalog with `dropped`, the words removed from titles.

    python benchmarks/study/modal_weights.py RUN --catalog fashion-sparse-full.zip [--split test]

Two CPU cores, a few minutes. Writes docs/results/modal-weights.json and docs/modal-weights.png:

1. The image weight by number and kind of the words removed from a title; the model does not see `dropped`.
2. nDCG@10 of color queries over products without their color word and over products with it, for the joint system and
   for titles only.
3. The title weight if all images are replaced by noise.
"""

import argparse
import io
import json
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the repository root

from benchmarks import ROOT
from make_jax.catalog.reader import Catalog
from make_jax.catalog.schema import Product, Split
from make_jax.errors import InputError, exit_cleanly
from make_jax.evaluation.metrics import judge, score_ranking
from make_jax.evaluation.significance import mean_intervals
from make_jax.files import write_atomically
from make_jax.retrieval.embed import Modality, embed_products, embed_queries
from make_jax.retrieval.retriever import Retriever
from make_jax.retrieval.top_k import top_k
from make_jax.retrieval.vector_index import ProductEmbeddings
from make_jax.runs.provenance import metadata

METRIC = "nDCG@10"
COLOR = "colour"


def by_dropped(products: Sequence[Product], image_weights: np.ndarray) -> dict[str, Any]:
    """Returns the mean image weight with its 95 % interval over products, by number and by kind of dropped words."""
    groups: dict[str, list[float]] = defaultdict(list)
    for product, weight in zip(products, image_weights.tolist(), strict=True):
        groups[f"{len(product.dropped)} dropped"].append(weight)
        for word in product.dropped:
            groups[f"{word} dropped"].append(weight)
            if len(product.dropped) == 1:
                groups[f"{word} alone dropped"].append(weight)
    return {name: _interval(np.array(weights)) for name, weights in sorted(groups.items())}


def color_queries(
    retriever: Retriever,
    catalog: Catalog,
    split: Split,
    found: dict[Modality, ProductEmbeddings],
    products: Sequence[Product],
) -> dict[str, Any]:
    """Returns nDCG@10 of color queries over products without and with their color word, if both sets have answers."""
    queries = [q for q in catalog.split_queries(split) if COLOR in q.kind.partition(":")[2].split("+")]
    dropped = np.array([COLOR in product.dropped for product in products])
    sides = {"colour word gone": dropped, "colour word present": ~dropped}
    ids = {
        name: [product.id for product, included in zip(products, mask, strict=True) if included]
        for name, mask in sides.items()
    }
    answerable = set.intersection(*({q.id for q in judge(queries, of, catalog.info).queries} for of in ids.values()))
    queries = [query for query in queries if query.id in answerable]
    vectors = embed_queries(retriever, queries)
    result: dict[str, Any] = {"queries": len(queries)}
    for modality, embeddings in found.items():
        means = {}
        for name, mask in sides.items():
            ranking = top_k(vectors, embeddings.vectors[mask], 10, absent=embeddings.absent[mask])
            values = score_ranking(ranking, judge(queries, ids[name], catalog.info), [METRIC])[METRIC]
            means[name] = _interval(values)
        kept = means["colour word gone"]["mean"] / means["colour word present"]["mean"]
        result["joint" if modality == "both" else modality] = {**means, "kept": round(kept, 4)}
    return result


def with_noise(
    retriever: Retriever, titles: Sequence[str], found: ProductEmbeddings, size: tuple[int, int]
) -> dict[str, Any]:
    """Returns the title weight with the real image, with noise and with a single color."""
    rng = np.random.default_rng(0)
    kinds: dict[str, Callable[[], np.ndarray]] = {
        "uniform noise": lambda: rng.integers(0, 256, (*size, 3)),
        "one flat random colour": lambda: np.broadcast_to(rng.integers(0, 256, 3), (*size, 3)),
    }
    result = {"real pictures": _interval(found.weights[:, 0])}
    for name, draw in kinds.items():
        pictures = [_png(draw()) for _ in titles]
        result[name] = _interval(retriever.encode_products(titles, pictures).weights[:, 0])
    return result


def _png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(buffer, "png")
    return buffer.getvalue()


def _interval(values: np.ndarray) -> dict[str, float]:
    interval = mean_intervals(np.asarray(values, np.float64)[:, None])
    bounds = (("mean", interval.mean), ("low", interval.low), ("high", interval.high))
    return {"n": len(values), **{name: round(float(of[0]), 4) for name, of in bounds}}


def draw(result: dict[str, Any], path: Path) -> None:
    """Draws image weights by dropped words, color queries, and title weights with noise."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11.5, 3.8), dpi=130, layout="constrained")
    left, middle, right = figure.subplots(1, 3, width_ratios=[1.5, 1, 1])
    weights = {name: of for name, of in result["image_weight"].items() if not name.endswith("alone dropped")}
    _bars(left, weights, "image weight by dropped words", "#4477aa")
    sides = {
        f"{system}\n{side}": result["colour_queries"][system][side]
        for system in ("joint", "title")
        for side in ("colour word present", "colour word gone")
    }
    _bars(middle, sides, "nDCG@10 of color queries", "#ee8866")
    _bars(right, result["title_weight"], "title weight by image", "#44aa77")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    write_atomically(path, buffer.getvalue())


def _bars(panel: Any, values: dict[str, dict[str, float]], title: str, colour: str) -> None:
    names = list(values)
    means = np.array([values[name]["mean"] for name in names])
    errors = np.abs(np.array([[values[name]["low"], values[name]["high"]] for name in names]).T - means)
    panel.barh(range(len(names)), means, xerr=errors, color=colour, error_kw={"linewidth": 1})
    panel.set_yticks(range(len(names)), names, fontsize=8)
    panel.invert_yaxis()
    for place, mean in enumerate(means):
        panel.text(0.01, place, f"{mean:.3f}", va="center", fontsize=8, color="white")
    panel.set_title(title, fontsize=10)
    panel.set_xlim(0, 1)
    panel.spines[["top", "right"]].set_visible(False)


def main() -> None:
    """Measures, writes and prints the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--catalog", required=True)
    parser.add_argument("--split", choices=["val", "test"], default="test")
    args = parser.parse_args()
    catalog = Catalog.load(args.catalog)
    products = [p for p in catalog.split_products(args.split) if p.title and p.image is not None]
    if not any(product.dropped for product in products):
        raise InputError(f"{catalog.path}: no product has `dropped`, the words removed from its title")
    retriever = Retriever.load(args.run)
    found = {m: embed_products(retriever, catalog, products, m) for m in ("both", "title")}
    size = (retriever.model.inputs.image_height, retriever.model.inputs.image_width)
    result = {
        "about": metadata(catalog, seed=0),
        "split": args.split,
        "image_weight": by_dropped(products, found["both"].weights[:, 1]),
        "colour_queries": color_queries(retriever, catalog, args.split, found, products),
        "title_weight": with_noise(retriever, [product.title for product in products], found["both"], size),
    }
    write_atomically(ROOT / "docs/results/modal-weights.json", json.dumps(result, ensure_ascii=False, indent=1) + "\n")
    draw(result, ROOT / "docs/modal-weights.png")
    print(json.dumps({name: result[name] for name in ("image_weight", "colour_queries", "title_weight")}, indent=1))


if __name__ == "__main__":
    exit_cleanly(main)
