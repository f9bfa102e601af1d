"""Re-ranking by the service orders as `Retriever.search` does, by the pictures of the index."""

import numpy as np
import pytest

from make_jax.serving.requests import SearchRequest
from make_jax.serving.search_service import RequestError
from tests.retrieval.test_rerank import QUERIES, catalog, retriever  # noqa: F401 - fixtures
from tests.serving.tiny_service import service_of


@pytest.fixture(scope="module")
def service(tmp_path_factory, retriever, catalog):  # noqa: F811
    with service_of(tmp_path_factory.mktemp("index") / "index", retriever, catalog) as made:
        yield made


def test_the_first_are_ordered_by_score_and_matching_logit_and_the_rest_keep_their_places(service, retriever):  # noqa: F811
    depth = 12
    for text in QUERIES:
        expected = retriever.search([text], k=60, rerank=depth)[0]
        request = SearchRequest(text, lexical_weight=0.0, rerank=depth, limit=60, explain=True)
        hits = service.search(request).hits
        assert {hit.id for hit in hits[:depth]} == {hit.product.id for hit in expected[:depth]}
        assert [hit.id for hit in hits[depth:]] == [hit.product.id for hit in expected[depth:]]
        theirs = {hit.product.id: hit for hit in expected}
        for hit in hits[:depth]:  # pictures of the index are WebP files of the catalog's PNG files
            assert hit.scores.matching == pytest.approx(theirs[hit.id].matching_logit, abs=0.05)
            score = retriever.logit_scale * hit.scores.dense + hit.scores.matching
            assert hit.score == pytest.approx(score, rel=1e-5)
        assert all(hit.scores.matching is None for hit in hits[depth:])
        assert (np.diff([hit.score for hit in hits]) <= 0).all()
        page = service.search(SearchRequest(text, lexical_weight=0.0, rerank=depth, limit=5, offset=10))
        assert [hit.id for hit in page.hits] == [hit.id for hit in hits[10:15]]


def test_reranking_needs_a_text(service):
    with pytest.raises(RequestError, match="rerank is 5 without a text") as raised:
        service.search(SearchRequest(like=("p1",), rerank=5))
    assert raised.value.parameter == "rerank"
