"""What a run is initialized from: its own checkpoint, the weights of another run, the seed; in this order."""

import math
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest

from make_jax.catalog.reader import Catalog
from make_jax.config import Config, to_json
from make_jax.errors import InputError
from make_jax.inputs.tokenizer import train_wordpiece
from make_jax.interop.position_resampling import resample_positions
from make_jax.model.make import Make
from make_jax.runs.checkpoints import Checkpoints, digest
from make_jax.runs.mesh import make_mesh
from make_jax.runs.run_folder import CONFIG, KEYWORDS, TOKENIZER
from make_jax.training.initialization import KEYWORD_HEADS, find_initialization, patch_grid
from make_jax.training.step import init_state
from make_jax.training.vocabularies import make_keywords, make_tokenizer
from tests.training.tiny_run import tiny_config


def scratch_state(config: Config, tokenizer, keywords):
    return init_state(Make(config.model, config.inputs, tokenizer.vocab_size, len(keywords)), config, make_mesh())


def initialize(config: Config):
    """Returns (initialization, state) of a run of `config`."""
    checkpoints = Checkpoints(Path(config.run) / "checkpoints")
    init = find_initialization(config, Catalog.load(config.data.catalog), checkpoints)
    state = init.initialize(scratch_state(config, init.tokenizer, init.keywords), checkpoints, config, print)
    checkpoints.close()
    return init, state


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """The config of a run with two checkpoints, both untrained."""
    config = tiny_config(tmp_path_factory.mktemp("source"), seed=3)
    catalog = Catalog.load(config.data.catalog)
    tokenizer, keywords = make_tokenizer(config, catalog), make_keywords(config, catalog)
    state = scratch_state(config, tokenizer, keywords)
    state = replace(state, step=state.step + 6, ema=jax.tree.map(lambda x: x + 1, state.params))
    files = {CONFIG: to_json(config), TOKENIZER: tokenizer.definition, KEYWORDS: keywords.to_json()}
    meta = {"best": 0.5, "seconds": 9.0, "metrics": {}, "catalog_digest": catalog.digest, "commit": "abc"}
    checkpoints = Checkpoints(Path(config.run) / "checkpoints")
    for kind in ("best", "last"):
        checkpoints.save(kind, 6, state, meta, files)
    checkpoints.close()
    return config


def new_run(source: Config, tmp_path: Path, **train) -> Config:
    """The config of a new run initialized from `source`."""
    config = replace(source, run=str(tmp_path / "new"))
    return replace(config, train=replace(config.train, **({"init_from": source.run, "seed": 0} | train)))


def test_init_from_takes_averaged_weights_tokenizer_and_keywords_and_nothing_else(source, tmp_path):
    init, state = initialize(new_run(source, tmp_path))
    _, expected = initialize(source)
    assert init.step == 0 and int(state.step) == 0 and init.metadata == {}
    heads = KEYWORD_HEADS
    params, ema = (
        {name: leaves for name, leaves in tree.items() if name != heads} for tree in (state.params, expected.ema)
    )
    jax.tree.map(np.testing.assert_array_equal, params, ema)
    jax.tree.map(np.testing.assert_array_equal, state.params, state.ema)
    assert not np.any(state.params[heads]["known"]) and np.any(expected.ema[heads]["known"])
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(state.opt_state))
    definition = find_initialization(
        source, Catalog.load(source.data.catalog), Checkpoints(Path(source.run) / "checkpoints")
    )
    assert init.tokenizer.definition == definition.tokenizer.definition
    assert init.keywords.to_json() == definition.keywords.to_json()


def test_provenance_names_the_weights_a_run_was_initialized_from(source, tmp_path):
    init, _ = initialize(new_run(source, tmp_path))
    assert init.source is not None and init.source.kind == "best"
    assert init.provenance == {
        "checkpoint": f"{source.run}/checkpoints/best/000006",
        "digest": digest(init.source),
        "catalog_digest": Catalog.load(source.data.catalog).digest,
        "commit": "abc",
        "init_from": None,
    }


def test_init_from_may_name_one_checkpoint(source, tmp_path):
    init, _ = initialize(new_run(source, tmp_path, init_from=f"{source.run}/checkpoints/last/000006"))
    assert init.source is not None and init.source.kind == "last"


