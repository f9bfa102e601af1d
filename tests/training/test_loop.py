"""Complete runs on a tiny catalog: resume, stop, damaged checkpoints, changed settings."""

import doctest
import json
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from make_jax.catalog.derived_queries import training_catalog
from make_jax.config import AdaptationConfig, ObjectivesConfig, OptimConfig, from_json
from make_jax.errors import InputError, Terminated
from make_jax.retrieval.retriever import Retriever
from make_jax.runs.run_folder import load_trained_model
from make_jax.training import keyword_heads, loop, validation
from make_jax.training.loop import train
from make_jax.training.metric_writers.jsonl import read_metrics
from make_jax.training.optimizer import make_optimizer
from tests.training.tiny_run import tiny_config

pytestmark = pytest.mark.usefixtures("few_fit_steps")


def logged(run: Path, name: str = "loss") -> dict[int, float]:
    return {line["step"]: line[name] for line in read_metrics(run / "metrics.jsonl") if name in line}


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run of six steps."""
    folder = tmp_path_factory.mktemp("finished")
    return train(tiny_config(folder))


def test_a_run_writes_losses_validation_curves_and_both_checkpoints(finished_run):
    assert list(logged(finished_run)) == [1, 2, 3, 4, 5, 6]
    assert list(logged(finished_run, "val_ndcg@10")) == [3, 6]
    for name in ("curves.png", "config.json", "checkpoints/last/000006/manifest.json"):
        assert (finished_run / name).is_file()
    assert len(list((finished_run / "checkpoints" / "best").iterdir())) == 1
    assert any((finished_run / "tensorboard").iterdir())


def test_a_run_shorter_than_its_warmup_and_intervals_is_complete(tmp_path, capsys):
    config = tiny_config(tmp_path, steps=3, log_every=10, eval_every=200, save_every=200)
    config = replace(  # one encoder and one loss, which compile fast
        config,
        model=replace(config.model, adaptation=AdaptationConfig("title"), keyword_dims=0, enrichment=False),
        objectives=ObjectivesConfig(keyword_swaps=False),
        optim=OptimConfig(warmup_steps=50),
    )
    run = train(config)
    assert list(logged(run)) == [3] and list(logged(run, "val_ndcg@10")) == [3]
    assert (run / "checkpoints/last/000003/manifest.json").is_file() and (run / "curves.png").is_file()
    note = "optim.warmup_steps is cut from 50 to 2, because train.steps is 3"
    assert " ".join(capsys.readouterr().out.split()).count(note) == 1
    assert (
        from_json((run / "config.json").read_text(), "").optim.warmup_steps == 50
    )  # as set: the same command resumes the run
    train(config)
    assert note not in " ".join(capsys.readouterr().out.split())
    with pytest.raises(InputError, match=r"a run with other settings: train.steps is 9 here, 3 in the checkpoint; use"):
        train(replace(config, train=replace(config.train, steps=9)))


def test_the_logged_learning_rate_is_the_one_that_the_step_used(finished_run):
    config = tiny_config(finished_run.parent)
    params = {"kernel": jnp.ones((2, 2))}
    optimizer = make_optimizer(replace(config.optim, weight_decay=0.0, clip_norm=0.0), config.train.steps, params)
    state, used = optimizer.init(params), []
    for _ in range(config.train.steps):  # Adam of a constant gradient moves by the learning rate
        updates, state = optimizer.update(params, state, params)
        used.append(-float(updates["kernel"][0, 0]))
    np.testing.assert_allclose(list(logged(finished_run, "learning_rate").values()), used, rtol=1e-5, atol=1e-12)
    assert used[0] == 0.0 and used[1] > 0.0


def test_the_title_weight_is_logged_where_it_is_not_constant(finished_run):
    assert not logged(finished_run, "title_weight")  # per keyword: training weighs title and image alike
    assert list(logged(finished_run, "val_title_weight")) == [3, 6]


def test_the_retriever_searches_with_the_run(finished_run):
    retriever = Retriever.load(finished_run)
    retriever.index(split="test")  # of the catalog that the run was trained on
    [hits] = retriever.search(["red circle"], k=5)
    assert len(hits) == 5
    assert all(set(hit.product.attributes) == {"colour", "category"} for hit in hits)  # of products of every split
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    assert all(abs(hit.title_weight + hit.image_weight - 1) < 1e-5 for hit in hits)
    same = retriever.encode_queries(["red circle"] * 3)
    np.testing.assert_allclose(same[0], same[2], atol=1e-6)


def test_the_retriever_searches_stored_vectors_of_its_own_model_only(finished_run, tmp_path):
    retriever, again, last = (Retriever.load(finished_run, which) for which in ("best", "best", "last"))
    retriever.index(finished_run.parent / "tiny", "test")
    again.index(finished_run.parent / "tiny", "test", embeddings=tmp_path)
    [memory], [disk] = (each.search(["red circle"], k=12) for each in (retriever, again))
    assert sorted(hit.product.id for hit in disk) == sorted(hit.product.id for hit in memory)
    np.testing.assert_allclose([hit.score for hit in disk], [hit.score for hit in memory], rtol=0, atol=2e-3)
    assert retriever.digest == again.digest
    last._params = jax.tree.map(lambda leaf: leaf + 1, last._params)
    with pytest.raises(InputError, match=r"test-both/vectors\.json: model is "):
        last.index(finished_run.parent / "tiny", "test", embeddings=tmp_path)


def test_the_retriever_returns_the_expected_keywords(finished_run):
    retriever = Retriever.load(finished_run)
    enhanced = retriever.expand_query("red circle", min_probability=0.0)
    assert {str(keyword) for keyword, _ in enhanced.keywords} == {str(k) for k in retriever.keywords.keywords}
    likely = [probability for _, probability in enhanced.keywords]
    assert likely == sorted(likely, reverse=True) and 0 < likely[-1] < likely[0] < 1 and 0 < enhanced.gate < 1
    assert len(retriever.expand_query("red circle", min_probability=likely[0]).keywords) == 1
    texts = ["blue square", "red circle", "green"]
    for text, together in zip(texts, retriever.expand_queries(texts, min_probability=0.0), strict=True):
        alone = retriever.expand_query(text, min_probability=0.0)
        assert dict(together.keywords) == pytest.approx(dict(alone.keywords), abs=1e-6)
        assert together.gate == pytest.approx(alone.gate, abs=1e-6)


def test_the_docstring_example_of_the_retriever_is_correct(finished_run):
    runner = doctest.DocTestRunner()
    for example in doctest.DocTestFinder().find(Retriever, globs={"run": finished_run}):
        runner.run(example)
    assert runner.summarize().failed == 0
    assert runner.summarize().attempted >= 6


def test_a_finished_run_takes_no_step_and_keeps_its_metrics(finished_run):
    before = logged(finished_run)
    train(tiny_config(finished_run.parent))
    assert logged(finished_run) == before


def test_an_interrupted_and_resumed_run_has_bitwise_the_same_losses(finished_run, tmp_path, monkeypatch):
    config = tiny_config(tmp_path)
    real = loop.make_step

    def stopping(*arguments):
        step, taken = real(*arguments), []

        def one(state, batch):
            taken.append(1)
            if len(taken) == 3:
                os.kill(os.getpid(), signal.SIGINT)  # Ctrl-C in the middle of step 3
            return step(state, batch)

        return one

    monkeypatch.setattr(loop, "make_step", stopping)
    with pytest.raises(KeyboardInterrupt, match="step 3 is saved"):
        train(config)
    saved = json.loads((tmp_path / "run/checkpoints/last/000003/meta.json").read_text())
    assert saved["position"] == 3
    monkeypatch.setattr(loop, "make_step", real)
    train(config)
    assert logged(tmp_path / "run") == logged(finished_run)
    once, twice = (load_trained_model(run, "last").params for run in (finished_run, tmp_path / "run"))
    assert all(np.any(once["keyword_evidence"][name]["predict"]["kernel"]) for name in ("title", "image"))
    jax.tree.map(np.testing.assert_array_equal, once, twice)


def with_signal(function, call: int):
    """Wraps `function` so that its `call`-th call, from 1, sends SIGTERM to this process."""
    called = []

    def wrapped(*arguments, **keywords):
        called.append(1)
        if len(called) == call:
            os.kill(os.getpid(), signal.SIGTERM)
        return function(*arguments, **keywords)

    return wrapped


def stopped_run(monkeypatch, config, module, name: str, call: int = 1) -> str:
    """Returns the message of a run that receives SIGTERM when it calls `name` for the `call`-th time."""
    with monkeypatch.context() as patch:
        patch.setattr(module, name, with_signal(getattr(module, name), call))
        with pytest.raises(Terminated) as ended:
            train(config)
    return str(ended.value)


def test_sigterm_during_an_evaluation_and_during_the_fit_loses_nothing(finished_run, tmp_path, monkeypatch):
    config = tiny_config(tmp_path)
    text = stopped_run(monkeypatch, config, validation, "embed_products")
    assert text == "stopped by SIGTERM; step 3 is saved; the same command resumes from there"
    assert not logged(tmp_path / "run", "val_ndcg@10")
    meta = json.loads((tmp_path / "run/checkpoints/last/000003/meta.json").read_text())
    assert (meta["position"], meta["evaluated"]) == (3, 0)
    third = 3  # the heads of title and image at step 3, then that of the title at step 6
    assert "step 6 is saved" in stopped_run(monkeypatch, config, keyword_heads, "fit_head", third)
    assert list(logged(tmp_path / "run", "val_ndcg@10")) == [3]
    train(config)
    for name in ("loss", "data_fingerprint", "val_ndcg@10"):
        assert logged(tmp_path / "run", name) == logged(finished_run, name)
    once, twice = (load_trained_model(run, "last").params for run in (finished_run, tmp_path / "run"))
    assert np.any(once["keyword_evidence"]["title"]["predict"]["kernel"])
    jax.tree.map(np.testing.assert_array_equal, once, twice)


def test_training_time_and_best_score_accumulate_over_starts(finished_run):
    metas = [json.loads(path.read_text()) for path in sorted(finished_run.glob("checkpoints/last/*/meta.json"))]
    assert [meta["position"] for meta in metas] == [4, 6]
    assert 0 < metas[0]["seconds"] < metas[1]["seconds"]
    assert all(
        meta["best"]
        == max(logged(finished_run, "val_ndcg@10")[step] for step in logged(finished_run, "val_ndcg@10") if step <= i)
        for meta, i in zip(metas, (4, 6), strict=True)
    )


def test_a_damaged_checkpoint_is_named_and_the_older_one_is_resumed(finished_run, tmp_path, caplog):
    config = tiny_config(tmp_path)
    shutil.copytree(finished_run, tmp_path / "run")
    for gone in ("best", "last/000006"):
        shutil.rmtree(tmp_path / "run/checkpoints" / gone)
    newer = tmp_path / "run/checkpoints/last/000005"
    shutil.copytree(tmp_path / "run/checkpoints/last/000004", newer)
    (newer / "meta.json").write_text("{}")
    train(config)
    assert f"{newer}/meta.json: damaged" in caplog.text and "last/000004 instead" in caplog.text
    assert logged(tmp_path / "run") == logged(finished_run)
    assert not newer.exists()


def test_non_finite_loss_stops_with_the_step_and_keeps_the_last_good_checkpoint(tmp_path, monkeypatch):
    config = tiny_config(tmp_path, log_every=2)
    real = loop.make_step

    def with_nan_batch(*arguments):
        step, taken = real(*arguments), []

        def one(state, batch):
            taken.append(1)
            if len(taken) == 3:
                batch = {**batch, "weight": batch["weight"] * np.float32(np.nan)}
            return step(state, batch)

        return one

    monkeypatch.setattr(loop, "make_step", with_nan_batch)
    with pytest.raises(InputError, match=r"not finite at step 3 \(checked steps 3 to [34]\)"):
        train(config)
    assert [p.name for p in (tmp_path / "run/checkpoints/last").iterdir()] == ["000002"]
    Retriever.load(tmp_path / "run", "last")


def test_other_settings_or_another_catalog_in_the_same_folder_are_listed(finished_run):
    config = tiny_config(finished_run.parent)
    other = replace(config, optim=replace(config.optim, learning_rate=0.5))
    with pytest.raises(InputError, match=r"optim.learning_rate is 0.5 here, 0.001 in the checkpoint"):
        train(other)
    with (finished_run.parent / "tiny" / "clicks.jsonl").open("a") as file:
        file.write('{"query": "red", "product": "p0"}\n')
    with pytest.raises(InputError, match=r"the catalog's content differs"):
        train(config)


def test_catalog_without_clicks_trains_on_derived_queries(tmp_path):
    config = tiny_config(tmp_path, seed=3)
    (tmp_path / "tiny" / "clicks.jsonl").unlink()
    config = replace(config, data=replace(config.data, queries="derived"))
    expected = training_catalog(config.data.catalog, "derived", seed=3).clicks
    assert expected and loop._load_catalog(config).clicks == expected


def test_empty_training_split_and_no_clicks_are_errors(tmp_path):
    config = tiny_config(tmp_path)
    (tmp_path / "tiny" / "clicks.jsonl").unlink()
    with pytest.raises(InputError, match=r"no clicks to train on; expected clicks.jsonl.*--data\.queries derived"):
        train(config)
    products = tmp_path / "tiny" / "products.jsonl"
    products.write_text(products.read_text().replace('"split": "train"', '"split": "test"'))
    with pytest.raises(InputError, match=r"no product of the train split"):
        train(config)
