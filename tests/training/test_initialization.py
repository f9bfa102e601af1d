"""Where a run starts: its own checkpoint, the weights of another, the seed; in this order."""

from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest

from make_jax.catalog.reader import Catalog
from make_jax.config import Config, to_json
from make_jax.errors import InputError
from make_jax.inputs.tokenizer import train_wordpiece
from make_jax.model.make import Make
from make_jax.runs.checkpoints import Checkpoints, digest
from make_jax.runs.mesh import make_mesh
from make_jax.runs.run_folder import CONFIG, KEYWORDS, TOKENIZER
from make_jax.training.initialization import find_start, make_keywords, make_tokenizer
from make_jax.training.step import init_state
from tests.training.tiny_run import tiny_config


def fresh(config: Config, tokenizer, keywords):
    return init_state(Make(config.model, config.inputs, tokenizer.vocab_size, len(keywords)), config, make_mesh())


def begin(config: Config):
    """(start, state) of a run of `config`."""
    checkpoints = Checkpoints(Path(config.run) / "checkpoints")
    start = find_start(config, Catalog.load(config.data.catalog), checkpoints)
    state = start.state(fresh(config, start.tokenizer, start.keywords), checkpoints, config, print)
    checkpoints.close()
    return start, state


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """The config of a run with two checkpoints, none of which was trained."""
    config = tiny_config(tmp_path_factory.mktemp("source"), seed=3)
    catalog = Catalog.load(config.data.catalog)
    tokenizer, keywords = make_tokenizer(config, catalog), make_keywords(config, catalog)
    state = fresh(config, tokenizer, keywords)
    state = replace(state, step=state.step + 6, ema=jax.tree.map(lambda x: x + 1, state.params))
    files = {CONFIG: to_json(config), TOKENIZER: tokenizer.definition, KEYWORDS: keywords.to_json()}
    meta = {"best": 0.5, "seconds": 9.0, "metrics": {}, "catalog_digest": catalog.digest, "commit": "abc"}
    checkpoints = Checkpoints(Path(config.run) / "checkpoints")
    for kind in ("best", "last"):
        checkpoints.save(kind, 6, state, meta, files)
    checkpoints.close()
    return config


def asking(source: Config, tmp_path: Path, **train) -> Config:
    """A new run that begins with the weights of `source`."""
    config = replace(source, run=str(tmp_path / "new"))
    return replace(config, train=replace(config.train, **({"init_from": source.run, "seed": 0} | train)))


def test_init_from_takes_averaged_weights_tokenizer_and_keywords_and_nothing_else(source, tmp_path):
    start, state = begin(asking(source, tmp_path))
    _, theirs = begin(source)
    assert start.step == 0 and int(state.step) == 0 and start.remembered == {}
    heads = "keyword_evidence"
    mine, ema = ({name: tree for name, tree in of.items() if name != heads} for of in (state.params, theirs.ema))
    jax.tree.map(np.testing.assert_array_equal, mine, ema)
    jax.tree.map(np.testing.assert_array_equal, state.params, state.ema)
    assert not np.any(state.params[heads]["known"]) and np.any(theirs.ema[heads]["known"])
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(state.opt_state))
    definition = find_start(source, Catalog.load(source.data.catalog), Checkpoints(Path(source.run) / "checkpoints"))
    assert start.tokenizer.definition == definition.tokenizer.definition
    assert start.keywords.to_json() == definition.keywords.to_json()


def test_checkpoints_tell_the_weights_that_their_run_began_with(source, tmp_path):
    start, _ = begin(asking(source, tmp_path))
    assert start.source is not None and start.source.kind == "best"
    assert start.origin == {
        "checkpoint": f"{source.run}/checkpoints/best/000006",
        "digest": digest(start.source),
        "catalog_digest": Catalog.load(source.data.catalog).digest,
        "commit": "abc",
        "init_from": None,
    }


def test_one_checkpoint_may_be_named(source, tmp_path):
    start, _ = begin(asking(source, tmp_path, init_from=f"{source.run}/checkpoints/last/000006"))
    assert start.source is not None and start.source.kind == "last"


def test_the_runs_own_checkpoint_goes_before_init_from(source, tmp_path):
    config = asking(source, tmp_path)
    own = Checkpoints(Path(config.run) / "checkpoints")
    start, state = begin(config)
    files = {CONFIG: to_json(config), TOKENIZER: start.tokenizer.definition, KEYWORDS: start.keywords.to_json()}
    meta = {"catalog_digest": Catalog.load(config.data.catalog).digest, "init_from": start.origin}
    own.save("last", 2, replace(state, step=state.step + 2), meta, files)
    own.close()
    again, restored = begin(config)
    assert again.step == 2 and int(restored.step) == 2 and again.origin == start.origin


def test_mismatching_weights_are_listed_in_one_error(source, tmp_path):
    config = asking(source, tmp_path)
    model = replace(config.model, query=replace(config.model.query, layers=2), embedding_dim=24)
    with pytest.raises(
        InputError, match=r"best/000006: lacks .*; has .* instead of .*; expected the parameters of this"
    ):
        begin(replace(config, model=model))


def test_settings_that_no_shape_tells_are_named(source, tmp_path):
    config = asking(source, tmp_path)
    start, _ = begin(config)
    [note] = start.notes(config)
    assert note == f"begins with the weights, tokenizer and keywords of {source.run}/checkpoints/best/000006"
    other = replace(config, model=replace(config.model, pooling="cls"))
    assert start.notes(other)[0].endswith("; beware: model.pooling is 'cls' here and 'mean' there")


def test_what_is_no_run_is_said(source, tmp_path):
    with pytest.raises(InputError, match=r"train.init_from is 'nowhere', expected a run's folder"):
        begin(asking(source, tmp_path, init_from="nowhere"))


def test_another_tokenizer_beside_init_from_is_an_error_and_its_own_is_not(source, tmp_path):
    definition = make_tokenizer(source, Catalog.load(source.data.catalog)).definition
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    (folder / "tokenizer.json").write_text(definition)
    config = asking(source, tmp_path)
    config = replace(config, inputs=replace(config.inputs, tokenizer=str(folder)))
    begin(config)
    (folder / "tokenizer.json").write_text(train_wordpiece(["other words"], 50).definition)
    with pytest.raises(InputError, match=r"inputs.tokenizer is .* expected that of train.init_from"):
        begin(config)
