"""A run as an export, and a PyTorch folder as a run: `convert.py export` and `convert.py import --from torch`."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp

import make_jax
from make_jax.config import to_json
from make_jax.errors import InputError
from make_jax.files import folder_atomically
from make_jax.interop import torch_checkpoint
from make_jax.interop.bundle import ModelBundle, omitted_parts, search_config
from make_jax.interop.export import EXPORTERS, export_model
from make_jax.interop.formats import ExportFormat
from make_jax.interop.model_card import model_card, reports_of_step
from make_jax.interop.model_folder import resolve_model_folder
from make_jax.runs.checkpoints import Checkpoints
from make_jax.runs.run_folder import CHECKPOINTS, CONFIG, KEYWORDS, TOKENIZER, load_trained_model
from make_jax.runs.training_data import copy_record

Log = Callable[[str], None]


def export_run(
    run: str, out: str, form: ExportFormat, log: Log, *, checkpoint: Literal["best", "last"] = "best"
) -> None:
    """Writes a checkpoint of a run to the new folder `out` in the requested form, completely or not at all.

    `log` receives one line per remark. Raises InputError, with nothing written, when `out` exists, `run` is not a run,
    the model has no such form, or a library is missing.
    """
    if Path(out).exists():
        raise InputError(f"OUT: {out} exists; name a folder that does not")
    EXPORTERS[form].check_libraries()
    trained = load_trained_model(run, checkpoint)
    config, metadata = trained.config, trained.metadata
    origin = {
        "run": Path(run).resolve().name,
        "checkpoint": checkpoint,
        "step": metadata["position"],
        "training_seconds": metadata["seconds"],
        "commit": metadata.get("commit"),
        "catalog_digest": metadata.get("catalog_digest"),
        "make_jax": make_jax.__version__,
    }
    bundle = ModelBundle(search_config(config), trained.tokenizer, trained.keywords, torch_checkpoint.CONSTANTS, origin)
    reports = reports_of_step(Path(run), metadata["position"])
    card = model_card(bundle, metadata, reports, form)
    export_model(Path(out), trained.params, bundle, card, form, lambda folder: copy_record(Path(run), folder))
    for part in omitted_parts(config.model):
        log(f"left out, because search does not use it: {part}")
    if config.model.dtype != "float32" and form != "stablehlo":
        log(f"the run computes matrix products in {config.model.dtype}, this form in float32: scores differ by that")
    log(f"{out}: step {metadata['position']} of {run} as {form}")


def import_torch(source: str, out: str, log: Log) -> None:
    """Writes the run folder `out` from a folder that `export --to torch` or PyTorch's `save_pretrained` wrote.

    The run has one checkpoint, at step 0, with bit-identical parameters; `eval.py`, `export` and `train.init_from`
    accept it. Raises InputError, with nothing written, when OUT exists or SOURCE is incomplete
    (`interop.torch_checkpoint.read`).
    """
    if Path(out).exists():
        raise InputError(f"OUT: {out} exists; name a folder that does not")
    folder = resolve_model_folder(source, "SOURCE")
    params, bundle = torch_checkpoint.read(folder)
    config = to_json(replace(bundle.config, run=out))
    files = {CONFIG: config, TOKENIZER: bundle.tokenizer.definition, KEYWORDS: bundle.keywords.to_json()}
    # How long PyTorch trained since the export is unknown, so the clock starts at 0.
    metadata: dict[str, Any] = {"position": 0, "seconds": 0.0, "init_from": dict(bundle.origin)}
    metadata |= {name: bundle.origin.get(name) for name in ("catalog_digest", "commit")}
    with folder_atomically(out) as partial_folder:
        checkpoints = Checkpoints(partial_folder / CHECKPOINTS)
        try:
            checkpoints.save("best", 0, {"params": jax.tree.map(jnp.asarray, params)}, metadata, files)
        finally:
            checkpoints.close()
        (partial_folder / CONFIG).write_text(config, encoding="utf-8")
        copy_record(folder, partial_folder)
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    log(f"{out}: a run with {count / 1e6:.1f}M parameters at step 0; eval.py and train.init_from take it")
