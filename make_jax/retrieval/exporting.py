"""A run's model out for other programs, and back: what `convert.py export` and `convert.py import --from torch` do."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

import make_jax
from make_jax.command_line import ExportOptions, Form
from make_jax.config import from_json, to_json
from make_jax.errors import InputError
from make_jax.files import folder_atomically
from make_jax.inputs.tokenizer import from_definition
from make_jax.interop import onnx_files, sentence_transformers, stablehlo, torch_files
from make_jax.interop.served import CARD, Served, left_out, searching
from make_jax.interop.source import find
from make_jax.retrieval.card import card, reports_of
from make_jax.runs.checkpoints import Checkpoints
from make_jax.runs.run_folder import CHECKPOINTS, CONFIG, KEYWORDS, TOKENIZER, read_checkpoint, read_keywords
from make_jax.runs.state import Params

Write = Callable[[Path, Params, Served], None]
Note = Callable[[str], None]


def export_run(options: ExportOptions, note: Note) -> None:
    """Writes a checkpoint of a run in the form asked for to the folder OUT, whole or not at all.

    `note` is told what was written. Raises InputError, with nothing written, when OUT exists, RUN is no run, the model
    has no such form, or a library is missing.
    """
    out = Path(options.out)
    if out.exists():
        raise InputError(f"OUT: {out} exists; name a folder that does not")
    write = _writer(options.to)
    params, meta, files = read_checkpoint(options.run, options.checkpoint)
    config = from_json(files[CONFIG], f"{options.run}/{CONFIG}")
    keywords = read_keywords(files, Path(options.run))
    origin = {
        "run": Path(options.run).resolve().name,
        "checkpoint": options.checkpoint,
        "step": meta["position"],
        "training_seconds": meta["seconds"],
        "commit": meta.get("commit"),
        "catalog_digest": meta.get("catalog_digest"),
        "make_jax": make_jax.__version__,
    }
    tokenizer = from_definition(files[TOKENIZER])
    served = Served(searching(config), tokenizer, keywords, torch_files.CONSTANTS, origin)
    told = card(served, meta, reports_of(Path(options.run), meta["position"]), options.to)
    with folder_atomically(out) as partial:
        write(partial, params, served)
        (partial / CARD).write_text(told, encoding="utf-8")
    for what in left_out(config.model):
        note(f"left out, because search does not use it: {what}")
    if config.model.dtype != "float32" and options.to != "stablehlo":
        note(f"the run computes matrix products in {config.model.dtype}, this form in float32: scores differ by that")
    note(f"{out}: step {meta['position']} of {options.run} as {options.to}")


def import_torch(source: str, out: str, note: Note) -> None:
    """Makes a run of a folder that `export --to torch` wrote, or that PyTorch saved after it: a checkpoint at step 0.

    `eval.py`, `export` and `train.init_from` take it. Parameters come back bit by bit. Raises InputError, with nothing
    written, when OUT exists or SOURCE is not whole (`interop.torch_files.read`).
    """
    if Path(out).exists():
        raise InputError(f"OUT: {out} exists; name a folder that does not")
    params, served = torch_files.read(find(source, "SOURCE"))
    config = to_json(replace(served.config, run=out))
    files = {CONFIG: config, TOKENIZER: served.tokenizer.definition, KEYWORDS: served.keywords.to_json()}
    # How PyTorch trained it since is not known, so no clock is taken over.
    meta: dict[str, Any] = {"position": 0, "seconds": 0.0, "init_from": dict(served.origin)}
    meta |= {name: served.origin.get(name) for name in ("catalog_digest", "commit")}
    with folder_atomically(out) as partial:
        checkpoints = Checkpoints(partial / CHECKPOINTS)
        try:
            checkpoints.save("best", 0, {"params": jax.tree.map(jnp.asarray, params)}, meta, files)
        finally:
            checkpoints.close()
        (partial / CONFIG).write_text(config, encoding="utf-8")
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    note(f"{out}: a run with {count / 1e6:.1f}M parameters at step 0; eval.py and train.init_from take it")


def _writer(form: Form) -> Write:
    """What writes a form. InputError when its libraries are not installed."""
    if form in ("onnx", "onnx-int8"):
        onnx_files.check_libraries(form == "onnx-int8")
    if form == "stablehlo":
        stablehlo.check_libraries()
    forms: dict[Form, Write] = {
        "torch": torch_files.write,
        "sentence-transformers": sentence_transformers.write,
        "onnx": onnx_files.write,
        "onnx-int8": partial(onnx_files.write, int8=True),
        "stablehlo": stablehlo.write,
    }
    return forms[form]
