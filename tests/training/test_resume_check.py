"""What may differ between the starts of a run, and how the rest is explained."""

from dataclasses import replace
from pathlib import Path

import pytest

from make_jax.config import Config, to_json
from make_jax.errors import InputError
from make_jax.runs.checkpoints import CheckpointInfo
from make_jax.runs.run_folder import CONFIG
from make_jax.training.resume_check import CHANGEABLE_ON_RESUME, check_resumable, config_differences

CONFIG_THERE = Config()
FOUND = CheckpointInfo(Path("/r/000007"), "last", 7, {"catalog_digest": "d"}, {CONFIG: to_json(CONFIG_THERE)})


def test_all_that_differs_is_said_field_by_field_in_one_error():
    config = replace(
        CONFIG_THERE,
        train=replace(CONFIG_THERE.train, steps=9, seed=4),
        model=replace(CONFIG_THERE.model, query=replace(CONFIG_THERE.model.query, layers=5)),
    )
    with pytest.raises(InputError) as caught:
        check_resumable(config, "other", FOUND)
    assert str(caught.value) == (
        "/r/000007: a run with other settings: model.query.layers is 5 here and 3 there; train.steps is 9 here and 700 "
        "there; train.seed is 4 here and 0 there; the catalog's content differs; use the same, or another folder by "
        "--run (with --train.init-from /r/000007 it begins with these weights)"
    )


def test_free_settings_exist_and_may_differ():
    data = replace(CONFIG_THERE.data, catalog="elsewhere", workers=3)
    train = replace(
        CONFIG_THERE.train, log_every=1, eval_every=2, save_every=3, eval_batch_size=4, fsdp=5, max_to_keep=6
    )
    train = replace(train, micro_batch_size=7, profile="1:2")
    model = replace(CONFIG_THERE.model, remat=True, keyword_scale=2.0)
    objectives = replace(CONFIG_THERE.objectives, implementation="ring", tile=8)
    processes = replace(CONFIG_THERE.distributed, initialization_timeout=9)
    config = Config(run="elsewhere", data=data, train=train, model=model, objectives=objectives, distributed=processes)
    changed = {name for name, _, _ in config_differences(config, CONFIG_THERE)}
    whole = ("data", "distributed")
    parts = {"data.catalog", "data.workers", "distributed.initialization_timeout"}
    assert changed == parts | {name for name in CHANGEABLE_ON_RESUME if name not in whole}
    check_resumable(config, "d", FOUND)
