"""A service returns what `Retriever.search` does, and answers each request of a batch on its own."""

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from make_jax.catalog.reader import Catalog
from make_jax.evaluation.baselines import TitleBM25
from make_jax.retrieval.retriever import Retriever
from make_jax.serving.answers import SORTED_PRODUCTS, Submitted
from make_jax.serving.filters import Compare
from make_jax.serving.index.model import open_index_model
from make_jax.serving.index.writer import IndexSettings, build_index
from make_jax.serving.requests import SearchRequest, SearchResponse, Sort
from make_jax.serving.search_service import RequestError
from make_jax.serving.service import IndexService
from tests.interop.exports import random_run
from tests.retrieval.fake_encoder import FakeEncoder
from tests.serving.tiny_service import COLD, service_of
from tests.tiny_catalog import write_catalog

QUERIES = ("red circle", "blue square 7", "green", "红色圆形")
LEXICAL = 0.3


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    return Catalog.load(write_catalog(tmp_path_factory.mktemp("catalog") / "tiny", products=60, queries=16))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def retriever(run: Path, catalog: Catalog) -> Retriever:
    retriever = Retriever.load(run)
    retriever.index(catalog)
    return retriever


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory, run: Path, catalog: Catalog) -> Path:
    out = tmp_path_factory.mktemp("index") / "index"
    build_index(out, open_index_model(run), catalog, IndexSettings(lexical_weight=LEXICAL))
    return out


@pytest.fixture(scope="module")
def service(path: Path):
    with IndexService.open(path, COLD) as opened:
        yield opened


@pytest.fixture(scope="module")
def fake(tmp_path_factory: pytest.TempPathFactory, catalog: Catalog):
    with service_of(tmp_path_factory.mktemp("fake") / "index", FakeEncoder(), catalog) as made:
        yield made


def one_batch(service: IndexService, *requests: SearchRequest) -> list[SearchResponse | Exception]:
    return service._answer([Submitted(request, service._opened) for request in requests])


def ids(response) -> list[str]:
    return [hit.id for hit in response.hits]


def test_ids_and_scores_are_those_of_the_retriever_bit_for_bit(service, retriever):
    for text in QUERIES:
        (expected,) = retriever.search([text], k=60)
        response = service.search(SearchRequest(text, lexical_weight=0.0, limit=60))
        assert ids(response) == [hit.product.id for hit in expected]
        assert [hit.score for hit in response.hits] == [hit.score for hit in expected]
        assert response.total == 60 and response.total_is_exact and response.version == "v1"
        page = service.search(SearchRequest(text, lexical_weight=0.0, offset=7, limit=5))
        assert ids(page) == ids(response)[7:12]


def test_bm25_is_fused_by_the_weight_of_the_index_unless_the_request_has_one(service, retriever, catalog):
    titles = [product.title for product in catalog.products]
    best = TitleBM25(titles).scores(["blue square"])[0]
    cosine = {hit.product.id: hit.score for hit in retriever.search(["blue square"], k=60)[0]}
    for weight in (None, 0.9):
        response = service.search(SearchRequest("blue square", lexical_weight=weight, limit=60, explain=True))
        used = LEXICAL if weight is None else weight
        for hit in response.hits:
            share = best[int(hit.id[1:])] / best.max()
            np.testing.assert_allclose(hit.score, cosine[hit.id] + used * share, atol=1e-6)
            np.testing.assert_allclose(hit.scores[:2], (cosine[hit.id], share), atol=1e-6)
            assert hit.scores.matching is None


def test_requests_of_many_threads_share_batches_and_get_their_own_results(service):
    requests = [SearchRequest(QUERIES[i % 4], limit=1 + i % 9, offset=i % 5, explain=i % 2 > 0) for i in range(80)]
    alone = [service.search(request) for request in requests[:20]]
    with ThreadPoolExecutor(16) as pool:
        together = list(pool.map(service.search, requests))
    assert [len(response.hits) for response in together] == [request.limit for request in requests]
    for one, other in zip(alone, together, strict=False):
        assert ids(one) == ids(other)
        np.testing.assert_allclose([h.score for h in one.hits], [h.score for h in other.hits], atol=1e-6)
    assert [ids(response) for response in service.search_all(requests)] == [ids(response) for response in together]


