"""The model card of an export, generated from the run's settings, checkpoint and evaluation reports."""

import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import make_jax
from make_jax.config import Config
from make_jax.errors import InputError
from make_jax.interop.bundle import ModelBundle
from make_jax.interop.formats import ExportFormat
from make_jax.report_tables import markdown_table, system_name

_SLICE_METRIC = "nDCG@10"
_OVERALL_METRICS = ("nDCG@10", "MRR@10", "recall@10", "recall@100")  # over all queries
_LIBRARIES = ("jax", "flax", "numpy", "transformers", "tokenizers", "safetensors")
_ONNX_LIBRARIES = ("torch", "onnx", "onnxscript", "onnxruntime")  # additional ones, for ONNX
_USAGE = {
    "torch": """\
    from make_jax.interop.torch_model import MakeModel, MakeProcessor

    model, processor = MakeModel.from_pretrained("."), MakeProcessor.from_pretrained(".")
    queries = model.query_embedding(**processor.queries(["..."]))
    products = model.product_embedding(**processor.products(["a title"], [open("a.jpg", "rb").read()]))
    scores = queries @ products.vectors.T
""",
    "sentence-transformers": """\
    from sentence_transformers import SentenceTransformer

    queries = SentenceTransformer(".").encode(["..."])  # products come from the other forms of this model
""",
    "onnx": """\
    from make_jax.evaluation.models import onnx_run

    model = onnx_run.load(".")  # or query.onnx and product.onnx in any ONNX runtime: docs/converting.md
    scores = model.encode_queries(["..."]) @ model.encode_products(["a title"], [None]).vectors.T
""",
    "stablehlo": """\
    from make_jax.evaluation.models import stablehlo_run

    model = stablehlo_run.load(".")  # or jax.export.deserialize of query.stablehlo and product.stablehlo
    scores = model.encode_queries(["..."]) @ model.encode_products(["a title"], [None]).vectors.T
""",
}


def reports_of_step(run: Path, step: int) -> list[dict[str, Any]]:
    """Returns the reports that eval.py wrote into the run folder for the checkpoint of that step."""
    reports = []
    for path in sorted(run.glob("eval/*/report.json")):
        try:
            report = json.loads(path.read_text(encoding="utf-8"))
            if report["about"]["run"]["steps"] == step:
                reports.append(report)
        except (ValueError, KeyError, TypeError):
            raise InputError(f"{path}: damaged; run eval.py again, or delete that folder") from None
    return reports


def model_card(
    bundle: ModelBundle, metadata: Mapping[str, Any], reports: Sequence[dict[str, Any]], form: ExportFormat
) -> str:
    """Returns the card as Markdown, with the YAML header of the Hugging Face hub.

    Args:
        bundle: settings, tokenizer and keywords of the export.
        metadata: of the checkpoint.
        reports: evaluations of the checkpoint (`reports_of_step`).
        form: the export format.
    """
    config, name = bundle.config, bundle.origin["run"]
    parts = [
        "---\nlibrary_name: make_jax\npipeline_tag: feature-extraction\ntags: [make, product-retrieval]\n---\n",
        f"# {name}\n",
        _description(bundle, form),
        "## Use\n",
        _USAGE["onnx" if form == "onnx-int8" else form],
        "## Training data\n",
        _data(config, metadata, reports),
        "## Evaluation\n",
        *(
            [_evaluation(report) for report in reports]
            or ["Not measured yet: `python eval.py RUN` before the export.\n"]
        ),
        "## Intended use\n",
        "Ranking the products of a shop for short text queries. A score compares products for one query; it is not a "
        "probability, and scores of different queries are not comparable.\n",
        "## Limits\n",
        _limits(bundle, reports),
        "## Training\n",
        _training(config, metadata),
        "## Environment\n",
        _environment(reports, (*_LIBRARIES, *_ONNX_LIBRARIES) if form.startswith("onnx") else _LIBRARIES),
        "## Settings\n",
        "```json\n" + json.dumps(asdict(config), indent=1, ensure_ascii=False) + "\n```\n",
    ]
    return "\n".join(parts)


def _description(bundle: ModelBundle, form: ExportFormat) -> str:
    m = bundle.config.model
    inputs = {"both": "title and image", "title": "title", "image": "image"}[m.adaptation.modalities]
    keywords = f", {bundle.keyword_dims} of them for keywords" if bundle.keyword_dims else ""
    return (
        f"Embeds query texts, and products by {inputs}, as vectors of {m.embedding_dim + bundle.keyword_dims} "
        f"dimensions{keywords}; the inner product is the score. Form: {form}. Checkpoint: "
        f"{bundle.origin['checkpoint']}, step {bundle.origin['step']:,}. Written by make_jax {make_jax.__version__}.\n"
    )


