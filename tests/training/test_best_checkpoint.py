"""The best checkpoint of a run that gets worse on purpose: steps are ranked by comparable values."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from make_jax.catalog.reader import Catalog
from make_jax.config import Config
from make_jax.retrieval.retriever import Retriever
from make_jax.runs import checkpoints
from make_jax.runs.mesh import make_mesh
from make_jax.runs.run_folder import TrainedModel, load_trained_model
from make_jax.training import keyword_heads, loop
from make_jax.training.eval_context import EvalContext
from make_jax.training.initialization import KEYWORD_HEADS
from make_jax.training.loop import train
from make_jax.training.metric_writers.jsonl import read_metrics
from make_jax.training.validation import BEST_METRIC, Validator
from tests.training.tiny_run import tiny_config

STEPS = 3


def getting_worse(*_: Any) -> Any:
    """In place of `make_step`, without a gradient: the last step destroys the image encoder, others change nothing."""

    def step(state: Any, _: Any) -> Any:
        kept = jnp.where(state.step == STEPS - 1, 0.0, 1.0)
        image_encoder = jax.tree.map(lambda leaf: leaf * kept, state.params["image_encoder"])
        metrics = dict.fromkeys(("loss", "gradient_norm", "logit_scale"), 0.0 * kept)
        return replace(state, step=state.step + 1, params={**state.params, "image_encoder": image_encoder}), metrics

    return step


@pytest.fixture(scope="module")
def patch():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "make_step", getting_worse)
        patch.setattr(keyword_heads, "STEPS", 200)
        yield patch


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, patch) -> tuple[Config, dict[int, float]]:
    """The config of a finished run, and its validation values without keyword heads, by step."""
    config = tiny_config(tmp_path_factory.mktemp("worse"), steps=STEPS, eval_every=1, save_every=1, writers=("jsonl",))
    config = replace(config, optim=replace(config.optim, ema_decay=0.0))
    without: dict[int, float] = {}
    evaluate = loop.Trainer.evaluate

    def measured_twice(trainer: Any, step: int, state: Any) -> Any:
        without[step] = trainer.validator.measure(state.eval_params)[BEST_METRIC]
        return evaluate(trainer, step, state)

    with patch.context() as inner:
        inner.setattr(loop.Trainer, "evaluate", measured_twice)
        train(config)
    return config, without


def logged(config: Config) -> list[tuple[int, float]]:
    """The validation values of a run, in order."""
    records = read_metrics(Path(config.run) / "metrics.jsonl")
    return [(record["step"], record[BEST_METRIC]) for record in records if BEST_METRIC in record]


def validated(config: Config, trained: TrainedModel) -> float:
    """The validation value of a loaded checkpoint."""
    model = Retriever.from_trained_model(trained).model
    catalog = Catalog.load(config.data.catalog)
    context = EvalContext(catalog, model, trained.tokenizer, trained.keywords, make_mesh(), 16)
    return Validator(context).measure(trained.params)[BEST_METRIC]


def test_the_best_step_is_not_the_last_and_has_the_heads_of_its_own_parameters(run):
    config, without = run
    values = dict(logged(config))
    assert list(values) == [1, 2, 3] and values[1] == values[2] > values[3]
    assert without[1] < values[3]  # compared without heads but at the last step, that one would be the best
    [folder] = Path(config.run).glob("checkpoints/best/*")
    assert folder.name == "000001" and json.loads((folder / "meta.json").read_text())["best"] == values[1]
    for kind, step in (("best", 1), ("last", 3)):
        assert validated(config, load_trained_model(config.run, kind)) == values[step]


def test_a_checkpoint_between_evaluations_has_no_heads_of_older_parameters(run):
    config, _ = run
    folder = Path(config.run) / "checkpoints"
    saved = [folder / "last" / "000002", folder / "last" / "000003"]
    heads = [checkpoints.Checkpoints(folder).load_params(checkpoints.read(path))[KEYWORD_HEADS] for path in saved]
    assert [bool(np.any(each["title"]["predict"]["kernel"])) for each in heads] == [False, True]


def test_another_keyword_scale_evaluates_the_best_and_the_last_step_again(run):
    config, _ = run
    before = {kind: load_trained_model(config.run, kind) for kind in ("best", "last")}
    count = len(logged(config))
    train(replace(config, model=replace(config.model, keyword_scale=2.0)))
    values = dict(logged(config)[count:])
    assert list(values) == [1, 3] and values[1] > values[3]
    for kind, step in (("best", 1), ("last", 3)):
        trained = load_trained_model(config.run, kind)
        assert (trained.config.model.keyword_scale, trained.metadata["best"]) == (2.0, values[1])
        assert trained.metadata["position"] == step and validated(config, trained) == values[step]
        jax.tree.map(np.testing.assert_array_equal, trained.params, before[kind].params)
