"""Re-ranking: a real model against pairs scored one by one, the rules of the order, evaluation."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from make_jax.catalog.keywords import KeywordVocabulary
from make_jax.catalog.reader import Catalog
from make_jax.config import AdaptationConfig, ImageConfig, InputsConfig, MatchingConfig, ModelConfig, TextConfig
from make_jax.errors import InputError
from make_jax.evaluation.evaluate import evaluate
from make_jax.evaluation.report import build_report, comparisons
from make_jax.evaluation.trec import strictly_decreasing
from make_jax.inputs.batch import PRODUCT_INPUTS
from make_jax.inputs.eval_pipeline import product_batches, query_batches
from make_jax.inputs.tokenizer import train_wordpiece
from make_jax.model.make import Make
from make_jax.report_tables import system_name
from make_jax.retrieval.rerank import DEFAULT_WEIGHT, Candidates, match_candidates
from make_jax.retrieval.retriever import Retriever
from make_jax.retrieval.top_k import TopK
from tests.retrieval.fake_encoder import FakeEncoder
from tests.tiny_catalog import COLOURS, SHAPES, write_catalog

TEXT = TextConfig(layers=1, width=16, heads=2, mlp_width=16)
QUERIES = ["red circle", "blue square 7", "green"]


class FakeMatcher(FakeEncoder):
    """Logit 1 where a title has the color and shape of a query, else -1; ignores images."""

    can_match, logit_scale = True, 2.0

    def matching_logits(
        self, texts: Sequence[str], titles: Sequence[str], images: Sequence[bytes | None], pairs: np.ndarray
    ) -> np.ndarray:
        self.seen.append((list(titles), list(images)))
        return np.array([1.0 if self.kind(texts[i]) == self.kind(titles[j]) else -1.0 for i, j in pairs], np.float32)

    @staticmethod
    def kind(text: str) -> set[str]:
        return {en for en, zh in (COLOURS | SHAPES).items() if en in text or zh in text}


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    return Catalog.load(write_catalog(tmp_path_factory.mktemp("catalog") / "tiny", products=60, queries=16))


@pytest.fixture(scope="module")
def retriever(catalog: Catalog) -> Retriever:
    """An untrained model, with parameters large enough that pairs differ."""
    inputs = InputsConfig(vocab_size=100, max_query_tokens=6, max_title_tokens=8, image_height=16, image_width=16)
    image = ImageConfig(layers=1, width=16, heads=2, mlp_width=16)
    adaptation = AdaptationConfig(weights="mean")
    config = ModelConfig(
        query=TEXT, title=TEXT, image=image, adaptation=adaptation, embedding_dim=16,
        matching=MatchingConfig(layers=1, width=8, heads=2, mlp_width=16),
    )  # fmt: skip
    tokenizer = train_wordpiece([product.title for product in catalog.products], inputs.vocab_size)
    model = Make(config, inputs, tokenizer.vocab_size)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), batch_of(inputs)))["params"]
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: jnp.asarray(0.3 * rng.normal(size=leaf.shape), leaf.dtype), shapes)
    made = Retriever(model, params, tokenizer, KeywordVocabulary(()), batch_size=8, trained_matching=True)
    made.index(catalog)
    return made


def batch_of(inputs: InputsConfig) -> dict[str, Any]:
    return {
        "query_tokens": jnp.zeros((1, inputs.max_query_tokens), jnp.int32),
        "query_mask": jnp.ones((1, inputs.max_query_tokens), bool),
        "title_tokens": jnp.zeros((1, inputs.max_title_tokens), jnp.int32),
        "title_mask": jnp.ones((1, inputs.max_title_tokens), bool),
        "image": jnp.zeros((1, inputs.image_height, inputs.image_width, 3), jnp.uint8),
        "has_title": jnp.ones(1, bool),
        "has_image": jnp.ones(1, bool),
    }


@pytest.fixture(scope="module")
def one_by_one(retriever: Retriever, catalog: Catalog) -> Any:
    """The matching logit of a query with a product, from tokens and pixels, compiled for one pair."""
    model, products = retriever.model, {product.id: product for product in catalog.products}

    @jax.jit
    def program(query: Any, product: Any) -> jax.Array:
        variables = {"params": retriever._params}
        query_states = model.apply(variables, *query, method=Make.query_outputs).states
        _, states = model.apply(variables, *product, method=Make.product_outputs)
        return model.apply(variables, query_states, query[1], states, "item", method=Make.match)

    def logit(text: str, identity: str) -> float:
        product = products[identity]
        [query] = query_batches([text], retriever.tokenizer, retriever.keywords, model.inputs, batch_size=1)
        image = catalog.image_bytes(product)
        [row] = product_batches([product.title], [image], retriever.tokenizer, model.inputs, batch_size=1)
        tokens = (query["query_tokens"], query["query_mask"])
        return float(program(tokens, tuple(row[name] for name in PRODUCT_INPUTS))[0])

    return logit


def test_search_orders_the_first_by_pairs_scored_one_by_one_and_keeps_the_rest(retriever, one_by_one):
    depth, plain = 12, retriever.search(QUERIES, k=60)
    changed = 0
    for weight in (DEFAULT_WEIGHT, 50.0):
        again = retriever.search(QUERIES, k=60, rerank=depth, weight=weight)
        for before, after, text in zip(plain, again, QUERIES, strict=True):
            first = after[:depth]
            assert {hit.product.id for hit in first} == {hit.product.id for hit in before[:depth]}
            logits = np.array([one_by_one(text, hit.product.id) for hit in first])
            np.testing.assert_allclose([hit.matching_logit for hit in first], logits, atol=1e-5)
            cosines = {hit.product.id: hit.score for hit in before}
            assert all(hit.score == cosines[hit.product.id] for hit in first)
            scores = retriever.logit_scale * np.array([hit.score for hit in first]) + weight * logits
            assert (np.diff(scores) < 1e-4 * max(1, weight)).all() and np.ptp(scores) > 0.05
            assert after[depth:] == before[depth:]
            changed += [hit.product.id for hit in first] != [hit.product.id for hit in before[:depth]]
    assert changed > 1


def test_search_for_fewer_than_rerank_returns_the_best_of_the_reranked(retriever):
    assert retriever.search(QUERIES, k=3, rerank=9) == [hits[:3] for hits in retriever.search(QUERIES, k=9, rerank=9)]
    assert retriever.search(["red"], k=2, rerank=500)[0][0].matching_logit is not None  # more than there are products
    assert retriever.search([], k=2, rerank=5) == []


def test_reranking_without_a_trained_matching_encoder_or_below_0_is_an_input_error(retriever, catalog):
    untrained = Retriever(retriever.model, retriever._params, retriever.tokenizer, retriever.keywords)
    untrained._catalog, untrained._index = catalog, retriever._index
    with pytest.raises(
        InputError, match=r"cannot re-rank: it has no trained matching encoder; train with model.matching"
    ):
        untrained.search(QUERIES, rerank=5)
    with pytest.raises(InputError, match="rerank is -1, expected at least 0"):
        retriever.search(QUERIES, rerank=-1)
    with pytest.raises(InputError, match="cannot re-rank"):
        evaluate(FakeEncoder(), catalog, "test", rerank=5)


def test_order_is_by_score_with_ties_and_lower_places_kept_and_scores_falling():
    scores = np.array([[0.9, 0.8, 0.7, 0.6, 0.5], [0.9, 0.8, -np.inf, -np.inf, -np.inf]], np.float32)
    indices = np.array([[4, 2, 7, 1, 0], [3, 5, -1, -1, -1]], np.int32)
    logits = np.array([[-9.0, 1.0, 2.0], [-1.0, 3.0, -np.inf]], np.float32)
    candidates = Candidates(TopK(scores, indices), logits, 10.0)
    ranking = candidates.reranked(1.0)  # 0, 9, 9: the tie keeps its order
    assert ranking.indices.tolist() == [[2, 7, 4, 1, 0], [5, 3, -1, -1, -1]]
    np.testing.assert_allclose(ranking.scores[0], [9, 9, 0, -1, -2], atol=1e-5)
    assert candidates.reranked(0.0).indices.tolist() == indices.tolist()
    written = strictly_decreasing(ranking.scores)
    assert (np.diff(written[0]) < 0).all() and (np.diff(written[1, :2]) < 0).all()
    np.testing.assert_allclose(written[0], ranking.scores[0], atol=1e-5)


def test_products_are_read_again_in_bounded_chunks_with_the_same_logits(catalog, monkeypatch):
    rng = np.random.default_rng(0)
    texts = [f"{colour} {shape}" for colour in COLOURS for shape in SHAPES]
    indices = np.stack([rng.permutation(60)[:9] for _ in texts]).astype(np.int32)
    indices[3, 5:] = -1
    ranking = TopK(np.where(indices >= 0, -np.arange(9, dtype=np.float32)[None], -np.inf), indices)
    arguments = (catalog, catalog.products, texts, ranking, 7)
    at_once, chunked = FakeMatcher(), FakeMatcher()
    expected = match_candidates(at_once, *arguments).logits
    for name, limit in (("_PRODUCTS_PER_CHUNK", 6), ("_QUERIES_PER_CHUNK", 5)):
        monkeypatch.setattr(f"make_jax.retrieval.rerank.{name}", limit)
    np.testing.assert_array_equal(match_candidates(chunked, *arguments).logits, expected)
    assert max(len(titles) for titles, _ in chunked.seen) == 6 < len(at_once.seen[0][0])
    for i, text in enumerate(texts):
        for place, product in enumerate(indices[i, :7]):
            right = product >= 0 and FakeMatcher.kind(catalog.products[product].title) == FakeMatcher.kind(text)
            assert expected[i, place] == (1.0 if right else -1.0 if product >= 0 else -np.inf)


@pytest.mark.parametrize("split", ["test", "val"])
def test_evaluation_reports_retrieval_and_reranked_by_a_weight_chosen_on_validation(catalog, split):
    matcher = FakeMatcher("image")
    result = evaluate(matcher, catalog, split, rerank=10)
    assert list(result.rankings) == ["random", "bm25", "image", "image+rerank", "image+bm25"]
    assert result.reranked == "image+rerank"
    chosen = result.parameters["rerank"]
    assert (chosen["depth"], chosen["chosen_on"]) == (10, {"split": "val", "queries": 8, "by": "nDCG@10"})
    assert all(not any(titles) for titles, _ in matcher.seen)
    assert chosen["weight"] == 0  # without titles every logit is -1, and of equal weights the smallest is chosen
    assert sum("which flatters it" in note for note in result.notes) == (split == "val")


def test_a_better_matching_encoder_raises_the_metric_in_the_report(catalog):
    result = evaluate(FakeMatcher(), catalog, "test", rerank=8, depth=10)
    plain, again = (result.values[name]["nDCG@10"].mean() for name in ("joint", "joint+rerank"))
    assert again >= plain
    for before, after in zip(result.rankings["joint"].indices, result.rankings["joint+rerank"].indices, strict=True):
        assert sorted(before[:8]) == sorted(after[:8]) and before[8:].tolist() == after[8:].tolist()
    assert ("joint+rerank", "joint") in comparisons(result) and ("joint", "joint+rerank") not in comparisons(result)
    assert system_name("joint+rerank") == "joint, re-ranked"
    assert build_report(result, {})["reranked"] == "joint+rerank"


def test_a_second_search_copies_no_product_vectors_until_another_catalog_is_indexed(retriever, catalog, capfd):
    def copies():
        lines = [line for line in capfd.readouterr().err.splitlines() if "host-to-device transfer" in line]
        return sum(f"float32[{count},16]" in line for line in lines)

    own = Retriever(retriever.model, retriever._params, retriever.tokenizer, retriever.keywords, batch_size=8)
    own.index(catalog)
    count = len(catalog.products)
    with jax.transfer_guard_host_to_device("log_explicit"):
        first = own.search(QUERIES, 5)
        assert copies() == 1
        assert own.search(QUERIES, 5) == first
        assert own.search(["red"], 3)[0] == own.search(["red"], 5)[0][:3]
        assert copies() == 0
    assert first == retriever.search(QUERIES, 5)
    own.index(catalog, "test")
    count = len(catalog.split_products("test"))
    with jax.transfer_guard_host_to_device("log_explicit"):
        found = own.search(QUERIES, 5)
        assert copies() == 1
    assert all(hit.product.split == "test" for hits in found for hit in hits)