def test_filters_facets_and_limits_reach_the_engine(fake):
    green = Compare("colour", "=", "green")
    response = fake.search(SearchRequest("circle", filter=green, facets=("category",), limit=4))
    assert response.total == 15 and response.facets == {"category": {"circle": 5, "square": 5, "triangle": 5}}
    assert {hit.attributes["colour"] for hit in response.hits} == {"green"}
    assert [hit.attributes["category"] for hit in response.hits] == ["circle"] * 4
    two_each = fake.search(SearchRequest("red", distinct="category", max_per_value=2, limit=60))
    assert Counter(hit.attributes["category"] for hit in two_each.hits) == {"circle": 2, "square": 2, "triangle": 2}
    relevant = fake.search(SearchRequest("red circle", min_score=0.9, lexical_weight=0.0, facets=("colour",)))
    assert relevant.facets == {"colour": {"red": relevant.total}} and 0 < relevant.total < 10
    listed = fake.search(SearchRequest(filter=green, limit=3))
    assert ids(listed) == ["p15", "p16", "p17"] and {hit.score for hit in listed.hits} == {0.0}


def test_a_sort_orders_the_relevant_products_only(tmp_path):
    """Of 500 products only the best SORTED_PRODUCTS are sorted; `min_score` sets another limit."""
    catalog = Catalog.load(write_catalog(tmp_path / "tiny", products=500, queries=4, missing=False))
    with service_of(tmp_path / "index", FakeEncoder(), catalog) as service:
        best = service.search(SearchRequest("red circle", lexical_weight=0.0, limit=SORTED_PRODUCTS))
        least = best.hits[-1].score
        response = service.search(
            SearchRequest("red circle", lexical_weight=0.0, sort=(Sort("colour", "asc"),), limit=500)
        )
        assert SORTED_PRODUCTS <= response.total < 500  # ties with the last are sorted too
        assert all(hit.score >= least for hit in response.hits) and set(ids(best)) <= set(ids(response))
        colours = [hit.attributes["colour"] for hit in response.hits]
        assert colours == sorted(colours) and len(set(colours)) > 1
        everything = SearchRequest("red circle", min_score=-1.0, sort=(Sort("colour", "asc"),), limit=500)
        assert service.search(everything).total == 500
        assert service.search(SearchRequest(sort=(Sort("colour", "asc"),))).total == 500  # no query: all are relevant


def test_similar_products_are_the_nearest_without_the_product_itself(fake):
    response = fake.similar("p0", limit=59)
    vectors = fake._opened.index.vectors
    expected = np.argsort(-(vectors @ vectors[0]), kind="stable")
    np.testing.assert_allclose(
        [hit.score for hit in response.hits], (vectors @ vectors[0])[expected[expected != 0]], atol=1e-6
    )
    assert "p0" not in ids(response) and response.total == 59
    with pytest.raises(RequestError, match="no product has the id 'nope'") as raised:
        fake.similar("nope")
    assert raised.value.parameter == "like"


def test_liked_products_attract_and_others_repel(fake):
    def search(**examples):
        return fake.search(SearchRequest("square", lexical_weight=0.0, limit=60, **examples))

    def green_place(response):
        colours = [hit.attributes["colour"] for hit in response.hits]
        return np.mean([place for place, colour in enumerate(colours) if colour == "green"])

    liked, plain, unliked = search(like=("p15",)), search(), search(unlike=("p15",))  # a green circle
    assert green_place(liked) < green_place(plain) < green_place(unliked)
    both = search(like=("p15",), unlike=("p0", "p1"))
    assert both.total == 57 and not {"p15", "p0", "p1"} & set(ids(both))
    alone = fake.search(SearchRequest(unlike=("p15",), limit=3))  # the least similar
    assert all(hit.attributes["colour"] != "green" for hit in alone.hits)


