"""Two and four real processes train the same as one; a killed process is reported, and the job can be resumed."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from benchmarks.common.processes import log_file, start, wait
from make_jax.catalog.reader import Catalog
from make_jax.config import to_json
from make_jax.runs.failure_detection import EXIT_PEER_LOST
from make_jax.training import keyword_heads
from make_jax.training.loop import train
from make_jax.training.metric_writers.jsonl import read_metrics
from tests.training.tiny_run import tiny_config

SLOW = 900.0  # seconds; an idle machine needs twenty, a busy one many times that

# Process 1 dies as if its machine had failed, before its fourth step, once the checkpoint of step 3 is complete.
RECIPE = """
import os, signal, sys, time
from pathlib import Path
from make_jax.config import from_json
from make_jax.training import keyword_heads, loop

keyword_heads.STEPS = 20
folder = Path({folder!r})
config = from_json((folder / "config.json").read_text(), "config.json")
real = loop.make_step

def die_at_step_4(*arguments):
    step, taken = real(*arguments), []
    def one(state, batch):
        taken.append(1)
        if len(taken) == 4:
            while not (folder / "run/checkpoints/best/000003").exists():
                time.sleep(0.05)
            os.kill(os.getpid(), signal.SIGKILL)
        return step(state, batch)
    return one

if (folder / "count").exists():  # the pictures of evaluations that this process decodes
    from make_jax.inputs import eval_pipeline

    load = eval_pipeline.load_image

    def counted(*arguments):
        with (folder / f"decoded-{{os.getpid()}}").open("a") as file:
            file.write(arguments[1] + "\\n")
        return load(*arguments)

    eval_pipeline.load_image = counted

if (folder / "die").exists() and "--distributed.process_id=1" in sys.argv:
    loop.make_step = die_at_step_4
"""


def prepared(folder: Path) -> list[str]:
    """The arguments of train.py for the tiny run in `folder`."""
    (folder / "config.json").write_text(to_json(tiny_config(folder)))
    (folder / "recipe.py").write_text(RECIPE.format(folder=str(folder)))
    return ["--config", str(folder / "recipe.py")]


def logged(run: Path, name: str) -> dict[int, float]:
    return {line["step"]: line[name] for line in read_metrics(run / "metrics.jsonl") if name in line}


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny run of one process with eight devices."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keyword_heads, "STEPS", 20)
        return train(tiny_config(tmp_path_factory.mktemp("alone")))


def assert_same(run: Path, alone: Path) -> None:
    """Asserts that losses, batches and validation metrics equal those of the run of one process."""
    assert logged(run, "data_fingerprint") == logged(alone, "data_fingerprint")
    assert list(logged(run, "loss")) == [1, 2, 3, 4, 5, 6]
    for name in ("loss", "gradient_norm", "val_ndcg@10"):
        expected, actual = (list(logged(each, name).values()) for each in (alone, run))
        np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=0)
    # The keyword heads are the same: validation after the last step depends on them.
    assert logged(run, "val_ndcg@10")[6] == logged(alone, "val_ndcg@10")[6]


def test_a_killed_process_is_reported_within_a_minute_and_the_job_resumes_with_the_same_losses(tmp_path, alone):
    arguments = prepared(tmp_path)
    (tmp_path / "die").touch()
    first, killed = start(arguments, 2, 1, tmp_path / "logs")
    try:
        assert killed.wait(SLOW) == -9
        assert first.wait(60) == EXIT_PEER_LOST  # the promise
    finally:
        first.kill()
    last = log_file(tmp_path / "logs", 0).read_text().rstrip().splitlines()[-1]
    assert last.startswith("error: process 1 of 2 stopped answering at step ")
    assert last.endswith("; restart the job with the same command: it resumes from step 3")
    (tmp_path / "die").unlink()
    assert wait(start(arguments, 2, 1, tmp_path / "logs"), SLOW) == [0, 0]
    assert "resuming from step 3" in log_file(tmp_path / "logs", 0).read_text()
    assert_same(tmp_path / "run", alone)
    assert "done" not in log_file(tmp_path / "logs", 1).read_text()  # only process 0 logs


def test_four_processes_with_sharded_state_train_the_same_losses_as_one(tmp_path, alone):
    arguments = [*prepared(tmp_path), "--train.fsdp", "2"]
    (tmp_path / "count").touch()
    assert wait(start(arguments, 4, 1, tmp_path / "logs"), SLOW) == [0, 0, 0, 0]
    assert_same(tmp_path / "run", alone)
    # Validation and the fits of keyword heads decode each picture in one of the processes.
    decoded = [Counter(path.read_text().splitlines()) for path in tmp_path.glob("decoded-*")]
    products = Catalog.load(tmp_path / "tiny").products
    pictured = [product for product in products if product.image is not None and product.split != "test"]
    assert len(decoded) == 4 and all(decoded)
    total = sum(decoded, Counter())
    trained = [f"image of product {product.id!r}" for product in pictured if product.split == "train"]
    assert trained and {name: total[name] for name in trained} == dict.fromkeys(trained, 2)  # two evaluations
    assert sum(total.values()) == 2 * len(pictured)
