"""What the data side does to processes: it needs no device, and its workers leave with it."""

import importlib
import io
import subprocess
import sys
from collections.abc import Sequence

import pytest
from PIL import Image

from make_jax.config import DataConfig
from tests.inputs.shop import Shop

_PROGRAM = """
import multiprocessing, os, signal, sys
from make_jax.catalog.build import build
from make_jax.catalog.keywords import Keyword, KeywordVocabulary
from make_jax.config import DataConfig, InputsConfig
from make_jax.inputs.train_pipeline import train_batches
from make_jax.inputs.tokenizer import train_wordpiece

def batches(workers):
    built = build(sys.argv[1], sys.argv[2])
    tokenizer = train_wordpiece([product.title for product in built.split_products("train")], 120)
    keywords = KeywordVocabulary((Keyword("colour", "red", ("red",), 2), Keyword("colour", "blue", ("blue",), 2)))
    inputs, data = InputsConfig(), DataConfig(workers=workers)
    return train_batches(built, tokenizer, keywords, inputs, data, keyword_swaps=True, batch_size=4, seed=0)
"""


def run_program(shop: Shop, before: str, after: str) -> subprocess.CompletedProcess[str]:
    """Runs _PROGRAM between two pieces of code; returns when everyone who holds its output has gone."""
    return subprocess.run(
        [sys.executable, "-c", f"{before}\n{_PROGRAM}\n{after}", str(shop.path), str(shop.built.folder.parent)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_data_pipeline_works_without_jax(shop: Shop) -> None:
    done = run_program(shop, "import sys; sys.modules['jax'] = None", "print(next(batches(0))['image'].shape)")
    assert done.stdout == "(4, 64, 64, 3)\n", done.stderr


def test_workers_exit_with_a_killed_training_process(shop: Shop) -> None:
    code = "print(next(batches(1))['image'].shape, flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    done = run_program(shop, "", code)  # a worker that stayed would hold the output open until the time is out
    assert done.stdout == "(4, 64, 64, 3)\n", done.stderr


class ReportingSource(Sequence[dict[str, object]]):
    """Products whose image is black in a process that holds no device and has not imported the model, else gray.

    Grain imports jax where it is installed. That is harmless as long as no worker initializes a device.
    """

    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, position: object) -> dict[str, object]:
        bridge = sys.modules.get("jax._src.xla_bridge")
        backends = 0 if bridge is None else len(bridge._backends)
        has_model = any(name.startswith(("make_jax.model", "make_jax.runs", "flax")) for name in sys.modules)
        image = io.BytesIO()
        Image.new("RGB", (12, 16), (min(255, 50 * backends + 100 * has_model),) * 3).save(image, "PNG")
        return {"id": "", "title": "", "image": image.getvalue()}


def test_workers_hold_no_device_and_import_no_model(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    source = ReportingSource(len(shop.built.products("train")))
    monkeypatch.setattr(shop.built, "products", lambda split: source)
    (from_worker,) = shop.batches(1, data=DataConfig(workers=1))
    assert from_worker["has_image"].all() and not from_worker["image"].any()
    importlib.import_module("make_jax.model.make")
    (from_here,) = shop.batches(1)
    assert from_here["image"].all()
