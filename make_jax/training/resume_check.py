"""Whether a checkpoint may be resumed with the current settings."""

import dataclasses
from typing import Any

from make_jax.config import Config
from make_jax.errors import InputError
from make_jax.runs.checkpoints import CheckpointInfo
from make_jax.runs.run_folder import read_config

# Settings that may change when a run is resumed: where it reads, how fast it runs, what it logs or how it ranks, but
# not what it learns. Another micro_batch drops other activations, as another device count does.
CHANGEABLE_ON_RESUME = (
    *("run", "distributed"),
    *("data.catalog", "data.cache", "data.workers", "data.threads", "data.prefetch"),
    *("model.remat", "model.keyword_scale", "objectives.implementation", "objectives.tile"),
    *("train.log_every", "train.eval_every", "train.save_every", "train.eval_batch_size", "train.max_to_keep"),
    *("train.micro_batch_size", "train.fsdp", "train.profile", "train.writers"),
)


def check_resumable(config: Config, catalog_digest: str, checkpoint: CheckpointInfo) -> None:
    """Raises InputError that lists all differences if the checkpoint has other settings or another catalog."""
    saved = read_config(checkpoint)
    different = [
        f"{name} is {ours!r} here, {theirs!r} in the checkpoint"
        for name, ours, theirs in config_differences(config, saved)
        if name not in CHANGEABLE_ON_RESUME and name.partition(".")[0] not in CHANGEABLE_ON_RESUME
    ]
    if checkpoint.meta["catalog_digest"] != catalog_digest:
        different.append("the catalog's content differs")
    if different:
        raise InputError(
            f"{checkpoint.path}: a run with other settings: {'; '.join(different)}; use the same settings, or another "
            f"folder with --run (--train.init-from {checkpoint.path} initializes it from these weights)"
        )


def values_to_agree_on(config: Config, catalog_digest: str) -> dict[str, str]:
    """Returns what all processes of a run must have in common, by name; paths of catalog and cache may differ."""
    settings = dataclasses.asdict(config)
    del settings["distributed"], settings["data"]["catalog"], settings["data"]["cache"]
    return {"the catalog": catalog_digest, "the settings": repr(settings)}


def config_differences(a: Any, b: Any, prefix: str = "") -> list[tuple[str, Any, Any]]:
    """Returns (dotted name, value in a, value in b) of each field in which two config dataclasses differ."""
    differences = []
    for field in dataclasses.fields(a):
        x, y, name = getattr(a, field.name), getattr(b, field.name), prefix + field.name
        if dataclasses.is_dataclass(x):
            differences += config_differences(x, y, f"{name}.")
        elif x != y:
            differences.append((name, x, y))
    return differences
