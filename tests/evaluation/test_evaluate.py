import gzip
import io
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from make_jax.catalog.reader import Catalog
from make_jax.console import LiteralConsole
from make_jax.errors import InputError
from make_jax.evaluation import metrics
from make_jax.evaluation.compare import compare, comparison_markdown, read_report
from make_jax.evaluation.evaluate import Evaluation, evaluate
from make_jax.evaluation.late_fusion import LateFusion
from make_jax.evaluation.metrics import METRICS, Metric
from make_jax.evaluation.render import print_report
from make_jax.evaluation.report import write_report
from make_jax.retrieval.embed import embed_products
from make_jax.runs.provenance import metadata
from tests.evaluation.test_late_fusion import FakeTowers
from tests.retrieval.fake_encoder import FakeEncoder
from tests.tiny_catalog import write_catalog, write_lines


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_catalog(tmp_path_factory.mktemp("catalog") / "tiny", products=60, queries=16)


def edited(path: Path, new: Path, change: dict[str, object]) -> Path:
    """A copy of the catalog with keys of catalog.json set."""
    shutil.copytree(path, new)
    info = json.loads((path / "catalog.json").read_text(encoding="utf-8"))
    (new / "catalog.json").write_text(json.dumps(info | change), encoding="utf-8")
    return new


def mean(values: dict[str, np.ndarray]) -> float:
    return float(values["nDCG@10"].mean())


def test_every_system_searches_the_products_of_the_split(path: Path) -> None:
    result = evaluate(FakeEncoder(), Catalog.load(path), "test")
    assert list(result.rankings) == ["random", "bm25", "title", "image", "joint", "joint+bm25"]
    assert (result.main, result.fused) == ("joint", "joint+bm25")
    assert {product.split for product in result.products} == {"test"}
    assert {query.split for query in result.judgements.queries} == {"test"}
    value = {system: mean(values) for system, values in result.values.items()}
    assert value["joint"] > value["image"] > value["random"]
    assert value["joint"] >= value["title"] > value["bm25"]  # which cannot read half of the queries
    assert value["joint+bm25"] >= value["joint"] - 0.01
    assert result.slices["lang:zh"].sum() == 4


def test_products_that_lack_a_modality_are_not_found_by_it_and_noted(path: Path) -> None:
    result = evaluate(FakeEncoder(), Catalog.load(path), "test")
    for system, lacks in (("title", lambda p: not p.title), ("image", lambda p: p.image is None)):
        gone = {i for i, product in enumerate(result.products) if lacks(product)}
        assert gone
        assert not gone & set(result.rankings[system].indices.ravel().tolist())
        assert any(f"{len(gone)} of 12 products cannot be found by {system} alone" in note for note in result.notes)
    assert (result.rankings["joint"].indices >= 0).all()


def test_parameters_are_tuned_on_validation_also_for_test(path: Path) -> None:
    chosen = [evaluate(FakeEncoder(), Catalog.load(path), split).parameters for split in ("test", "val")]
    assert chosen[0]["bm25"] == chosen[1]["bm25"]
    assert chosen[0]["fusion"] == chosen[1]["fusion"]
    assert chosen[0]["chosen_on"] == {"split": "val", "queries": 8, "by": "nDCG@10"}


def test_a_report_on_validation_notes_that_it_is_optimistic(path: Path) -> None:
    assert any("flatters" in note for note in evaluate(FakeEncoder(), Catalog.load(path), "val").notes)
    assert not any("flatters" in note for note in evaluate(FakeEncoder(), Catalog.load(path), "test").notes)


def test_defaults_are_used_and_noted_without_validation_queries(path: Path, tmp_path: Path) -> None:
    copy = edited(path, tmp_path / "copy", {})
    rows = [json.loads(line) for line in (path / "queries.jsonl").read_text(encoding="utf-8").splitlines()]
    write_lines(copy / "queries.jsonl", [row for row in rows if row["split"] == "test"])
    result = evaluate(FakeEncoder(), Catalog.load(copy), "test")
    assert result.parameters["chosen_on"] is None
    assert result.parameters["bm25"] == {"k1": 1.2, "b": 0.75}
    assert any("nothing was tuned" in note and "not joined with BM25" in note for note in result.notes)


