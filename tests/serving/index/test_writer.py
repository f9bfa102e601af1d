"""Building versions: tuning, switching, keeping, continuing, and one-line errors."""

import errno
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest

from make_jax.catalog.reader import Catalog
from make_jax.errors import InputError
from make_jax.evaluation.evaluate import evaluate
from make_jax.evaluation.late_fusion import LateFusion
from make_jax.retrieval.embed import embed_products
from make_jax.serving.index.check import check_index
from make_jax.serving.index.manifest import ModelEntry
from make_jax.serving.index.model import IndexModel, open_index_model
from make_jax.serving.index.reader import open_index
from make_jax.serving.index.versions import current_version, switch_version, version_names, writing
from make_jax.serving.index.writer import IndexSettings, build_index, choose_engine
from tests.retrieval.fake_encoder import FakeEncoder, _picture, _text, _unit
from tests.serving.index.tiny_index import fake_model
from tests.tiny_catalog import write_catalog, write_lines


def test_bm25_and_its_weight_are_those_that_eval_tunes_on_validation_queries(built: Path, catalog: Catalog) -> None:
    manifest, tuned = open_index(built).manifest, evaluate(FakeEncoder(), catalog, "val").parameters
    assert manifest.lexical_weight == tuned["fusion"]["weight"]
    assert (manifest.bm25.k1, manifest.bm25.b) == (tuned["bm25"]["k1"], tuned["bm25"]["b"])
    assert manifest.lexical_weight_reason.startswith("the best of 14 on 8 validation queries: nDCG@10 ")


def test_without_validation_queries_the_weight_of_bm25_is_0_and_the_reason_is_stated(tmp_path: Path) -> None:
    path = write_catalog(tmp_path / "tiny", products=10)
    write_lines(path / "queries.jsonl", [])
    lines: list[str] = []
    build_index(tmp_path / "index", fake_model(), Catalog.load(path), log=lines.append)
    assert open_index(tmp_path / "index").manifest.lexical_weight == 0
    assert lines[0].startswith("BM25 weight 0: the catalog has no judged validation queries")
    assert lines[1].startswith("engine flat: 10 vectors of 8 numbers")


def test_settings_are_kept_with_where_they_come_from(tmp_path: Path, catalog: Catalog) -> None:
    build_index(tmp_path / "index", fake_model(), catalog, IndexSettings(lexical_weight=0.25, engine="edge"))
    manifest = open_index(tmp_path / "index").manifest
    assert (manifest.lexical_weight, manifest.lexical_weight_reason) == (0.25, "set by --lexical-weight")
    assert (manifest.engine.name, manifest.engine.reason) == ("edge", "set by --engine")


class _Towers:
    digest = "towers"

    def encode_queries(self, texts):
        return _unit(np.stack([_text(text) for text in texts]))

    encode_titles = encode_queries

    def encode_images(self, images):
        return _unit(np.stack([_picture(image) for image in images]))


def test_the_title_weight_of_a_late_fusion_is_tuned_and_in_the_vectors(tmp_path: Path, catalog: Catalog) -> None:
    model = LateFusion(_Towers())
    entry = ModelEntry("clip", "clip", "clip", "best", "towers", "both", model.title_weight)
    build_index(tmp_path / "index", IndexModel(model, entry), catalog)
    index = open_index(tmp_path / "index")
    tuned = evaluate(LateFusion(_Towers()), catalog, "val").parameters["late_fusion"]["weight"]
    assert index.manifest.model.title_weight == tuned
    expected = embed_products(LateFusion(_Towers(), tuned), catalog, catalog.products)
    np.testing.assert_array_equal(index.vectors, expected.vectors)
    np.testing.assert_array_equal(index.weights, expected.weights)


