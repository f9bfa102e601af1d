"""Whether a run folder holds the run that is asked for."""

import dataclasses
from typing import Any

from make_jax.config import Config, from_json
from make_jax.errors import InputError
from make_jax.runs.checkpoints import CheckpointInfo
from make_jax.runs.run_folder import CONFIG

# Settings that change where a run reads, how fast it goes, what it tells or how it ranks, and not what it learns.
# Another micro_batch_size drops other activations, as another count of devices does.
_FREE_IN_TRAIN = (
    *("log_every", "eval_every", "save_every", "eval_batch_size", "max_to_keep"),
    *("micro_batch_size", "fsdp", "profile"),
)
_FREE_ELSEWHERE = (
    *("run", "data", "distributed"),
    *("model.remat", "model.keyword_scale", "objectives.implementation", "objectives.tile"),
)
CHANGEABLE_ON_RESUME = (*_FREE_ELSEWHERE, *(f"train.{name}" for name in _FREE_IN_TRAIN))


def check_resumable(config: Config, digest: str, found: CheckpointInfo) -> None:
    """InputError, field by field, when the checkpoint was made with other settings or another catalog."""
    before = from_json(found.files[CONFIG], f"{found.path}/{CONFIG}")
    differing = [
        f"{name} is {asked!r} here and {saved!r} there"
        for name, asked, saved in config_differences(config, before)
        if name not in CHANGEABLE_ON_RESUME and name.partition(".")[0] not in CHANGEABLE_ON_RESUME
    ]
    if found.meta["catalog_digest"] != digest:
        differing.append("the catalog's content differs")
    if differing:
        raise InputError(
            f"{found.path}: a run with other settings: {'; '.join(differing)}; use the same, or another folder by "
            f"--run (with --train.init-from {found.path} it begins with these weights)"
        )


def values_to_agree_on(config: Config, digest: str) -> dict[str, str]:
    """What all processes of a run must have alike, by name; the paths of a catalog and its cache may differ."""
    settings = dataclasses.asdict(config)
    del settings["distributed"], settings["data"]["catalog"], settings["data"]["cache"]
    return {"the catalog": digest, "the settings": repr(settings)}


def config_differences(a: Any, b: Any, prefix: str = "") -> list[tuple[str, Any, Any]]:
    """(dotted name, value in a, value in b) of the fields in which two dataclasses differ."""
    found = []
    for field in dataclasses.fields(a):
        x, y, name = getattr(a, field.name), getattr(b, field.name), prefix + field.name
        if dataclasses.is_dataclass(x):
            found += config_differences(x, y, f"{name}.")
        elif x != y:
            found.append((name, x, y))
    return found
