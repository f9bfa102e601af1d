"""Whether a run's exports find what the run finds: vectors, first ten, nDCG@10, of every judged test query.

    python benchmarks/search/exports.py RUN --catalog PATH [--forms torch onnx onnx-int8 stablehlo]
                                 [--out docs/results/exports.json]

Each form is written by `convert.py export`'s own code to a temporary folder, read back, and asked for all queries and
products of the test split. A place among the first ten counts as other when the product there scores, by the run, more
than 1e-5 from the one that the run has there. Needs the extra [onnx].
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
FIRST = 10
NEAR = 1e-5  # scores that differ by less are equal
METRIC = "nDCG@10"


def main() -> None:
    """Measures and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("--catalog", required=True, help="a catalog folder or .zip")
    parser.add_argument("--forms", nargs="+", default=list(LOADERS), choices=list(LOADERS))
    parser.add_argument("--out", type=Path, default=RESULTS / "exports.json")
    asked = parser.parse_args()
    catalog = Catalog.load(asked.catalog)
    retriever = Retriever.load(asked.run)
    whole = _Asked(retriever, catalog)
    made: dict[str, Any] = {
        "about": metadata(catalog, seed=0, of_forms={name: version(name) for name in LIBRARIES}),
        "queries": len(whole.texts),
        "products": len(whole.products),
        METRIC: whole.interval(whole.values),
        "forms": {},
    }
    for form in asked.forms:
        with tempfile.TemporaryDirectory() as folder:
            out = f"{folder}/{form}"
            export_run(asked.run, out, form, print)
            size = sum(file.stat().st_size for file in Path(out).iterdir())
            made["forms"][form] = {"bytes": size, **whole.compare(LOADERS[form].load(Path(out)))}
        print(form, json.dumps(made["forms"][form]))
    write_atomically(asked.out, json.dumps(made, indent=1, ensure_ascii=False) + "\n")


class _Asked:
    """What a run answers to a catalog's test queries, to compare others with."""

    def __init__(self, encoder: Encoder, catalog: Catalog) -> None:
        self.catalog = catalog
        self.products = catalog.split_products("test")
        ids = [product.id for product in self.products]
        self.judgements = judge(catalog.split_queries("test"), ids, catalog.info)
        self.texts = [query.text for query in self.judgements.queries]
        self.vectors, self.ranking, self.values = self._answers(encoder)
        self.scores = self.vectors[0] @ self.vectors[1].T

    def compare(self, encoder: Encoder) -> dict[str, Any]:
        """How far the vectors of `encoder` are, and what becomes of the first ten and of the metric."""
        vectors, ranking, values = self._answers(encoder)
        far = [np.abs(a - b).max() for a, b in zip(self.vectors, vectors, strict=True)]
        here = np.take_along_axis(self.scores, self.ranking.indices[:, :FIRST], axis=1)
        there = np.take_along_axis(self.scores, ranking.indices[:, :FIRST], axis=1)
        other = np.abs(here - there) > NEAR
        return {
            "largest difference, queries": float(far[0]),
            "largest difference, products": float(far[1]),
            "places among the first ten": int(other.size),
            "other products there": int(other.sum()),
            METRIC: self.interval(values),
            f"{METRIC} minus run": self.interval(values - self.values),
            f"{METRIC} relative to run": float(values.mean() / self.values.mean()),
        }

    def interval(self, values: np.ndarray) -> dict[str, float]:
        """A mean with its 95 % interval."""
        found = mean_intervals(values[:, None], 0)
        return {"mean": float(found.mean[0]), "low": float(found.low[0]), "high": float(found.high[0])}

    def _answers(self, encoder: Encoder) -> tuple[tuple[np.ndarray, np.ndarray], Any, np.ndarray]:
        queries = embed_queries(encoder, self.texts)
        products = embed_products(encoder, self.catalog, self.products, encoder.modalities)
        ranking = top_k(queries, products.vectors, 1000, absent=products.absent)
        return (queries, products.vectors), ranking, score_ranking(ranking, self.judgements)[METRIC]


if __name__ == "__main__":
    exit_cleanly(main)