def test_a_model_is_joined_with_bm25_by_a_tuned_weight_only(path: Path, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in (path / "queries.jsonl").read_text(encoding="utf-8").splitlines()]
    tests = [row for row in rows if row["split"] == "test"]
    one = next(row for row in rows if row["split"] == "val")
    for name, queries in (("none", tests), ("one", [*tests, one])):
        write_lines(edited(path, tmp_path / name, {}) / "queries.jsonl", queries)
    untuned, tuned = (evaluate(FakeEncoder(), Catalog.load(tmp_path / name), "test") for name in ("none", "one"))
    assert list(untuned.rankings) == ["random", "bm25", "title", "image", "joint"] and untuned.fused is None
    assert "fusion" not in untuned.parameters
    assert tuned.fused == "joint+bm25" and tuned.parameters["chosen_on"]["queries"] == 1
    written = write_report(
        untuned, Catalog.load(tmp_path / "none"), tmp_path / "report", metadata(Catalog.load(path), seed=0)
    )
    assert all("+bm25" not in pair["system"] for pair in written["slices"]["all"]["differences"])
    assert "BM25 k1 1.2, b 0.75: defaults." in (tmp_path / "report" / "report.md").read_text(encoding="utf-8")
    assert not any("joined" in note for note in evaluate(None, Catalog.load(tmp_path / "none"), "test").notes)


@pytest.mark.parametrize("modality", ["title", "image"])
def test_a_model_of_one_modality_has_no_other_systems(path: Path, modality: str) -> None:
    encoder = FakeEncoder(modality)  # type: ignore[arg-type]
    result = evaluate(encoder, Catalog.load(path), "test")
    assert list(result.rankings) == ["random", "bm25", modality, f"{modality}+bm25"]
    assert result.main == modality
    unasked = 1 if modality == "title" else 0
    assert all(not any(seen[unasked]) for seen in encoder.seen)


@pytest.mark.parametrize(("other", "main"), [("image", "title"), ("title", "image")])
@pytest.mark.parametrize("late", [False, True])
def test_a_model_of_both_modalities_has_one_row_where_products_have_one(
    other: str, main: str, late: bool, tmp_path: Path
) -> None:
    original = write_catalog(tmp_path / "tiny", products=60, queries=16, missing=False)
    rows = [json.loads(line) for line in (original / "products.jsonl").read_text(encoding="utf-8").splitlines()]
    write_lines(original / "products.jsonl", [{**row, other: ""} for row in rows])
    catalog, model = Catalog.load(original), LateFusion(FakeTowers()) if late else FakeEncoder()
    result = evaluate(model, catalog, "test")
    systems = ["random", "bm25", "title", "title+bm25"] if main == "title" else ["random", "image"]
    assert list(result.rankings) == systems and result.main == main
    both = embed_products(model, catalog, result.products)
    np.testing.assert_array_equal(result.rankings[main].indices, both.search(queries_of(result, model), 1000).indices)
    assert "late_fusion" not in result.parameters
    assert any(f"have no {other}s" in note and f"{main} only" in note for note in result.notes)
    report = write_report(result, catalog, tmp_path / "report", metadata(catalog, seed=0))
    assert report["main"] == main and "joint" not in (tmp_path / "report" / "report.md").read_text(encoding="utf-8")
    assert f"system: {main} only" in report["gallery"]
    print_report(report, LiteralConsole(width=80, file=(shown := io.StringIO())))
    assert "joint" not in shown.getvalue() and f"{main} only" in shown.getvalue()
    compared = compare(read_report(tmp_path / "report"), read_report(tmp_path / "report", "random"))
    assert comparison_markdown(compared).startswith(f"# A = report ({main} only), B = report (random)")


def queries_of(result: Evaluation, model: FakeEncoder | LateFusion) -> np.ndarray:
    return model.encode_queries([query.text for query in result.judgements.queries])


def test_precomputed_vectors_of_both_keep_their_row_without_pictures(tmp_path: Path) -> None:
    original = write_catalog(tmp_path / "tiny", products=60, queries=16, missing=False)
    rows = [json.loads(line) for line in (original / "products.jsonl").read_text(encoding="utf-8").splitlines()]
    write_lines(original / "products.jsonl", [{**row, "image": ""} for row in rows])
    result = evaluate(PrecomputedOfBoth(), Catalog.load(original), "test")
    assert list(result.rankings) == ["random", "bm25", "joint", "joint+bm25"]


