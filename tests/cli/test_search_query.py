"""`search query` prints what `Retriever.search` and the service return; wrong input is one line."""

import json
from pathlib import Path

import pytest

from make_jax.catalog.reader import Catalog
from make_jax.cli.search import main
from make_jax.errors import InputError
from make_jax.retrieval.retriever import Retriever
from make_jax.serving.engines.edge import stored_state
from make_jax.serving.index.model import open_index_model
from make_jax.serving.index.writer import IndexSettings, build_index
from make_jax.serving.requests import SearchRequest
from make_jax.serving.service import IndexService
from tests.interop.exports import random_run
from tests.serving.tiny_service import COLD
from tests.tiny_catalog import write_catalog

RED_OR_BLUE = 'colour IN [red, "blue"]'


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    return Catalog.load(write_catalog(tmp_path_factory.mktemp("catalog") / "tiny", products=60, queries=16))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory, run: Path, catalog: Catalog) -> Path:
    out = tmp_path_factory.mktemp("index") / "index"
    build_index(out, open_index_model(run), catalog, IndexSettings(lexical_weight=0.3))
    return out


@pytest.fixture
def search(index: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "200")

    def call(*words: str) -> str:
        main(["query", str(index), *words])
        return capsys.readouterr().out

    return call


def test_json_is_identical_to_the_retriever_and_to_the_service(search, run, index, catalog):
    retriever = Retriever.load(run)
    retriever.index(catalog)
    with IndexService.open(index, COLD) as service:
        for text in ("red circle", "蓝色方形"):
            printed = json.loads(search(text, "-k", "60", "--json", "--lexical-weight", "0"))
            found = [(hit["id"], hit["_rankingScore"]) for hit in printed["hits"]]
            expected = retriever.search([text], k=60)[0]
            assert found == [(hit.product.id, hit.score) for hit in expected]
            response = service.search(SearchRequest(text, lexical_weight=0.0, limit=60))
            assert found == [(hit.id, hit.score) for hit in response.hits]
            assert printed["estimatedTotalHits"] == 60 and printed["query"] == text
        words = ("--filter", RED_OR_BLUE, "--facets", "*", "--json", "--explain", "--offset", "2", "-k", "3")
        printed = json.loads(search("red circle 7", *words))
        fused = service.search(SearchRequest("red circle 7", limit=60, explain=True))
        colours = {"red", "blue"}
        kept = [hit for hit in fused.hits if hit.attributes["colour"] in colours]
        assert [hit["id"] for hit in printed["hits"]] == [hit.id for hit in kept[2:5]]
        details = printed["hits"][0]["_rankingScoreDetails"]
        assert details["dense"] == kept[2].scores.dense and details["matching"] is None
        assert (details["titleWeight"], details["imageWeight"]) == (kept[2].title_weight, kept[2].image_weight)
        assert printed["facetDistribution"]["colour"] == {"blue": 15, "red": 15}
        assert [pair["keyword"] for pair in printed["predictedKeywords"]] == [n for n, _ in fused.predicted_keywords]


def test_the_table_has_score_attributes_weights_keywords_and_facets(search):
    out = search("red circle", "-k", "2", "--facets", "colour", "--filter", "colour = red", "--explain")
    lines = out.splitlines()
    assert lines[0].startswith("predicted keywords: ")
    assert lines[1].split() == ["#", "score", "cosine", "BM25", "title", "|", "picture", "product"]
    first, second, third = lines[2:5]
    assert first.startswith("1  ") and "█" in first and " red circle number " in first
    assert second.strip() == "colour: red · category: circle" and third.strip().startswith("matched: red")
    assert lines[8] == "1 to 2 of 15 products, index version v1" and lines[9] == "colour: red 15"
    plain = search("red circle", "-k", "1", "--min-score", "99")
    assert plain == "none of 0 products, index version v1\n"


def test_a_corrected_spelling_is_stated_and_can_be_turned_off(search):
    assert search("red cirlce", "-k", "1").startswith("searched for: red circle\n")
    assert json.loads(search("red cirlce", "-k", "1", "--json"))["correctedQuery"] == "red circle"
    assert "correctedQuery" not in json.loads(search("red cirlce", "-k", "1", "--json", "--no-correct"))


def test_a_picture_finds_its_product(search, catalog):
    picture = catalog.path / catalog.products[3].image
    hits = json.loads(search("", "--image", str(picture), "--json"))["hits"]
    assert hits[0]["_rankingScore"] == pytest.approx(1, abs=1e-5)
    assert catalog.image_bytes(catalog.products[int(hits[0]["id"][1:])]) == picture.read_bytes()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["red", "-k", "0"], "-k is 0, expected 1 to 1,000 products"),
        (["red", "--filter", "colour ="], "filter: character 9: found the end"),
        (["red", "--filter", "price < 3"], "filter: no attribute 'price', the index has category, colour"),
        (["red", "--sort", "colour"], "--sort colour: expected ATTRIBUTE:asc"),
        (["--image", "nothing.jpg"], "--image nothing.jpg: not found, expected an image file"),
        (["--image", __file__], f"--image {__file__}: not a JPEG, PNG or WebP image"),
        (["red", "--rerank", "5"], "this model cannot re-rank"),
        (["red", "--engin", "flat"], "unknown option --engin; did you mean --engine?"),
    ],
)
def test_wrong_input_is_one_line(index, words, message):
    with pytest.raises(InputError) as raised:
        main(["query", str(index), *words])
    assert message in str(raised.value) and "\n" not in str(raised.value)


def test_a_model_that_was_moved_is_named_with_model(catalog, tmp_path, capsys):
    file = tmp_path / "encoder.py"
    file.write_text("from tests.retrieval.fake_encoder import FakeEncoder\nencoder = FakeEncoder()\n")
    build_index(tmp_path / "index", open_index_model(file), catalog)
    moved = file.rename(tmp_path / "moved.py")
    with pytest.raises(InputError, match="expected the model that the index was built with; name it with --model"):
        main(["query", str(tmp_path / "index"), "red"])
    main(["query", str(tmp_path / "index"), "red", "-k", "1", "--model", str(moved)])
    assert "1 to 1 of 60 products" in capsys.readouterr().out


def test_a_query_beside_a_server_of_edge_compares_all_vectors(run, catalog, tmp_path, capsys):
    index = tmp_path / "index"
    build_index(index, open_index_model(run), catalog, IndexSettings(lexical_weight=0.3, engine="edge"))
    assert stored_state(index / "versions" / "v1" / "edge")  # complete before the first server
    words = ["query", str(index), "red circle", "-k", "20", "--json"]
    with IndexService.open(index, COLD):
        main(words)
        beside = capsys.readouterr()
        with pytest.raises(InputError, match="open in another process, and only one can have it open"):
            main([*words, "--engine", "edge"])
    assert beside.err == "a server has the engine's folder open: compared all vectors instead (--engine flat)\n"
    main(words)
    alone = capsys.readouterr()
    assert alone.err == ""
    assert [hit["id"] for hit in json.loads(beside.out)["hits"]] == [hit["id"] for hit in json.loads(alone.out)["hits"]]
