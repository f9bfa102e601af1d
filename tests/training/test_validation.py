import json
from pathlib import Path

import pytest

from make_jax.catalog.keywords import KeywordVocabulary
from make_jax.catalog.reader import Catalog
from make_jax.config import Config
from make_jax.inputs.tokenizer import train_wordpiece
from make_jax.model.make import Make
from make_jax.runs.mesh import make_mesh
from make_jax.training.eval_context import EvalContext
from make_jax.training.validation import Validator
from tests.tiny_catalog import write_catalog


def validator(path: Path) -> Validator:
    tokenizer, config = train_wordpiece(["red circle"], 100), Config()
    model = Make(config.model, config.inputs, tokenizer.vocab_size, 0, ())
    return Validator(EvalContext(Catalog.load(path), model, tokenizer, KeywordVocabulary(()), make_mesh(), 8))


@pytest.mark.parametrize(
    ("relevant", "changes", "expected"),
    [
        (3, {}, None),
        (4, {}, "none of its 8 queries has a product of grade 4 or more"),
        (3, {"rel": {}}, "none of its 8 queries has a product of grade 3 or more"),
        (3, {"rel": {"p0": 3}}, "none of its 8 queries has a product of grade 3 or more"),  # of the train split
        (3, {"split": "test", "rel": {}}, "it has no queries"),
    ],
)
def test_a_run_states_why_validation_is_off(tmp_path: Path, relevant, changes, expected) -> None:
    path = write_catalog(tmp_path / "tiny", products=60, queries=16)
    info = json.loads((path / "catalog.json").read_text("utf-8"))
    (path / "catalog.json").write_text(json.dumps(info | {"relevant": relevant}))
    rows = [json.loads(line) for line in (path / "queries.jsonl").read_text("utf-8").splitlines()]
    rows = [row | changes if row["split"] == "val" else row for row in rows]
    (path / "queries.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    message = validator(path).off_message
    assert (message is None) == (expected is None)
    if message is not None:
        assert expected in message and "\n" not in message and message.startswith("no validation on the val split: ")