def test_a_picture_finds_its_product_and_joins_a_text_by_its_weight(service, catalog):
    untitled = catalog.products[3]
    data = catalog.image_bytes(untitled)
    by_image = service.search(SearchRequest(image=data, limit=60))
    assert by_image.hits[0].score == pytest.approx(1, abs=1e-5)
    assert catalog.image_bytes(catalog.products[int(by_image.hits[0].id[1:])]) == data
    by_text = service.search(SearchRequest("blue", lexical_weight=0.0, limit=60))
    for weight, expected in ((0.0, by_text), (1.0, by_image)):
        both = service.search(SearchRequest("blue", data, weight, lexical_weight=0.0, limit=60))
        np.testing.assert_allclose([h.score for h in both.hits], [h.score for h in expected.hits], atol=1e-5)
    half = service.search(SearchRequest("blue", data, 0.5, lexical_weight=0.0, limit=60, retrieve_vectors=True))
    vectors = [
        service.search(SearchRequest(**query, limit=1, lexical_weight=0.0, retrieve_vectors=True)).vector
        for query in ({"q": "blue"}, {"image": data})
    ]
    expected = vectors[0] + vectors[1]
    np.testing.assert_allclose(half.vector, expected / np.linalg.norm(expected), atol=1e-6)
    np.testing.assert_allclose([hit.vector @ half.vector for hit in half.hits], [h.score for h in half.hits], atol=1e-6)


def test_a_model_without_image_encoder_and_a_damaged_picture_are_errors_of_the_image(tmp_path, fake, catalog):
    with service_of(tmp_path / "index", FakeEncoder("title"), catalog) as titles:
        assert not titles.info.accepts_images and fake.info.accepts_images
        with pytest.raises(RequestError, match="has no image encoder: search by text") as raised:
            titles.search(SearchRequest(image=catalog.image_bytes(catalog.products[0])))
        assert raised.value.parameter == "image"
    with pytest.raises(RequestError, match="the query's image: not a JPEG, PNG or WebP image") as raised:
        fake.search(SearchRequest(image=b"<svg/>"))
    assert raised.value.parameter == "image"


def test_explained_hits_have_the_parts_of_their_score_weights_and_keywords(service, retriever):
    response = service.search(SearchRequest("red circle", limit=60, explain=True))
    expected = {hit.product.id: hit for hit in retriever.search(["red circle"], k=60)[0]}
    for hit in response.hits:
        theirs = expected[hit.id]
        assert (hit.title_weight, hit.image_weight) == (theirs.title_weight, theirs.image_weight)
        assert hit.scores.dense == pytest.approx(theirs.score, abs=1e-6)
        assert hit.score == pytest.approx(hit.scores.dense + LEXICAL * hit.scores.lexical, abs=1e-6)
        assert hit.matched_keywords == (("red",) if hit.attributes["colour"] == "red" else ())
        assert hit.vector is None
    predicted = retriever.expand_query("red circle").keywords
    assert response.predicted_keywords == tuple((keyword.name, value) for keyword, value in predicted)
    plain = service.search(SearchRequest("red circle", limit=1)).hits[0]
    assert plain.scores is None and plain.title_weight is None and plain.matched_keywords == ()


def test_a_misspelled_query_is_corrected_unless_the_request_forbids_it(service, retriever):
    (expected,) = retriever.search(["red circle"], k=5)
    response = service.search(SearchRequest("red cirlce", lexical_weight=0.0, limit=5))
    assert response.corrected_query == "red circle"
    assert [(hit.id, hit.score) for hit in response.hits] == [(hit.product.id, hit.score) for hit in expected]
    literal = service.search(SearchRequest("red cirlce", lexical_weight=0.0, limit=5, correct=False))
    (expected,) = retriever.search(["red cirlce"], k=5)
    assert literal.corrected_query == ""
    assert [(hit.id, hit.score) for hit in literal.hits] == [(hit.product.id, hit.score) for hit in expected]
    assert service.search(SearchRequest("red circle", limit=5)).corrected_query == ""


def test_a_model_without_vocabulary_explains_by_words(fake):
    response = fake.search(SearchRequest("Red circles 恤", limit=60, explain=True))
    hit = next(hit for hit in response.hits if hit.id == "p0")
    assert hit.matched_keywords == ("red", "circle") and response.predicted_keywords == ()
    untitled = next(hit for hit in response.hits if hit.id == "p3")
    assert untitled.title == "" and untitled.matched_keywords == ("red", "circle")  # of its attributes


