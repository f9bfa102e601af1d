"""The search pool: the split, the catalog, or the judged products of each query."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from make_jax.catalog.reader import Catalog
from make_jax.errors import InputError
from make_jax.evaluation.evaluate import evaluate
from make_jax.evaluation.search_pool import SearchPool
from tests.retrieval.fake_encoder import FakeEncoder
from tests.tiny_catalog import write_catalog


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_catalog(tmp_path_factory.mktemp("catalog") / "tiny", products=60, queries=16)


def with_pool(path: Path, new: Path, pool: object) -> Path:
    """A copy of the catalog whose catalog.json names a pool."""
    shutil.copytree(path, new)
    info = json.loads((path / "catalog.json").read_text("utf-8"))
    (new / "catalog.json").write_text(json.dumps(info | {"pool": pool}), encoding="utf-8")
    return new


def test_each_pool_searches_its_products(path: Path) -> None:
    catalog = Catalog.load(path)
    found = {pool: SearchPool.of(catalog, "test", pool) for pool in ("split", "all", "judged")}
    assert [p.split for p in found["split"].products] == ["test"] * 12
    assert found["all"].products == catalog.products
    judged = {i for query in catalog.split_queries("test") for i in query.rel}
    assert [p.id for p in found["judged"].products] == [p.id for p in catalog.products if p.id in judged]
    assert all(of.judgements.queries == found["split"].judgements.queries for of in found.values())
    assert found["split"].allowed(slice(0, 3)) is None is found["all"].allowed(slice(0, 3))


def test_the_catalog_names_its_pool_and_evaluation_may_take_another(path: Path, tmp_path: Path) -> None:
    catalog = Catalog.load(with_pool(path, tmp_path / "all", "all"))
    complete = evaluate(FakeEncoder(), catalog, "test")
    assert complete.pool == "all" and len(complete.products) == 60
    assert "Queries search all 60 products of the catalog." in complete.notes
    assert evaluate(FakeEncoder(), catalog, "test", pool="split").pool == "split"
    assert SearchPool.of(Catalog.load(path), "test").pool == "split"


def test_an_unknown_pool_is_named(path: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match='pool: found "some", expected one of "split", "all", "judged"'):
        Catalog.load(with_pool(path, tmp_path / "bad", "some"))


def test_in_the_judged_pool_every_system_orders_the_judged_products_of_each_query_alone(path: Path) -> None:
    result = evaluate(FakeEncoder(), Catalog.load(path), "test", pool="judged")
    place = {product.id: i for i, product in enumerate(result.products)}
    for system, ranking in result.rankings.items():
        for query, row in zip(result.judgements.queries, ranking.indices, strict=True):
            given = {place[i] for i in query.rel}
            found = set(row[row >= 0].tolist())
            assert found <= given, system
            if system in ("random", "bm25", "joint", "joint+bm25"):
                assert found == given, system  # title and image leave out the products that lack it
    assert any("orders only the products that it judges" in note for note in result.notes)


def test_the_judged_pool_orders_as_the_full_search_does(path: Path) -> None:
    """The plain reference: the ranking of all products, without the products that the query does not judge."""
    catalog = Catalog.load(path)
    complete = evaluate(FakeEncoder(), catalog, "test", pool="all")
    judged = evaluate(FakeEncoder(), catalog, "test", pool="judged")
    for a, b, query in zip(
        complete.rankings["joint"].indices, judged.rankings["joint"].indices, judged.judgements.queries, strict=True
    ):
        kept = [complete.products[i].id for i in a if complete.products[i].id in query.rel]
        assert kept == [judged.products[i].id for i in b if i >= 0]


def test_parameters_of_the_judged_pool_are_chosen_in_it(path: Path) -> None:
    chosen = evaluate(FakeEncoder(), Catalog.load(path), "test", pool="judged").parameters
    own = evaluate(FakeEncoder(), Catalog.load(path), "val", pool="judged").parameters
    assert chosen["bm25"] == own["bm25"] and chosen["fusion"] == own["fusion"]


def test_splits_that_search_the_same_products_embed_them_once(path: Path) -> None:
    encoder = FakeEncoder()
    evaluate(encoder, Catalog.load(path), "test", pool="all")
    both = [titles for titles, images in encoder.seen if any(titles) and any(image is not None for image in images)]
    assert len(both) == 1 and len(both[0]) == 60


def test_bm25_ranks_judged_products_without_a_query_term_last(path: Path) -> None:
    result = evaluate(None, Catalog.load(path), "test", pool="judged")
    ranking = result.rankings["bm25"]
    assert (ranking.scores[ranking.indices >= 0] >= 0).all() and (ranking.scores == 0).any()
    for row, scores in zip(ranking.indices, ranking.scores, strict=True):
        assert (np.diff(scores[row >= 0]) <= 0).all()
