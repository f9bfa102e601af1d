import json
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest

from make_jax.catalog.keywords import KeywordVocabulary
from make_jax.catalog.mining import mine_keywords
from make_jax.catalog.reader import Catalog
from make_jax.config import Config
from make_jax.evaluation.search_pool import SearchPool
from make_jax.inputs.tokenizer import train_wordpiece
from make_jax.model.make import Make
from make_jax.retrieval.embed import embed_products
from make_jax.retrieval.retriever import Retriever
from make_jax.runs.mesh import make_mesh
from make_jax.training.eval_context import EvalContext
from make_jax.training.step import init_params
from make_jax.training.validation import Validator
from tests.tiny_catalog import write_catalog
from tests.training.tiny_run import tiny_config


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


def test_the_logged_title_weight_is_that_of_the_search_embeddings(tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    catalog, mesh = Catalog.load(config.data.catalog), make_mesh()
    tokenizer, keywords = train_wordpiece(catalog.training_texts(), 200), mine_keywords(catalog, min_products=2)
    model = Make(config.model, config.inputs, tokenizer.vocab_size, len(keywords), keywords.exclusion_groups)
    params = jax.tree.map(np.array, init_params(model, 0))
    params["keyword_evidence"]["title"]["predict"]["bias"] += 9.0  # the title raises every keyword
    measured = Validator(EvalContext(catalog, model, tokenizer, keywords, mesh, 16)).measure(params)
    retriever = Retriever(model, params, tokenizer, keywords, batch_size=16, mesh=mesh)
    products = embed_products(retriever, catalog, SearchPool.of(catalog, "val").products, "both")
    expected = np.mean([title for title, image in products.weights if title > 0 and image > 0])
    assert 0.7 < expected < 0.8  # sqrt(9) to 1
    np.testing.assert_allclose(measured["val_title_weight"], expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("changes", "keywords", "expected"),
    [
        ({}, 4, True),
        ({}, 0, False),  # without keyword dimensions both weigh 1/2
        ({"weights": "mean"}, 4, False),
        ({"weights": "gate"}, 0, True),
        ({"modalities": "title"}, 4, False),
        ({"single_stream": True}, 4, False),
    ],
)
def test_only_models_that_weigh_by_product_log_a_title_weight(changes, keywords, expected) -> None:
    config = Config()
    adaptation = replace(config.model.adaptation, **changes)
    model = Make(replace(config.model, adaptation=adaptation, keyword_dims=4), config.inputs, 100, keywords, None)
    assert model.has_title_weight is expected
