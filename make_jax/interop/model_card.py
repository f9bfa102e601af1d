"""The model card of an export, written from the run: its settings, its checkpoint and its evaluations."""

import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import make_jax
from make_jax.command_line import Form
from make_jax.config import Config
from make_jax.errors import InputError
from make_jax.interop.bundle import ModelBundle
from make_jax.report_tables import markdown_table, system_name

_METRIC = "nDCG@10"
_WHOLE = ("nDCG@10", "MRR@10", "recall@10", "recall@100")  # of all queries
_LIBRARIES = ("jax", "flax", "numpy", "transformers", "tokenizers", "safetensors")
_ONNX = ("torch", "onnx", "onnxscript", "onnxruntime")  # beside these, of a form in ONNX
_USE = {
    "torch": """\
    from make_jax.interop.torch_inputs import MakeProcessor
    from make_jax.interop.torch_make import MakeModel

    model, processor = MakeModel.from_pretrained("."), MakeProcessor.from_pretrained(".")
    queries = model.encode_query(**processor.queries(["..."]))
    products = model.encode_product(**processor.products(["a title"], [open("a.jpg", "rb").read()]))
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
    """The evaluations of a run's checkpoint of that step that lie in its folder: what eval.py wrote there."""
    found = []
    for path in sorted(run.glob("eval/*/report.json")):
        try:
            report = json.loads(path.read_text(encoding="utf-8"))
            if report["about"]["run"]["steps"] == step:
                found.append(report)
        except (ValueError, KeyError, TypeError):
            raise InputError(f"{path}: damaged; run eval.py again, or delete that folder") from None
    return found


def model_card(served: ModelBundle, meta: Mapping[str, Any], reports: Sequence[dict[str, Any]], form: Form) -> str:
    """The card as Markdown, with the header that the Hugging Face hub reads."""
    config, name = served.config, served.origin["run"]
    parts = [
        "---\nlibrary_name: make_jax\npipeline_tag: feature-extraction\ntags: [make, product-retrieval]\n---\n",
        f"# {name}\n",
        _what(served, form),
        "## Use\n",
        _USE["onnx" if form == "onnx-int8" else form],
        "## Training data\n",
        _data(config, meta, reports),
        "## Numbers\n",
        *([_numbers(report) for report in reports] or ["Not measured yet: `python eval.py RUN` before the export.\n"]),
        "## Intended use\n",
        "Ranking a shop's products for short text queries. A score compares products for one query; it is no "
        "probability, and scores of different queries do not compare.\n",
        "## Limits\n",
        _limits(served, reports),
        "## Training\n",
        _training(config, meta),
        "## Environment\n",
        _environment(reports, (*_LIBRARIES, *_ONNX) if form.startswith("onnx") else _LIBRARIES),
        "## Settings\n",
        "```json\n" + json.dumps(asdict(config), indent=1, ensure_ascii=False) + "\n```\n",
    ]
    return "\n".join(parts)


def _what(served: ModelBundle, form: Form) -> str:
    m = served.config.model
    reads = {"both": "title and image", "title": "title", "image": "image"}[m.adaptation.modalities]
    keywords = f", {served.dimensions} of them for keywords" if served.dimensions else ""
    return (
        f"Texts of queries, and products by {reads}, become vectors of {m.embedding_dim + served.dimensions} numbers"
        f"{keywords}; their inner product is the score. Form: {form}. Checkpoint: {served.origin['checkpoint']}, step "
        f"{served.origin['step']:,}. Written by make_jax {make_jax.__version__}.\n"
    )


def _data(config: Config, meta: Mapping[str, Any], reports: Sequence[dict[str, Any]]) -> str:
    digest = meta.get("catalog_digest")
    same = next((r["about"]["catalog"] for r in reports if r["about"]["catalog"]["digest"] == digest), None)
    if same is None:
        named = config.data.catalog or "the one inside make_jax"
        return f"Catalog: {named}, digest {digest or 'unknown'}. No evaluation on it tells more of it.\n"
    return (
        f"Catalog: {same['title'] or same['name']} ({same['name']}), its training split. Licence: "
        f"{same['licence'] or 'not stated'}. Digest {digest}.\n\nQueries: {same['queries_from']}\n"
    )


def _numbers(report: dict[str, Any]) -> str:
    whole, systems = report["slices"]["all"]["systems"], report["systems"]
    catalog, method = report["about"]["catalog"], report["intervals"]
    head = (
        f"{catalog['name']}, {report['split']} split: {report['queries']:,} queries, {report['products']:,} products. "
        f"In brackets the {method['level']:.0%} interval ({method['method']}, {method['resamples']:,} resamples). "
        f"Queries: {catalog['queries_from']}\n"
    )
    all_queries = markdown_table(
        ["system", *_WHOLE], [[system_name(s), *(_interval(whole[s][m]) for m in _WHOLE)] for s in systems]
    )
    rows = [
        [name, f"{part['queries']:,}", *(_interval(part["systems"][s][_METRIC]) for s in systems)]
        for name, part in report["slices"].items()
    ]
    slices = markdown_table(["slice", "queries", *map(system_name, systems)], rows)
    notes = "".join(f"* {note}\n" for note in report["notes"])
    return f"{head}\n{all_queries}\n{_METRIC} by slice:\n\n{slices}\n{notes}"


def _interval(numbers: dict[str, float]) -> str:
    return f"{numbers['mean']:.3f} [{numbers['low']:.3f}, {numbers['high']:.3f}]"


def _limits(served: ModelBundle, reports: Sequence[dict[str, Any]]) -> str:
    i = served.config.inputs
    languages = sorted({name[5:] for r in reports for name in r["slices"] if name.startswith("lang:")})
    split = ", ".join(languages) if languages else "none"
    told = [
        f"Queries are cut behind {i.max_query_tokens} tokens, titles behind {i.max_title_tokens}; pictures are brought "
        f"to {i.image_width} x {i.image_height} pixels.",
        f"Languages in which queries were measured: {split}. Others are unknown to these numbers.",
        "Numbers hold for the catalogs named above, their products and their way of asking; other shops differ.",
    ]
    if served.dimensions:
        told.append(
            f"Keywords are those of the training catalog: {len(served.keywords):,}, of which {served.dimensions} have "
            "a dimension of the vectors; words of other trades are read by the encoders alone."
        )
    if served.config.model.dtype != "float32":
        told.append(f"The run computed matrix products in {served.config.model.dtype}; this form may use float32.")
    return "".join(f"* {line}\n" for line in told)


def _training(config: Config, meta: Mapping[str, Any]) -> str:
    t = config.train
    begun = meta.get("init_from") or {
        name: weights for name in ("query", "title", "image") if (weights := getattr(config.model, name).init_from)
    }
    rows = [
        ["step", f"{meta['position']:,} of {t.steps:,}"],
        ["batch size", f"{t.batch_size:,}"],
        ["minutes", f"{meta['seconds'] / 60:.1f}"],
        ["seed", str(t.seed)],
        ["began with", json.dumps(begun, ensure_ascii=False) if begun else "the seed"],
        ["commit of make_jax", str(meta.get("commit") or "unknown")],
        ["jax", str(meta.get("jax") or "unknown")],
        *([name, f"{value:.4f}"] for name, value in meta.get("metrics", {}).items()),
    ]
    return markdown_table(["of the run", ""], rows)


def _environment(reports: Sequence[dict[str, Any]], libraries: Sequence[str]) -> str:
    here = {"Python": platform.python_version(), **{name: version(name) for name in libraries}}
    lines = ["* This export: " + ", ".join(f"{name} {value}" for name, value in here.items())]
    for report in reports:
        about = report["about"]
        versions = ", ".join(f"{name} {value}" for name, value in about["versions"].items())
        where = f"{about['device']}, {about['machine']}, Python {about['python']}"
        lines.append(f"* {about['catalog']['name']}, {report['split']}: `{about['command']}`, {where}, {versions}")
    return "\n".join(lines) + "\n"
