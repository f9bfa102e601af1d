"""One text or one file where a list is expected: an error of every public function, not a list of letters."""

import subprocess
import sys

import pytest

from make_jax.errors import InputError, check_lists
from tests.conftest import ROOT


@pytest.mark.parametrize("value", ["red circle", "", b"\x89PNG", bytearray(b"a"), memoryview(b"a")])
def test_one_text_or_file_is_no_list(value: object) -> None:
    with pytest.raises(InputError, match=r"queries is one (text|file), expected a list of them"):
        check_lists(titles=["a"], queries=value)
    check_lists(titles=[value], queries=(value,))


CALLS = """
from types import SimpleNamespace
from make_jax import Retriever
from make_jax.config import InputsConfig
from make_jax.errors import InputError
from make_jax.evaluation.baselines import TitleBM25
from make_jax.evaluation.late_fusion import LateFusion
from make_jax.evaluation.models.clip import TransformersTowers
from make_jax.evaluation.models.exported import Exported
from make_jax.evaluation.models.open_clip_folder import OpenClipTowers
from make_jax.evaluation.models.sentences import Sentences
from make_jax.inputs.eval_pipeline import product_batches, query_batches
from make_jax.inputs.tokenizer import Tokenizer, add_characters, train_wordpiece
from make_jax.interop.bundle import ModelBundle

def without_init(kind):
    return object.__new__(kind)

retriever, bm25 = without_init(Retriever), TitleBM25(["red circle"])
calls = []
for text in ("red circle", ""):
    calls += [
        lambda text=text: retriever.search(text),
        lambda text=text: retriever.encode_queries(text),
        lambda text=text: retriever.matching_logits(text, [], [], []),
        lambda text=text: retriever.matching_logits([], text, [], []),
        lambda text=text: without_init(Tokenizer).encode(text, 8),
        lambda text=text: train_wordpiece(text, 100),
        lambda text=text: add_characters(without_init(Tokenizer), text, 3),
        lambda text=text: next(query_batches(text, None, None, InputsConfig(), batch_size=2)),
        lambda text=text: TitleBM25(text),
        lambda text=text: bm25.search(text, 3),
        lambda text=text: bm25.scores(text),
        lambda text=text: without_init(ModelBundle).queries(text),
    ]
    for kind in (LateFusion, Exported, Sentences, TransformersTowers, OpenClipTowers):
        calls.append(lambda text=text, kind=kind: without_init(kind).encode_queries(text))
for titles, images in (("a", [None]), (["a"], b"P"), ("", [])):
    for kind in (Retriever, LateFusion, Exported, Sentences):
        calls.append(lambda t=titles, i=images, kind=kind: without_init(kind).encode_products(t, i))
    calls.append(lambda t=titles, i=images: next(product_batches(t, i, None, InputsConfig(), batch_size=2)))
    calls.append(lambda t=titles, i=images: without_init(ModelBundle).products(t, i))
for kind in (TransformersTowers, OpenClipTowers):
    calls.append(lambda kind=kind: without_init(kind).encode_images(b"P"))
wrong = []
for number, call in enumerate(calls):
    try:
        call()
        wrong.append(number)
    except InputError as error:
        if "expected a list of them" not in str(error):
            wrong.append((number, error))
print(len(calls), wrong)
"""


def test_every_public_function_with_a_list_refuses_one_text_or_file() -> None:
    """In a process of its own: the type checks of the tests would refuse bytes first."""
    done = subprocess.run([sys.executable, "-c", CALLS], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stdout) == (0, "54 []\n"), done.stderr
