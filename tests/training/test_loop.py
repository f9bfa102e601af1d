"""Whole runs on a tiny catalog: resume, stop, damage, contradiction."""

import doctest
import json
import os
import shutil
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest

from make_jax.errors import InputError, Terminated
from make_jax.retrieval.retriever import Retriever
from make_jax.runs.run_folder import read_checkpoint
from make_jax.training import keyword_heads, loop, validation
from make_jax.training.loop import train
from make_jax.training.metric_writers.jsonl import read_metrics
from tests.training.tiny_run import tiny_config


def told(run: Path, name: str = "loss") -> dict[int, float]:
    return {line["step"]: line[name] for line in read_metrics(run / "metrics.jsonl") if name in line}


@pytest.fixture(scope="module", autouse=True)
def few_steps_of_fitting() -> Iterator[None]:
    """So few that eight devices on two cores are done soon: nothing tested here depends on how well heads fit."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keyword_heads, "STEPS", 20)
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of six steps that nobody disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    return train(tiny_config(folder))


def test_run_writes_losses_validation_curves_and_both_checkpoints(whole):
    assert list(told(whole)) == [1, 2, 3, 4, 5, 6]
    assert list(told(whole, "val_ndcg@10")) == [3, 6]
    for name in ("curves.png", "config.json", "checkpoints/last/000006/manifest.json"):
        assert (whole / name).is_file()
    assert len(list((whole / "checkpoints" / "best").iterdir())) == 1
    assert any((whole / "tensorboard").iterdir())


def test_retriever_answers_from_the_run(whole):
    retriever = Retriever.load(whole)
    retriever.index(whole.parent / "tiny", "test")
    [hits] = retriever.search(["red circle"], k=5)
    assert len(hits) == 5
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    assert all(abs(hit.title_weight + hit.image_weight - 1) < 1e-5 for hit in hits)
    same = retriever.encode_queries(["red circle"] * 3)
    np.testing.assert_allclose(same[0], same[2], atol=1e-6)


def test_retriever_searches_a_folder_of_vectors_and_no_other_model_may(whole, tmp_path):
    retriever, again, last = (Retriever.load(whole, which) for which in ("best", "best", "last"))
    retriever.index(whole.parent / "tiny", "test")
    again.index(whole.parent / "tiny", "test", embeddings=tmp_path)
    [memory], [disk] = (each.search(["red circle"], k=12) for each in (retriever, again))
    assert sorted(hit.product.id for hit in disk) == sorted(hit.product.id for hit in memory)
    np.testing.assert_allclose([hit.score for hit in disk], [hit.score for hit in memory], rtol=0, atol=2e-3)
    assert retriever.digest == again.digest
    last._params = jax.tree.map(lambda leaf: leaf + 1, last._params)
    with pytest.raises(InputError, match=r"test-both/vectors\.json: model is "):
        last.index(whole.parent / "tiny", "test", embeddings=tmp_path)


def test_retriever_tells_the_keywords_that_it_expects(whole):
    retriever = Retriever.load(whole)
    enhanced = retriever.expand_query("red circle", min_probability=0.0)
    assert {str(keyword) for keyword, _ in enhanced.keywords} == {str(k) for k in retriever.keywords.keywords}
    likely = [probability for _, probability in enhanced.keywords]
    assert likely == sorted(likely, reverse=True) and 0 < likely[-1] < likely[0] < 1 and 0 < enhanced.gate < 1
    assert len(retriever.expand_query("red circle", min_probability=likely[0]).keywords) == 1


def test_docstring_example_of_the_retriever_is_true(whole):
    runner = doctest.DocTestRunner()
    for example in doctest.DocTestFinder().find(Retriever, globs={"run": whole}):
        runner.run(example)
    assert runner.summarize().failed == 0
    assert runner.summarize().attempted >= 6


def test_run_that_is_over_goes_no_further_and_keeps_its_numbers(whole):
    before = told(whole)
    train(tiny_config(whole.parent))
    assert told(whole) == before


def test_run_that_is_over_takes_another_evidence_scale_and_is_measured_with_it(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "run")
    config = tiny_config(tmp_path)
    train(replace(config, model=replace(config.model, keyword_scale=0.5)))
    assert told(tmp_path / "run") == told(whole)  # no step was taken
    for kind in ("best", "last"):
        params, meta, files = read_checkpoint(tmp_path / "run", kind)
        there, _, _ = read_checkpoint(whole, "last")
        assert json.loads(files["config.json"])["model"]["keyword_scale"] == 0.5 and meta["evaluated"] == 6
        jax.tree.map(np.testing.assert_array_equal, params, there)
    written = [line["val_ndcg@10"] for line in read_metrics(tmp_path / "run/metrics.jsonl") if "val_ndcg@10" in line]
    assert written[-1] == meta["metrics"]["val_ndcg@10"] == meta["best"]
    scores = [run.search(["red circle"], k=9)[0][0].score for run in map(indexed, (whole, tmp_path / "run"))]
    assert scores[0] != scores[1]


def indexed(run: Path) -> Retriever:
    retriever = Retriever.load(run, "last")
    retriever.index(run.parent / "tiny", "test")
    return retriever


def test_interrupted_and_resumed_run_has_bitwise_the_same_losses(whole, tmp_path, monkeypatch):
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
    assert told(tmp_path / "run") == told(whole)
    once, twice = (read_checkpoint(run, "last")[0] for run in (whole, tmp_path / "run"))
    assert all(np.any(once["keyword_evidence"][name]["predict"]["kernel"]) for name in ("title", "image"))
    jax.tree.map(np.testing.assert_array_equal, once, twice)


def sending(what, number: int = signal.SIGTERM):
    """A function that does what `what` does, after a signal at its first call."""
    called = []

    def one(*arguments, **named):
        if not called:
            os.kill(os.getpid(), number)
        called.append(1)
        return what(*arguments, **named)

    return one


def stopped_run(monkeypatch, config, module, name: str) -> str:
    """What is said by a run that gets SIGTERM when it first calls `name`."""
    with monkeypatch.context() as patch:
        patch.setattr(module, name, sending(getattr(module, name)))
        with pytest.raises(Terminated) as ended:
            train(config)
    return str(ended.value)


def test_sigterm_in_an_evaluation_and_in_the_fit_loses_nothing(whole, tmp_path, monkeypatch):
    config = tiny_config(tmp_path)
    said = stopped_run(monkeypatch, config, validation, "embed_products")
    assert said == "stopped by SIGTERM; step 3 is saved; the same command goes on from there"
    assert not told(tmp_path / "run", "val_ndcg@10")
    meta = json.loads((tmp_path / "run/checkpoints/last/000003/meta.json").read_text())
    assert (meta["position"], meta["evaluated"]) == (3, 0)
    assert "step 6 is saved" in stopped_run(monkeypatch, config, keyword_heads, "fit_head")
    assert list(told(tmp_path / "run", "val_ndcg@10")) == [3]
    train(config)
    for name in ("loss", "seen", "val_ndcg@10"):
        assert told(tmp_path / "run", name) == told(whole, name)
    once, twice = (read_checkpoint(run, "last")[0] for run in (whole, tmp_path / "run"))
    assert np.any(once["keyword_evidence"]["title"]["predict"]["kernel"])
    jax.tree.map(np.testing.assert_array_equal, once, twice)


def test_clock_and_best_go_on_over_starts(whole):
    metas = [json.loads(path.read_text()) for path in sorted(whole.glob("checkpoints/last/*/meta.json"))]
    assert [meta["position"] for meta in metas] == [4, 6]
    assert 0 < metas[0]["seconds"] < metas[1]["seconds"]
    assert all(
        meta["best"] == max(told(whole, "val_ndcg@10")[step] for step in told(whole, "val_ndcg@10") if step <= i)
        for meta, i in zip(metas, (4, 6), strict=True)
    )


def test_damaged_newest_checkpoint_is_named_and_the_older_one_goes_on(whole, tmp_path, caplog):
    config = tiny_config(tmp_path)
    shutil.copytree(whole, tmp_path / "run")
    for gone in ("best", "last/000006"):
        shutil.rmtree(tmp_path / "run/checkpoints" / gone)
    newer = tmp_path / "run/checkpoints/last/000005"
    shutil.copytree(tmp_path / "run/checkpoints/last/000004", newer)
    (newer / "meta.json").write_text("{}")
    train(config)
    assert f"{newer}/meta.json: damaged" in caplog.text and "last/000004 instead" in caplog.text
    assert told(tmp_path / "run") == told(whole)
    assert not newer.exists()


def test_non_finite_loss_stops_with_the_step_and_keeps_the_last_good_checkpoint(tmp_path, monkeypatch):
    config = tiny_config(tmp_path, log_every=2)
    real = loop.make_step

    def spoiled(*arguments):
        step, taken = real(*arguments), []

        def one(state, batch):
            taken.append(1)
            if len(taken) == 3:
                batch = {**batch, "weight": batch["weight"] * np.float32(np.nan)}
            return step(state, batch)

        return one

    monkeypatch.setattr(loop, "make_step", spoiled)
    with pytest.raises(InputError, match=r"not finite at step 3 \(steps 3 to 3|not finite at step 3 \(steps 3 to 4"):
        train(config)
    assert [p.name for p in (tmp_path / "run/checkpoints/last").iterdir()] == ["000002"]
    Retriever.load(tmp_path / "run", "last")


def test_other_settings_or_another_catalog_in_the_same_folder_are_explained(whole):
    config = tiny_config(whole.parent)
    other = replace(config, optim=replace(config.optim, learning_rate=0.5))
    with pytest.raises(InputError, match=r"optim.learning_rate is 0.5 here and 0.001 there"):
        train(other)
    with (whole.parent / "tiny" / "clicks.jsonl").open("a") as file:
        file.write('{"query": "red", "product": "p0"}\n')
    with pytest.raises(InputError, match=r"the catalog's content differs"):
        train(config)


def test_empty_training_split_and_no_clicks_are_errors(tmp_path):
    config = tiny_config(tmp_path)
    (tmp_path / "tiny" / "clicks.jsonl").unlink()
    with pytest.raises(InputError, match=r"no clicks to train on; expected clicks.jsonl"):
        train(config)
    products = tmp_path / "tiny" / "products.jsonl"
    products.write_text(products.read_text().replace('"split": "train"', '"split": "test"'))
    with pytest.raises(InputError, match=r"no product of the train split"):
        train(config)