class PrecomputedOfBoth:
    modalities = "both"

    def query_vectors(self, ids: Sequence[str]) -> np.ndarray:
        return np.eye(4, dtype=np.float32)[np.arange(len(ids)) % 4]

    product_vectors = query_vectors


def test_hidden_titles_exclude_every_system_that_reads_titles(tmp_path: Path) -> None:
    original = write_catalog(tmp_path / "original", products=60, queries=8, missing=False)
    catalog = Catalog.load(edited(original, tmp_path / "copy", {"hide_title": True}))
    result = evaluate(FakeEncoder(), catalog, "test")
    assert list(result.rankings) == ["random", "image"]
    assert result.fused is None
    assert any("have hidden titles" in note and "image only" in note for note in result.notes)
    with pytest.raises(InputError, match="hide_title"):
        evaluate(FakeEncoder("title"), catalog, "test")


def test_a_split_without_positives_is_an_input_error(path: Path) -> None:
    with pytest.raises(InputError, match="split 'train' has no query with a relevant product"):
        evaluate(FakeEncoder(), Catalog.load(path), "train")


def test_a_catalog_without_judged_queries_names_queries_jsonl(path: Path, tmp_path: Path) -> None:
    copy = edited(path, tmp_path / "copy", {})
    (copy / "queries.jsonl").write_text("", "utf-8")
    with pytest.raises(
        InputError, match=r"no judged queries, .* write some to queries\.jsonl, or search with make_jax"
    ):
        evaluate(FakeEncoder(), Catalog.load(copy), "test")


def test_queries_without_a_positive_are_noted(path: Path, tmp_path: Path) -> None:
    copy = edited(path, tmp_path / "copy", {})
    with (copy / "queries.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"qid": "nothing", "text": "red", "split": "test", "rel": {}}\n')
    result = evaluate(FakeEncoder(), Catalog.load(copy), "test")
    assert result.judgements.without_positive == ("nothing",)
    assert any(note.startswith("1 queries have no product of grade 3 or more to find; they") for note in result.notes)
    assert not any("not searched" in note for note in result.notes)


def test_what_the_pool_leaves_out_is_counted_and_the_setting_named(path: Path, tmp_path: Path) -> None:
    copy = edited(path, tmp_path / "copy", {})
    with (copy / "queries.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"qid": "elsewhere", "text": "red", "split": "test", "rel": {"p0": 3, "p1": 1}}\n')
        file.write('{"qid": "nothing", "text": "red", "split": "test", "rel": {"p4": 1}}\n')
    for pool, outside in (("split", 2), ("all", 0)):
        notes = evaluate(None, Catalog.load(copy), "test", pool=pool).notes  # type: ignore[arg-type]
        more = "; 1 of them have one among products that are not searched" if outside else ""
        head = f"{2 if outside else 1} queries have no product of grade 3 or more to find{more}; they are left out"
        assert any(note.startswith(head) for note in notes)
        found = [note for note in notes if "judgements are of products that are not searched" in note]
        assert len(found) == bool(outside) and all(note.startswith("2 ") and "--pool all" in note for note in found)


def test_a_small_depth_cuts_the_run_files_and_no_metric(path: Path, tmp_path: Path) -> None:
    catalog = Catalog.load(path)
    result, complete = (evaluate(FakeEncoder(), catalog, "test", depth=depth) for depth in (5, 1000))
    for system, values in complete.values.items():
        for metric, value in values.items():
            np.testing.assert_array_equal(result.values[system][metric], value)
    assert any(note.startswith("Run files have the first 5 products") for note in result.notes)
    assert not any(note.startswith("Run files") for note in complete.notes)
    write_report(result, catalog, tmp_path / "report", metadata(catalog, seed=0))
    for run in (tmp_path / "report" / "runs").iterdir():
        lines = gzip.decompress(run.read_bytes()).decode().splitlines()
        assert max(int(line.split()[3]) for line in lines) == min(5, len(complete.products))


def test_rankings_are_as_deep_as_the_deepest_metric_and_their_depth_is_noted(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalog = Catalog.load(path)
    monkeypatch.setattr(metrics, "METRICS", {"nDCG@10": METRICS["nDCG@10"], "recall@7": Metric("R@7")})
    assert metrics.min_depth() == 10
    result = evaluate(FakeEncoder(), catalog, "test", depth=5)
    assert {ranking.indices.shape[1] for ranking in result.rankings.values()} == {10}
    assert any("10 deep" in note for note in result.notes)
