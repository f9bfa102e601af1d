"""Writes the report of an evaluation as a folder.

report.json       all numbers, intervals, parameters and provenance; the other files derive from it or accompany it
report.md         the same as tables
per_query.jsonl   every metric of every query and system, the input of `eval.py compare`
runs/*.run.gz     TREC runs, with qrels.txt, for re-scoring with other tools
weights.png       histograms of the modal weights
gallery.png       example queries with their top results
"""

import contextlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from make_jax.catalog.reader import Catalog
from make_jax.errors import InputError
from make_jax.evaluation.evaluate import Evaluation
from make_jax.evaluation.gallery import draw_gallery
from make_jax.evaluation.metrics import METRICS
from make_jax.evaluation.render import markdown
from make_jax.evaluation.significance import BOOTSTRAP_RESAMPLES, Interval, macro_intervals, mean_intervals
from make_jax.evaluation.slices import family
from make_jax.evaluation.trec import write_qrels, write_run
from make_jax.evaluation.weights_plot import draw_weights, weight_groups
from make_jax.files import PARTIAL, exit_waits, folder_atomically, removed_on_exit, write_atomically
from make_jax.retrieval.top_k import TopK

FORMAT = 2


def write_report(
    evaluation: Evaluation, catalog: Catalog, folder: str | Path, about: dict[str, Any], *, seed: int = 0
) -> dict[str, Any]:
    """Writes the report folder atomically and returns the content of report.json.

    An existing report is replaced. Raises InputError for a folder with other files and for a full disk.
    `about` is the result of `provenance.metadata`.
    """
    folder = Path(folder)
    report = build_report(evaluation, about, seed=seed)
    with _replacing(folder) as new:
        ids = [query.id for query in evaluation.judgements.queries]
        for system, ranking in evaluation.rankings.items():
            head = TopK(ranking.scores[:, : evaluation.depth], ranking.indices[:, : evaluation.depth])
            write_run(new / "runs" / f"{system}.run.gz", head, ids, evaluation.judgements.product_ids, system)
        write_qrels(new / "qrels.txt", evaluation.judgements.qrels)
        write_atomically(new / "per_query.jsonl", "".join(_per_query(evaluation)))
        if "modal_weights" in report:
            draw_weights(evaluation, new / "weights.png")
        report["gallery"] = draw_gallery(evaluation, catalog, new / "gallery.png", seed=seed)
        write_atomically(new / "report.json", json.dumps(report, ensure_ascii=False, indent=1, allow_nan=False) + "\n")
        write_atomically(new / "report.md", markdown(report))
    return report


def report_folder(home: Path, name: str, about: dict[str, Any]) -> Path:
    """The folder `home`/`name`, or a similar one where that has the report of another catalog or model of this name.

    Another catalog has its digest added to `name`, another model (`about["model"]["path_digest"]`) to `home`.
    """
    catalog, model = about["catalog"]["digest"], about["model"].get("path_digest")
    homes = [home] if model is None else [home, home.with_name(f"{home.name}-{model[:8]}")]
    folder = home / name
    for parent in homes:
        for folder in (parent / name, parent / f"{name}-{catalog[:8]}"):
            found = _identity(folder)
            same_model = found is None or model is None or found[1] in (None, model)
            if found is None or (same_model and found[0] == catalog):
                return folder
            if not same_model:
                break
    return folder


def _identity(folder: Path) -> tuple[str, str | None] | None:
    """The catalog and the model of the report in a folder, by their digests; None without a readable report."""
    try:
        about = json.loads((folder / "report.json").read_text("utf-8-sig"))["about"]
        return about["catalog"]["digest"], about["model"].get("path_digest")
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None


def build_report(evaluation: Evaluation, about: dict[str, Any], *, seed: int = 0) -> dict[str, Any]:
    """Returns all numbers of the evaluation as JSON values: means with 95 % intervals, by slice and system."""
    judgements = evaluation.judgements
    report: dict[str, Any] = {
        "format": FORMAT,
        "about": about,
        "split": evaluation.split,
        "pool": evaluation.pool,
        "products": len(evaluation.products),
        "queries": len(judgements.queries),
        "queries_without_positive": list(judgements.without_positive),
        "relevant_grade": judgements.relevant,
        "main": evaluation.main,
        "fused": evaluation.fused,
        "reranked": evaluation.reranked,
        "systems": list(evaluation.rankings),
        "metrics": list(METRICS),
        "ir_measures": judgements.rescore_names(),
        "intervals": {
            "level": 0.95,
            "method": "percentile bootstrap over queries",
            "resamples": BOOTSTRAP_RESAMPLES,
            "seed": seed,
        },
        "parameters": evaluation.parameters,
        "cost": evaluation.cost,
        "notes": list(evaluation.notes),
        "slices": {name: _slice(evaluation, mask, seed) for name, mask in evaluation.slices.items()},
        "macro": _macro(evaluation, seed),
    }
    modal_weights = {
        name: {
            "products": len(weights),
            "mean_title": float(weights.mean()),
            "quantiles_title": {str(q): float(np.quantile(weights, q)) for q in (0.05, 0.25, 0.5, 0.75, 0.95)},
        }
        for name, weights in weight_groups(evaluation).items()
    }
    return report | ({"modal_weights": modal_weights} if modal_weights else {})