@pytest.mark.parametrize(
    ("request_", "parameter", "message"),
    [
        (SearchRequest("red", limit=1001), "limit", "limit is 1001, expected 0 to 1,000"),
        (SearchRequest("red", offset=-1), "offset", "offset is -1"),
        (SearchRequest("red", image_weight=1.5), "image_weight", "image_weight is 1.5, expected 0 to 1"),
        (SearchRequest("red", image_weight=float("nan")), "image_weight", "image_weight is nan"),
        (SearchRequest("red", min_score=float("nan")), "min_score", "min_score is nan, expected -10,000 to 10,000"),
        (SearchRequest("x" * 2001), "q", "q has 2,001 characters"),
        (SearchRequest("red", facets=("color",)), "facets", "no attribute 'color', .*; did you mean 'colour'?"),
        (SearchRequest("red", sort=(Sort("price", "asc"),)), "sort", "no attribute 'price', the index has category, "),
        (SearchRequest("red", distinct="brand"), "distinct", "no attribute 'brand'"),
        (SearchRequest("red", filter=Compare("x", "=", 1.0)), "filter", "no attribute 'x'"),
        (SearchRequest(unlike=("p99",)), "unlike", "unlike: no product has the id 'p99'"),
        (SearchRequest("red", rerank=5), "rerank", "this model cannot re-rank"),
        (SearchRequest("red", rerank=5, sort=(Sort("colour", "asc"),)), "rerank", "needs no sort"),
    ],
)
def test_a_request_that_cannot_be_answered_names_its_parameter_and_spoils_no_other(fake, request_, parameter, message):
    good = SearchRequest("red circle", limit=3)
    results = one_batch(fake, good, request_, good)
    assert ids(results[0]) == ids(results[2]) == ids(fake.search(good))
    assert isinstance(results[1], RequestError) and results[1].parameter == parameter
    with pytest.raises(RequestError, match=message):
        fake.search(request_)


@hypothesis.settings(max_examples=60, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture])
@hypothesis.given(text=st.text(st.characters(), max_size=30), id=st.text(st.characters(), max_size=5))
def test_any_text_is_answered_or_an_error_of_its_parameter(service, text, id):
    requests = [SearchRequest(text, explain=True), SearchRequest("red", like=(id,)), SearchRequest("red")]
    answers = one_batch(service, *requests)
    assert all(isinstance(answer, SearchResponse | RequestError) for answer in answers)
    assert isinstance(answers[2], SearchResponse) and isinstance(service.suggest(text, 3), list)
    assert (service.product(id) is None) == isinstance(answers[1], RequestError)
    assert (service.thumbnail(id) is None) or service.product(id).has_image


def test_other_searches_do_not_wait_for_a_picture(fake, monkeypatch):
    decoding, decoded = threading.Event(), threading.Event()

    def encode(encoder, data):
        decoding.set()
        assert decoded.wait(20)
        return encoder.encode(["red"])[0]

    monkeypatch.setattr("make_jax.serving.answers.encode_image", encode)
    with ThreadPoolExecutor(1) as thread:
        picture = thread.submit(fake.search, SearchRequest(image=b"a picture of 64 million pixels"))
        assert decoding.wait(20)
        assert len(fake.search(SearchRequest("red", limit=3)).hits) == 3 and not picture.done()
        decoded.set()
        assert ids(picture.result()) == ids(fake.search(SearchRequest("red", lexical_weight=0.0)))


def test_half_of_a_surrogate_pair_is_an_error_of_the_text_alone(service):
    wrong, right = one_batch(service, SearchRequest("red \ud800"), SearchRequest("red"))
    assert isinstance(wrong, RequestError) and wrong.parameter == "q" and len(right.hits) == 20


def test_products_pictures_suggestions_and_facts_of_the_index(service, catalog):
    hit = service.product("p5")
    assert (hit.title, hit.score, hit.has_image) == (catalog.products[5].title, 0.0, True)
    assert hit.title_weight + hit.image_weight == pytest.approx(1)
    assert service.product("nope") is None and service.thumbnail("nope") is None
    assert service.thumbnail("p5")[:4] == b"RIFF" and service.thumbnail("p6") is None  # without image
    assert service.suggest("red c", 1) == ["red circle"]
    info = service.info
    assert (info.version, info.products, info.model, info.catalog) == ("v1", 60, "run", "tiny")
    assert info.attributes == {"colour": "text", "category": "text"} and info.accepts_images
