"""The arrays of tokenized texts."""

import shutil

import pytest

from make_jax.inputs import training_texts as texts
from make_jax.inputs.unknown_texts import UnknownTexts
from tests.inputs.shop import INPUTS, Shop


def test_worker_processes_write_the_bytes_of_one_process(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    def written() -> dict[str, bytes]:
        texts.training_texts(shop.built, shop.tokenizer, shop.keywords, INPUTS, lambda _: None)
        [folder] = shop.built.folder.glob("texts-*")
        files = {path.name: path.read_bytes() for path in folder.iterdir()}
        shutil.rmtree(folder)
        return files

    alone = written()
    monkeypatch.setattr(texts, "_ROWS_AT_ONCE", 7)  # several parts
    assert written() == alone
    monkeypatch.setattr(texts, "MAX_IN_PROCESS", 0)
    assert written() == alone


def test_counts_of_parts_add_up_with_the_first_examples() -> None:
    parts = [UnknownTexts(2, 10, ["a", "b"]), UnknownTexts(0, 10, []), UnknownTexts(3, 10, ["c", "d", "e"])]
    assert UnknownTexts.sum(parts) == UnknownTexts(5, 30, ["a", "b", "c"])