def test_a_new_model_is_a_new_version_and_old_ones_stay_for_the_way_back(tmp_path: Path, catalog: Catalog) -> None:
    index, settings = tmp_path / "index", IndexSettings(lexical_weight=0.0)
    models = [_named(f"model {number}") for number in range(4)]
    assert build_index(index, models[0], catalog, settings) == ("v1", True, [])
    waiting = IndexSettings(lexical_weight=0.0, switch=False)
    assert build_index(index, models[1], catalog, waiting) == ("v2", True, [])
    assert current_version(index) == "v1"
    assert build_index(index, models[1], catalog, settings) == ("v2", False, [])  # not embedded again
    assert current_version(index) == "v2"
    assert switch_version(index, "v1") == "v2"
    assert build_index(index, models[2], catalog, settings) == ("v3", True, ["v2"])  # v1 is the way back
    assert version_names(index) == ["v1", "v3"]
    assert open_index(index, "v1").manifest.model.digest == "model 0"
    with pytest.raises(InputError, match=r"no version 'v2', expected one of v1, v3"):
        switch_version(index, "v2")
    only = IndexSettings(lexical_weight=0.0, keep=1)
    assert build_index(index, models[3], catalog, only) == ("v4", True, ["v3", "v1"])
    assert build_index(index, models[0], catalog, settings) == ("v5", True, [])
    assert build_index(index, models[3], catalog, only) == ("v4", False, ["v5"])
    assert build_index(index, models[1], catalog, only) == ("v6", True, ["v4"])  # v5 was another


def _named(digest: str) -> IndexModel:
    encoder = FakeEncoder()
    encoder.digest = digest
    return fake_model(encoder)


def test_what_was_embedded_before_an_error_is_not_embedded_again(
    tmp_path: Path, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> NoReturn:
        raise OSError(errno.ENOSPC, "No space left on device", "thumbnails-00000.arrow")

    build_index(tmp_path / "index", _named("old"), catalog, IndexSettings(lexical_weight=0.0))
    with monkeypatch.context() as patch:
        patch.setattr("make_jax.serving.index.thumbnails.write_batch", fail)
        with pytest.raises(InputError, match=r"thumbnails-00000\.arrow: No space left on device; the index is"):
            build_index(tmp_path / "index", _named("new"), catalog, IndexSettings(lexical_weight=0.0))
    assert open_index(tmp_path / "index").manifest.model.digest == "old"
    again = _named("new")
    assert build_index(tmp_path / "index", again, catalog, IndexSettings(lexical_weight=0.0))[:2] == ("v2", True)
    assert isinstance(again.encoder, FakeEncoder) and not again.encoder.seen
    assert not list((tmp_path / "index").glob("building-*"))


def test_another_setting_takes_vectors_and_pictures_of_the_version_before(tmp_path: Path, catalog: Catalog) -> None:
    index, again = tmp_path / "index", fake_model()
    build_index(index, fake_model(), catalog)
    assert build_index(index, again, catalog, IndexSettings(lexical_weight=0.7, keep=1)) == ("v2", True, ["v1"])
    assert isinstance(again.encoder, FakeEncoder) and not again.encoder.seen
    opened = open_index(index)
    assert opened.manifest.lexical_weight == 0.7
    np.testing.assert_array_equal(opened.vectors, embed_products(FakeEncoder(), catalog, catalog.products).vectors)
    assert check_index(index).problems == []


def test_one_process_writes_at_a_time(built: Path, catalog: Catalog) -> None:
    with writing(built), pytest.raises(InputError, match=r"another process is writing to this index"):
        build_index(built, fake_model(), catalog)


def test_models_that_cannot_encode_queries_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"bm25 has no vectors, expected a model"):
        open_index_model("bm25")
    (tmp_path / "embeddings.json").write_text('{"reads": "both"}')
    for name in ("queries", "products"):
        np.save(tmp_path / f"{name}.npy", np.ones((1, 2), np.float32))
        (tmp_path / f"{name}.ids.txt").write_text("a\n")
    with pytest.raises(InputError, match=r"precomputed vectors cannot encode the queries that people type"):
        open_index_model(tmp_path)


def test_exact_search_is_chosen_for_at_most_67_mb_of_vectors() -> None:
    assert choose_engine(None, 26_000, 635).name == "flat"
    assert choose_engine(None, 42_203, 635).name == "edge"
    assert choose_engine("flat", 42_203, 635).name == "flat"
