"""Keyword heads, fitted to given embeddings and to those of a catalog's training products."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from make_jax.catalog.mining import mine_keywords
from make_jax.catalog.reader import Catalog
from make_jax.inputs.tokenizer import train_wordpiece
from make_jax.model.keyword_evidence import KeywordHead
from make_jax.model.make import Make
from make_jax.runs.mesh import make_mesh
from make_jax.training import keyword_heads
from make_jax.training.eval_context import EvalContext
from make_jax.training.keyword_heads import fit_head, fit_keyword_heads
from make_jax.training.step import init_params
from tests.training.tiny_run import tiny_config

V = 5


def losses(params: Any, embeddings: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Mean cross-entropy of each keyword."""
    z = np.asarray(KeywordHead(labels.shape[1]).apply({"params": params}, jnp.asarray(embeddings)), np.float64)
    return np.mean(np.logaddexp(0, z) - labels * z, axis=0)


def test_a_head_learns_the_keywords_that_embeddings_predict_and_no_others():
    rng = np.random.default_rng(0)
    embeddings = rng.normal(size=(3000, 8)).astype(np.float32)
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    labels = np.stack([embeddings[:, k] > 0.1 * k for k in range(V - 1)] + [rng.random(3000) < 0.1], axis=1)
    packed = np.sum(labels * (1 << np.arange(V)), axis=1, dtype=np.uint32)[:, None]
    share = labels[:2000].mean(0)
    prior = np.log(share / (1 - share)).astype(np.float32)
    mesh = make_mesh(devices=jax.devices()[:1])
    fitted = fit_head(embeddings[:2000], packed[:2000], prior, mesh, 0)
    entropy = -(share * np.log(share) + (1 - share) * np.log(1 - share))
    loss = losses(fitted, embeddings[2000:], labels[2000:])
    assert (loss[:-1] < 0.25 * entropy[:-1]).all(), loss / entropy
    assert loss[-1] > 0.95 * entropy[-1]  # random labels cannot be learned
    again = fit_head(embeddings[:2000], packed[:2000], prior, mesh, 0)
    jax.tree.map(np.testing.assert_array_equal, fitted, again)


def test_a_head_without_products_predicts_the_prior():
    prior = np.linspace(-3, 1, V).astype(np.float32)
    fitted = fit_head(np.zeros((0, 8), np.float32), np.zeros((0, 1), np.uint32), prior, make_mesh(), 0)
    logits = KeywordHead(V).apply({"params": fitted}, jnp.eye(8))
    np.testing.assert_allclose(logits, np.tile(prior, (8, 1)))


@pytest.mark.parametrize(("size", "broken"), [(64, False), (16, False), (16, True)])
def test_heads_are_fitted_to_the_training_products_that_have_the_modality(tmp_path, monkeypatch, size, broken):
    config = tiny_config(tmp_path)
    catalog = Catalog.load(config.data.catalog)
    products = catalog.split_products("train")
    tokenizer = train_wordpiece([product.title for product in products], 200)
    keywords = mine_keywords(catalog)
    model = Make(config.model, config.inputs, tokenizer.vocab_size, len(keywords))
    params = init_params(model, 0)
    monkeypatch.setattr(keyword_heads, "fit_head", lambda embeddings, packed, *_: {"x": embeddings, "y": packed})
    read, messages = list(range(len(products))), []
    if broken:
        spoiled = next(i for i in range(size, 2 * size) if products[i].image)
        (tmp_path / "tiny" / str(products[spoiled].image)).write_bytes(b"no picture")
        read = [i for i in read if i // size != 1]
    context = EvalContext(catalog, model, tokenizer, keywords, make_mesh(), size)
    fitted = fit_keyword_heads(context, params, seed=0, message=messages.append)
    assert len(messages) == broken
    if broken:
        assert (
            messages[0].startswith("16 products are left out of the keyword heads")
            and products[spoiled].id in messages[0]
        )
    assert set(fitted) == {"known", "title", "image"}
    sets = [keywords.tag(p.title) | keywords.attribute_keywords(p.attributes) for p in products]
    for name in ("title", "image"):
        have = [i for i in read if getattr(products[i], name)]
        assert 0 < len(have) < len(read)
        np.testing.assert_array_equal(fitted[name]["y"], keywords.pack([sets[i] for i in have]))
        np.testing.assert_allclose(np.linalg.norm(fitted[name]["x"], axis=1), 1, rtol=1e-5)
    share = np.array([np.mean([k in labels for labels in sets]) for k in range(model.keyword_dims)])
    np.testing.assert_allclose(1 / (1 + np.exp(-np.asarray(fitted["known"]))), share, atol=2e-4)