def test_the_runs_own_checkpoint_takes_precedence_over_init_from(source, tmp_path):
    config = new_run(source, tmp_path)
    own = Checkpoints(Path(config.run) / "checkpoints")
    init, state = initialize(config)
    files = {CONFIG: to_json(config), TOKENIZER: init.tokenizer.definition, KEYWORDS: init.keywords.to_json()}
    meta = {"catalog_digest": Catalog.load(config.data.catalog).digest, "init_from": init.provenance}
    own.save("last", 2, replace(state, step=state.step + 2), meta, files)
    own.close()
    again, restored = initialize(config)
    assert again.step == 2 and int(restored.step) == 2 and again.provenance == init.provenance


def test_a_resumed_run_trains_on_without_the_keyword_heads_of_its_best_checkpoint(source, tmp_path):
    config = new_run(source, tmp_path)
    init, state = initialize(config)
    fitted = {**state.params, KEYWORD_HEADS: jax.tree.map(lambda leaf: leaf + 1, state.params[KEYWORD_HEADS])}
    files = {CONFIG: to_json(config), TOKENIZER: init.tokenizer.definition, KEYWORDS: init.keywords.to_json()}
    meta = {"catalog_digest": Catalog.load(config.data.catalog).digest}
    own = Checkpoints(Path(config.run) / "checkpoints")
    for step in (2, config.train.steps):  # in between, and after the last step
        own.save("best", step, replace(state, params=fitted, ema=fitted), meta, files)
        own.wait()
        _, restored = initialize(config)
        for tree in (restored.params, restored.ema):
            jax.tree.map(np.testing.assert_array_equal, tree, fitted if step > 2 else state.params)
    own.close()


def test_init_from_at_another_resolution_resamples_patch_positions(source, tmp_path):
    config = new_run(source, tmp_path)
    inputs, patch = source.inputs, source.model.image.patch_size
    config = replace(config, inputs=replace(inputs, image_height=inputs.image_height + patch))
    init, state = initialize(config)
    _, expected = initialize(source)
    assert init.source is not None and patch_grid(config) != patch_grid(source)

    def others(params):
        image = {name: leaf for name, leaf in params["image_encoder"].items() if name != "position"}
        return {name: leaf for name, leaf in params.items() if name != KEYWORD_HEADS} | {"image_encoder": image}

    jax.tree.map(np.testing.assert_array_equal, others(state.params), others(expected.ema))
    tables = [np.asarray(params["image_encoder"]["position"]) for params in (state.params, expected.ema)]
    num_class = source.model.image.class_tokens
    np.testing.assert_array_equal(tables[0][:num_class], tables[1][:num_class])
    for table, of in zip(tables, (config, source), strict=True):
        assert len(table) == num_class + math.prod(patch_grid(of))
    resampled = resample_positions(tables[1][num_class:], patch_grid(config), "bicubic", source_grid=patch_grid(source))
    np.testing.assert_array_equal(tables[0][num_class:], resampled)
    assert state.params["image_encoder"]["position"].sharding == state.params["image_encoder"]["class"].sharding


def test_mismatching_weights_are_listed_in_one_error(source, tmp_path):
    config = new_run(source, tmp_path)
    model = replace(config.model, query=replace(config.model.query, layers=2), embedding_dim=24)
    with pytest.raises(
        InputError, match=r"best/000006: lacks .*; has .* instead of .*; expected the parameters of this"
    ):
        initialize(replace(config, model=model))


def test_differing_settings_that_change_no_shape_are_listed(source, tmp_path):
    config = new_run(source, tmp_path)
    init, _ = initialize(config)
    [line] = init.describe(config)
    assert line == f"initialized from the weights, tokenizer and keywords of {source.run}/checkpoints/best/000006"
    other = replace(config, model=replace(config.model, pooling="cls"))
    assert init.describe(other)[0].endswith("; warning: model.pooling is 'cls' here, 'mean' in the checkpoint")


def test_init_from_that_is_not_a_run_is_an_error(source, tmp_path):
    with pytest.raises(InputError, match=r"train.init_from is 'nowhere', expected a run folder"):
        initialize(new_run(source, tmp_path, init_from="nowhere"))


def test_init_from_accepts_its_own_tokenizer_and_no_other(source, tmp_path):
    definition = make_tokenizer(source, Catalog.load(source.data.catalog)).definition
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    (folder / "tokenizer.json").write_text(definition)
    config = new_run(source, tmp_path)
    config = replace(config, inputs=replace(config.inputs, tokenizer=str(folder)))
    initialize(config)
    (folder / "tokenizer.json").write_text(train_wordpiece(["other words"], 50).definition)
    with pytest.raises(InputError, match=r"inputs.tokenizer is .* expected the one of train.init_from"):
        initialize(config)
