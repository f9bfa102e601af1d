"""The files of a run's folder, and reading a trained model back from it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from make_jax.catalog.keywords import KeywordVocabulary
from make_jax.errors import InputError
from make_jax.runs.checkpoints import Checkpoints
from make_jax.runs.state import Params

CHECKPOINTS = "checkpoints"  # subfolder of a run
CONFIG = "config.json"  # in a checkpoint
TOKENIZER = "tokenizer.json"  # in a checkpoint
KEYWORDS = "keywords.json"  # in a checkpoint


def read_checkpoint(
    run: str | Path, checkpoint: Literal["best", "last"] = "best"
) -> tuple[Params, dict[str, Any], dict[str, str]]:
    """Parameters, meta and files of a run's checkpoint; InputError when the folder is no run."""
    folder = Path(run) / CHECKPOINTS
    if not folder.is_dir():
        raise InputError(f"{run}: no run there (no folder {CHECKPOINTS}/); give the folder that train.py wrote")
    checkpoints = Checkpoints(folder)
    try:
        params, meta, files = checkpoints.load_params(checkpoint)
    finally:
        checkpoints.close()
    return params, meta, files


def read_keywords(files: Mapping[str, str], where: Path) -> KeywordVocabulary:
    """The keyword vocabulary of a checkpoint's files; one that was written before there were any has none."""
    text = files.get(KEYWORDS)
    return KeywordVocabulary(()) if text is None else KeywordVocabulary.from_json(text, f"{where}/{KEYWORDS}")