def comparisons(evaluation: Evaluation) -> list[tuple[str, str]]:
    """Returns the pairs (system, other) with a paired difference in the report."""
    main, fused, reranked = evaluation.main, evaluation.fused, evaluation.reranked
    pairs = [(main, other) for other in evaluation.rankings if other not in (main, fused, reranked)]
    pairs += [(reranked, main)] if reranked else []
    return pairs + ([(fused, main), (fused, "bm25")] if fused else [])


def _slice(evaluation: Evaluation, mask: np.ndarray, seed: int) -> dict[str, Any]:
    """Returns the numbers of one slice: means of each system, and paired differences."""
    table = {
        system: np.stack([values[metric][mask] for metric in METRICS], axis=1)
        for system, values in evaluation.values.items()
    }
    pairs = comparisons(evaluation)
    columns = [*table.values(), *(table[a] - table[b] for a, b in pairs)]
    intervals = mean_intervals(np.concatenate(columns, axis=1), seed)
    blocks = [_numbers(intervals, i * len(METRICS)) for i in range(len(columns))]
    return {
        "queries": int(mask.sum()),
        "systems": dict(zip(table, blocks[: len(table)], strict=True)),
        "differences": [
            {"system": a, "minus": b, "metrics": numbers}
            for (a, b), numbers in zip(pairs, blocks[len(table) :], strict=True)
        ],
    }


def _macro(evaluation: Evaluation, seed: int) -> dict[str, Any]:
    """Returns macro means over groups of queries: kind (to its first colon) and language."""
    groups = [(family(query), query.lang) for query in evaluation.judgements.queries]
    columns = [np.stack([values[metric] for metric in METRICS], axis=1) for values in evaluation.values.values()]
    intervals = macro_intervals(np.concatenate(columns, axis=1), groups, seed)
    return {
        "groups": {" ".join(filter(None, group)): count for group, count in sorted(Counter(groups).items())},
        "systems": {system: _numbers(intervals, i * len(METRICS)) for i, system in enumerate(evaluation.values)},
    }


def _numbers(intervals: Interval, start: int) -> dict[str, dict[str, float]]:
    """Returns one block of columns as metric -> mean, low, high."""
    return {
        metric: {
            "mean": float(intervals.mean[start + i]),
            "low": float(intervals.low[start + i]),
            "high": float(intervals.high[start + i]),
        }
        for i, metric in enumerate(METRICS)
    }


def _per_query(evaluation: Evaluation) -> Iterator[str]:
    """Yields one JSON line per query."""
    for i, query in enumerate(evaluation.judgements.queries):
        values = {
            system: {metric: round(float(by_metric[metric][i]), 6) for metric in METRICS}
            for system, by_metric in evaluation.values.items()
        }
        slices = [name for name, mask in evaluation.slices.items() if mask[i]]
        line = {"qid": query.id, "kind": query.kind, "lang": query.lang, "slices": slices, "values": values}
        yield json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n"


@contextlib.contextmanager
def _replacing(folder: Path) -> Iterator[Path]:
    """Yields an empty folder that replaces `folder` on a clean exit; an error leaves the old one unchanged."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is a file; expected a folder for the report")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / "report.json").is_file():
        raise InputError(
            f"{folder}: contains files that are not a report; choose an empty or new folder for the report"
        )
    fresh, old = (folder.with_name(f"{PARTIAL}{folder.name}-{word}-{os.getpid()}") for word in ("new", "old"))
    with removed_on_exit(lambda: fresh):
        try:
            with folder_atomically(fresh) as new:
                yield new
        except OSError as error:
            advice = "free some space, or choose a folder on another disk for the report"
            raise InputError(f"{folder}: the report was not written ({error.strerror or error}); {advice}") from error
        with exit_waits():
            if folder.exists():
                folder.rename(old)
            try:
                fresh.rename(folder)
            except OSError:
                if old.exists():
                    old.rename(folder)
                raise
            shutil.rmtree(old, ignore_errors=True)
