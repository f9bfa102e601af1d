"""Evaluates a model and writes its report, or compares two reports, as the options of `eval` request."""

import contextlib
import hashlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, Literal

from make_jax.catalog.reader import Catalog
from make_jax.cli.evaluation_stores import evaluation_stores, pull_report
from make_jax.cli.options import CompareOptions, EvalOptions
from make_jax.console import LiteralConsole, StageBars
from make_jax.errors import InputError
from make_jax.evaluation.compare import compare, print_comparison, read_report, write_comparison
from make_jax.evaluation.evaluate import embed_all, evaluate
from make_jax.evaluation.models import BM25, OpenedModel, open_model
from make_jax.evaluation.render import print_report
from make_jax.evaluation.report import report_folder, write_report
from make_jax.object_stores import is_url
from make_jax.output_urls import output_folder
from make_jax.ray_cluster import check_paths, connected
from make_jax.retrieval.embed import EmbeddingModel
from make_jax.retrieval.ray_devices import RayDevices
from make_jax.retrieval.rerank import DEFAULT_DEPTH, can_match
from make_jax.runs.provenance import metadata

OTHER_REPORTS = Path("runs/eval")  # reports of models that are not runs


def evaluate_model(options: EvalOptions) -> Path | None:
    """Evaluates a model on a catalog, prints the tables of its report, and returns the folder of the report.

    With `only_embed` it stores the product embeddings, writes no report and returns None.
    """
    with evaluation_stores(options) as local, _ray_devices(local) as devices:
        return _evaluate_model(local, devices)


@contextlib.contextmanager
def _ray_devices(options: EvalOptions) -> Iterator[RayDevices | None]:
    """The devices of the Ray cluster that the options name; None if they name none."""
    if not options.ray:
        yield None
        return
    with connected(options.ray) as ray:
        yield RayDevices(ray, partial(_load_model, Path(options.model).resolve(), options.checkpoint))


def _load_model(path: Path, checkpoint: Literal["best", "last"]) -> EmbeddingModel:
    """The model, on a node of a Ray cluster."""
    check_paths([path])
    model = open_model(path, checkpoint).model
    assert model is not None
    return model


def _evaluate_model(options: EvalOptions, devices: RayDevices | None) -> Path | None:
    console = LiteralConsole()
    catalog = Catalog.load(options.data.catalog) if options.data.catalog else None
    opened = open_model(options.model, options.checkpoint)
    info = opened.run_info
    catalog = catalog or Catalog.load(info.catalog if info else "")
    pool = catalog.info.pool if options.pool == "catalog" else options.pool
    suffix = "" if pool == catalog.info.pool else f"-{pool}"
    home = Path(options.model) / "eval" if info else OTHER_REPORTS / opened.name
    stored = Path(options.embeddings) if options.embeddings else None
    if stored is not None and not info and stored.resolve().is_relative_to(Path(options.model).resolve()):
        raise InputError(f"{stored}: inside the model's folder, whose files identify the model; set another folder")
    if options.only_embed and stored is not None:
        if opened.model is None:
            raise InputError(f"{options.model} has no embeddings; omit --only-embed")
        with StageBars(console) as bars:
            embed_all(opened.model, catalog, options.split, stored, pool=pool, devices=devices, progress=bars.show)
        console.print(f"all embeddings are in {stored}")
        return None
    rerank = options.rerank
    if rerank is None:
        rerank = DEFAULT_DEPTH if can_match(opened.model) else 0
    with StageBars(console) as bars:
        evaluation = evaluate(
            opened.model,
            catalog,
            options.split,
            pool=pool,
            depth=options.depth,
            rerank=rerank,
            vectors_folder=stored,
            devices=devices,
            progress=bars.show,
        )
    provenance = _provenance(options, opened, catalog)
    name = f"{catalog.info.name}-{options.split}{suffix}"
    folder = Path(options.out) if options.out else report_folder(home, name, provenance)
    report = write_report(evaluation, catalog, folder, provenance)
    print_report(report, console)
    if not options.out and folder != home / name:
        console.print(f"{home / name} has the report of another catalog or model of this name, which is kept")
    console.print(f"report: {folder}/report.md, gallery.png, runs/")
    return folder


def _provenance(options: EvalOptions, opened: OpenedModel, catalog: Catalog) -> dict[str, Any]:
    """The field `about` of the report."""
    info, model = opened.run_info, {"name": opened.name, "kind": opened.kind}
    if not info:  # several folders may have this name
        path = options.model if opened.kind == BM25 else str(Path(options.model).resolve())
        model["path_digest"] = hashlib.sha256(path.encode()).hexdigest()
    return metadata(catalog, seed=info.seed if info else 0, model=model) | ({"run": info.run} if info else {})


def compare_reports(options: CompareOptions) -> None:
    """Prints the per-metric differences of two reports with their significance; writes them to `out` if it is set."""
    if options.out and not is_url(options.out) and Path(options.out).exists():
        raise InputError(f"{options.out}: exists, expected a new folder for the comparison")
    a, b = (
        read_report(pull_report(path), system)
        for path, system in ((options.a, options.system_a), (options.b, options.system_b))
    )
    compared = compare(a, b, seed=options.seed)
    console = LiteralConsole()
    print_comparison(compared, console)
    if options.out:
        with output_folder(options.out, last="comparison.json") as folder:
            write_comparison(compared, folder)
        console.print(f"comparison: {options.out}/comparison.md, comparison.json")
