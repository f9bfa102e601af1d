"""Compares the exports of a run with the run: vectors, top ten and nDCG@10 of all judged test queries.

    python benchmarks/search/exports.py RUN --catalog PATH [--forms torch onnx onnx-int8 stablehlo]
                                        [--out docs/results/exports.json]

Any CPU, a few minutes; needs the extra [onnx]. Each format is exported to a temporary folder, loaded, and encodes all
queries and products of the test split. A rank of the top ten counts as changed if the scores of the two products there,
by the run, differ by more than 1e-5.
"""

import argparse
import json
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the repository root

from benchmarks import RESULTS
from make_jax.catalog.reader import Catalog
from make_jax.errors import exit_cleanly
from make_jax.evaluation.metrics import judge, score_ranking
from make_jax.evaluation.models import onnx_run, stablehlo_run, torch_run
from make_jax.evaluation.significance import mean_intervals
from make_jax.files import write_atomically
from make_jax.interop.formats import ExportFormat
from make_jax.retrieval.embed import Encoder, embed_products, embed_queries
from make_jax.retrieval.retriever import Retriever
from make_jax.retrieval.top_k import top_k
from make_jax.runs.convert import export_run
from make_jax.runs.provenance import metadata

LOADERS: dict[ExportFormat, Any] = {
    "torch": torch_run,
    "onnx": onnx_run,
    "onnx-int8": onnx_run,
    "stablehlo": stablehlo_run,
}
LIBRARIES = ("torch", "transformers", "onnx", "onnxscript", "onnxruntime", "flatbuffers")
TOP = 10
TOLERANCE = 1e-5  # scores that differ by less are equal
METRIC = "nDCG@10"


def main() -> None:
    """Compares all formats and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("--catalog", required=True, help="a catalog folder or .zip")
    parser.add_argument("--forms", nargs="+", default=list(LOADERS), choices=list(LOADERS))
    parser.add_argument("--out", type=Path, default=RESULTS / "exports.json")
    args = parser.parse_args()
    catalog = Catalog.load(args.catalog)
    retriever = Retriever.load(args.run)
    reference = _Reference(retriever, catalog)
    result: dict[str, Any] = {
        "about": metadata(catalog, seed=0, of_forms={name: version(name) for name in LIBRARIES}),
        "queries": len(reference.texts),
        "products": len(reference.products),
        METRIC: reference.interval(reference.values),
        "forms": {},
    }
    for form in args.forms:
        with tempfile.TemporaryDirectory() as folder:
            out = f"{folder}/{form}"
            export_run(args.run, out, form, print)
            size = sum(file.stat().st_size for file in Path(out).iterdir())
            result["forms"][form] = {"bytes": size, **reference.compare(LOADERS[form].load(Path(out)))}
        print(form, json.dumps(result["forms"][form]))
    write_atomically(args.out, json.dumps(result, indent=1, ensure_ascii=False) + "\n")


class _Reference:
    """Vectors, rankings and metric of a run on the test queries of a catalog."""

    def __init__(self, encoder: Encoder, catalog: Catalog) -> None:
        self.catalog = catalog
        self.products = catalog.split_products("test")
        ids = [product.id for product in self.products]
        self.judgements = judge(catalog.split_queries("test"), ids, catalog.info)
        self.texts = [query.text for query in self.judgements.queries]
        self.vectors, self.ranking, self.values = self._search(encoder)
        self.scores = self.vectors[0] @ self.vectors[1].T

    def compare(self, encoder: Encoder) -> dict[str, Any]:
        """Returns the differences of `encoder` in vectors, top ten and metric."""
        vectors, ranking, values = self._search(encoder)
        differences = [np.abs(a - b).max() for a, b in zip(self.vectors, vectors, strict=True)]
        expected = np.take_along_axis(self.scores, self.ranking.indices[:, :TOP], axis=1)
        found = np.take_along_axis(self.scores, ranking.indices[:, :TOP], axis=1)
        changed = np.abs(expected - found) > TOLERANCE
        return {
            "largest difference, queries": float(differences[0]),
            "largest difference, products": float(differences[1]),
            "places among the first ten": int(changed.size),
            "other products there": int(changed.sum()),
            METRIC: self.interval(values),
            f"{METRIC} minus run": self.interval(values - self.values),
            f"{METRIC} relative to run": float(values.mean() / self.values.mean()),
        }

    def interval(self, values: np.ndarray) -> dict[str, float]:
        """Returns a mean with its 95 % interval."""
        interval = mean_intervals(values[:, None], 0)
        return {"mean": float(interval.mean[0]), "low": float(interval.low[0]), "high": float(interval.high[0])}

    def _search(self, encoder: Encoder) -> tuple[tuple[np.ndarray, np.ndarray], Any, np.ndarray]:
        queries = embed_queries(encoder, self.texts)
        products = embed_products(encoder, self.catalog, self.products, encoder.modalities)
        ranking = top_k(queries, products.vectors, 1000, absent=products.absent)
        return (queries, products.vectors), ranking, score_ranking(ranking, self.judgements)[METRIC]


if __name__ == "__main__":
    exit_cleanly(main)