def _data(config: Config, metadata: Mapping[str, Any], reports: Sequence[dict[str, Any]]) -> str:
    digest = metadata.get("catalog_digest")
    catalog = next((r["about"]["catalog"] for r in reports if r["about"]["catalog"]["digest"] == digest), None)
    if catalog is None:
        name = config.data.catalog or "the one inside make_jax"
        return f"Catalog: {name}, digest {digest or 'unknown'}. It was not evaluated.\n"
    return (
        f"Catalog: {catalog['title'] or catalog['name']} ({catalog['name']}), its training split. Licence: "
        f"{catalog['licence'] or 'not stated'}. Digest {digest}.\n\nQueries: {catalog['queries_from']}\n"
    )


def _evaluation(report: dict[str, Any]) -> str:
    overall, systems = report["slices"]["all"]["systems"], report["systems"]
    catalog, method = report["about"]["catalog"], report["intervals"]
    head = (
        f"{catalog['name']}, {report['split']} split: {report['queries']:,} queries, {report['products']:,} products. "
        f"In brackets the {method['level']:.0%} interval ({method['method']}, {method['resamples']:,} resamples). "
        f"Queries: {catalog['queries_from']}\n"
    )
    all_queries = markdown_table(
        ["system", *_OVERALL_METRICS],
        [[system_name(s), *(_interval(overall[s][m]) for m in _OVERALL_METRICS)] for s in systems],
    )
    rows = [
        [name, f"{part['queries']:,}", *(_interval(part["systems"][s][_SLICE_METRIC]) for s in systems)]
        for name, part in report["slices"].items()
    ]
    slices = markdown_table(["slice", "queries", *map(system_name, systems)], rows)
    notes = "".join(f"* {note}\n" for note in report["notes"])
    return f"{head}\n{all_queries}\n{_SLICE_METRIC} by slice:\n\n{slices}\n{notes}"


def _interval(numbers: dict[str, float]) -> str:
    return f"{numbers['mean']:.3f} [{numbers['low']:.3f}, {numbers['high']:.3f}]"


_DECODED = {  # by inputs.image_decoding
    "full": "their full size",
    "scaled": "a fraction of their size where they have more than twice as many in each direction",
}


def _limits(bundle: ModelBundle, reports: Sequence[dict[str, Any]]) -> str:
    i = bundle.config.inputs
    languages = sorted({name[5:] for r in reports for name in r["slices"] if name.startswith("lang:")})
    evaluated = ", ".join(languages) if languages else "none"
    limits = [
        f"Queries are truncated to {i.max_query_tokens} tokens, titles to {i.max_title_tokens}; images are resized to "
        f"{i.image_width} x {i.image_height} pixels, from JPEGs decoded at {_DECODED[i.image_decoding]}.",
        f"Query languages in the evaluation: {evaluated}. Quality in other languages is unknown.",
        "The results hold for the catalogs named above, their products and their queries; other shops differ.",
    ]
    if bundle.keyword_dims:
        limits.append(
            f"Keywords are those of the training catalog: {len(bundle.keywords):,}, of which {bundle.keyword_dims} "
            "have a vector dimension; other words are read by the encoders only."
        )
    if bundle.config.model.dtype != "float32":
        limits.append(f"The run computed matrix products in {bundle.config.model.dtype}; this form may use float32.")
    return "".join(f"* {line}\n" for line in limits)


def _training(config: Config, metadata: Mapping[str, Any]) -> str:
    t = config.train
    initialization = metadata.get("init_from") or {
        name: weights for name in ("query", "title", "image") if (weights := getattr(config.model, name).init_from)
    }
    rows = [
        ["step", f"{metadata['position']:,} of {t.steps:,}"],
        ["batch size", f"{t.batch_size:,}"],
        ["minutes", f"{metadata['seconds'] / 60:.1f}"],
        ["seed", str(t.seed)],
        ["initialized from", json.dumps(initialization, ensure_ascii=False) if initialization else "random values"],
        ["commit of make_jax", str(metadata.get("commit") or "unknown")],
        ["jax", str(metadata.get("jax") or "unknown")],
        *([name, f"{value:.4f}"] for name, value in metadata.get("metrics", {}).items()),
    ]
    return markdown_table(["training run", ""], rows)


def _environment(reports: Sequence[dict[str, Any]], libraries: Sequence[str]) -> str:
    versions = {"Python": platform.python_version(), **{name: version(name) for name in libraries}}
    lines = ["* This export: " + ", ".join(f"{name} {value}" for name, value in versions.items())]
    for report in reports:
        about = report["about"]
        libraries_used = ", ".join(f"{name} {value}" for name, value in about["versions"].items())
        where = f"{about['device']}, {about['machine']}, Python {about['python']}"
        lines.append(
            f"* {about['catalog']['name']}, {report['split']}: `{about['command']}`, {where}, {libraries_used}"
        )
    return "\n".join(lines) + "\n"
