"""Which settings may change when a run is resumed, and how the others are reported."""

from dataclasses import replace
from pathlib import Path

import pytest

from make_jax.config import Config, to_json
from make_jax.errors import InputError
from make_jax.runs.checkpoints import CheckpointInfo
from make_jax.runs.run_folder import CONFIG
from make_jax.training.resume_check import CHANGEABLE_ON_RESUME, check_resumable, config_differences

SAVED_CONFIG = Config()
CHECKPOINT = CheckpointInfo(Path("/r/000007"), "last", 7, {"catalog_digest": "d"}, {CONFIG: to_json(SAVED_CONFIG)})


def test_all_differences_are_listed_in_one_error():
    config = replace(
        SAVED_CONFIG,
        train=replace(SAVED_CONFIG.train, steps=9, seed=4),
        model=replace(SAVED_CONFIG.model, query=replace(SAVED_CONFIG.model.query, layers=5)),
    )
    with pytest.raises(InputError) as caught:
        check_resumable(config, "other", CHECKPOINT)
    assert str(caught.value) == (
        "/r/000007: a run with other settings: model.query.layers is 5 here, 3 in the checkpoint; "
        "train.steps is 9 here, 700 in the checkpoint; train.seed is 4 here, 0 in the checkpoint; "
        "the catalog's content differs; use the same settings, or another folder with --run "
        "(--train.init-from /r/000007 initializes it from these weights)"
    )


def test_changeable_settings_exist_and_may_differ():
    data = replace(SAVED_CONFIG.data, catalog="elsewhere", cache="there", workers=3, threads=5, prefetch=4)
    train = replace(
        SAVED_CONFIG.train, log_every=1, eval_every=2, save_every=3, eval_batch_size=4, fsdp=5, max_to_keep=6
    )
    train = replace(train, micro_batch_size=7, profile="1:2", writers=())
    model = replace(SAVED_CONFIG.model, remat=True, keyword_scale=2.0)
    objectives = replace(SAVED_CONFIG.objectives, implementation="ring", tile=8)
    distributed = replace(SAVED_CONFIG.distributed, initialization_timeout=9)
    config = Config(
        run="elsewhere", data=data, train=train, model=model, objectives=objectives, distributed=distributed
    )
    changed = {name for name, _, _ in config_differences(config, SAVED_CONFIG)}
    sections = {"distributed": {"distributed.initialization_timeout"}}
    assert changed == set().union(*(sections.get(name, {name}) for name in CHANGEABLE_ON_RESUME))
    check_resumable(config, "d", CHECKPOINT)


def test_training_pairs_of_another_origin_are_a_difference():
    config = replace(SAVED_CONFIG, data=replace(SAVED_CONFIG.data, queries="derived"))
    with pytest.raises(InputError, match=r"data\.queries is 'derived' here, 'clicks' in the checkpoint"):
        check_resumable(config, "d", CHECKPOINT)
