"""Heads that are fitted to directions, and to those of a model's products alone."""

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
from make_jax.training.keyword_heads import fit_head, fit_keyword_heads
from make_jax.training.step import init_params
from tests.training.tiny_run import tiny_config

V = 5


def losses(params: Any, directions: np.ndarray, held: np.ndarray) -> np.ndarray:
    """Mean cross-entropy of each keyword."""
    z = np.asarray(KeywordHead(held.shape[1]).apply({"params": params}, jnp.asarray(directions)), np.float64)
    return np.mean(np.logaddexp(0, z) - held * z, axis=0)


def test_a_head_learns_what_directions_tell_and_nothing_else():
    rng = np.random.default_rng(0)
    directions = rng.normal(size=(3000, 8)).astype(np.float32)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    held = np.stack([directions[:, k] > 0.1 * k for k in range(V - 1)] + [rng.random(3000) < 0.1], axis=1)
    packed = np.sum(held * (1 << np.arange(V)), axis=1, dtype=np.uint32)[:, None]
    share = held[:2000].mean(0)
    known = np.log(share / (1 - share)).astype(np.float32)
    mesh = make_mesh(devices=jax.devices()[:1])
    fitted = fit_head(directions[:2000], packed[:2000], known, mesh, 0)
    entropy = -(share * np.log(share) + (1 - share) * np.log(1 - share))
    found = losses(fitted, directions[2000:], held[2000:])
    assert (found[:-1] < 0.25 * entropy[:-1]).all(), found / entropy
    assert found[-1] > 0.95 * entropy[-1]  # chance cannot be learned
    again = fit_head(directions[:2000], packed[:2000], known, mesh, 0)
    jax.tree.map(np.testing.assert_array_equal, fitted, again)


def test_a_head_without_products_says_what_is_known():
    known = np.linspace(-3, 1, V).astype(np.float32)
    fitted = fit_head(np.zeros((0, 8), np.float32), np.zeros((0, 1), np.uint32), known, make_mesh(), 0)
    said = KeywordHead(V).apply({"params": fitted}, jnp.eye(8))
    np.testing.assert_allclose(said, np.tile(known, (8, 1)))


@pytest.mark.parametrize(("size", "broken"), [(64, False), (16, False), (16, True)])
def test_heads_are_fitted_to_the_training_products_that_have_the_modality(tmp_path, monkeypatch, size, broken):
    config = tiny_config(tmp_path)
    catalog = Catalog.load(config.data.catalog)
    products = catalog.split_products("train")
    tokenizer = train_wordpiece([product.title for product in products], 200)
    keywords = mine_keywords(catalog)
    model = Make(config.model, config.inputs, tokenizer.vocab_size, len(keywords))
    params = init_params(model, 0)
    monkeypatch.setattr(keyword_heads, "fit_head", lambda directions, packed, *_: {"x": directions, "y": packed})
    read, notes = list(range(len(products))), []
    if broken:
        spoiled = next(i for i in range(size, 2 * size) if products[i].image)
        (tmp_path / "tiny" / str(products[spoiled].image)).write_bytes(b"no picture")
        read = [i for i in read if i // size != 1]
    fitted = fit_keyword_heads(model, params, catalog, tokenizer, keywords, make_mesh(), size, 0, notes.append)
    assert len(notes) == broken
    if broken:
        assert notes[0].startswith("16 products are left out of keyword evidence") and products[spoiled].id in notes[0]
    assert set(fitted) == {"known", "title", "image"}
    sets = [keywords.tag(p.title) | keywords.attribute_keywords(p.attributes) for p in products]
    for name in ("title", "image"):
        have = [i for i in read if getattr(products[i], name)]
        assert 0 < len(have) < len(read)
        np.testing.assert_array_equal(fitted[name]["y"], keywords.pack([sets[i] for i in have]))
        np.testing.assert_allclose(np.linalg.norm(fitted[name]["x"], axis=1), 1, rtol=1e-5)
    share = np.array([np.mean([k in held for held in sets]) for k in range(model.keyword_dims)])
    np.testing.assert_allclose(1 / (1 + np.exp(-np.asarray(fitted["known"]))), share, atol=2e-4)
