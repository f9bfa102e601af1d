"""Which adapter opens a path, the example of docs/models.md, and models through the code of eval.py."""

import hashlib
import json
import re
from pathlib import Path

import numpy as np
import pytest

from make_jax.catalog.reader import Catalog
from make_jax.cli import evaluation as program
from make_jax.cli.options import parse_evaluation
from make_jax.errors import InputError
from make_jax.evaluation import models
from make_jax.evaluation.evaluate import evaluate
from make_jax.evaluation.models import open_model
from make_jax.extras import import_optional
from make_jax.files import folder_digest
from tests.conftest import ROOT
from tests.tiny_catalog import write_catalog, write_lines


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_catalog(tmp_path_factory.mktemp("catalog") / "tiny", products=60, queries=16)


def example() -> str:
    text = (ROOT / "docs" / "models.md").read_text("utf-8")
    return re.findall(r"<!-- example.*?```python\n(.*?)```", text, re.DOTALL)[0]


def test_the_documented_example_is_evaluated_and_has_20_lines(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = example()
    own = [line for line in code.splitlines() if line.strip() and not line.startswith(("import", "from"))]
    assert len(own) <= 20
    (tmp_path / "hashed.py").write_text(code, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    folder = program.evaluate_model(parse_evaluation(["hashed.py", "--data.catalog", str(path)]))
    assert folder == Path("runs/eval/hashed/tiny-test")
    report = json.loads((folder / "report.json").read_text("utf-8"))
    path_digest = hashlib.sha256(str((tmp_path / "hashed.py").resolve()).encode()).hexdigest()
    assert report["about"]["model"] == {"name": "hashed", "kind": "python_file", "path_digest": path_digest}
    assert report["systems"] == ["random", "bm25", "title", "title+bm25"]
    means = {system: of["nDCG@10"]["mean"] for system, of in report["slices"]["all"]["systems"].items()}
    assert means["title"] > means["random"]
    assert report["cost"]["bytes"] == 4 * 512


def test_bm25_is_evaluated_alone(path: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    program.evaluate_model(parse_evaluation(["bm25", "--data.catalog", str(path), "--out", str(out)]))
    report = json.loads((out / "report.json").read_text("utf-8"))
    assert report["systems"] == ["random", "bm25"] and report["main"] == "bm25"
    assert report["parameters"]["chosen_on"]["queries"] == 8
    assert "modal_weights" not in report and (out / "gallery.png").is_file()
    assert "BM25 k1" in (out / "report.md").read_text("utf-8")


def test_bm25_without_titles_is_an_input_error(path: Path, tmp_path: Path) -> None:
    titled = write_catalog(tmp_path / "titled", products=60, queries=8, missing=False)
    rows = [json.loads(line) for line in (titled / "products.jsonl").read_text("utf-8").splitlines()]
    write_lines(titled / "products.jsonl", [row | {"title": ""} for row in rows])
    with pytest.raises(InputError, match="no titles, which is all that BM25 reads"):
        evaluate(None, Catalog.load(titled))
    info = json.loads((titled / "catalog.json").read_text("utf-8"))
    (titled / "catalog.json").write_text(json.dumps(info | {"hide_title": True}), encoding="utf-8")
    with pytest.raises(InputError, match=r"hide_title.*BM25 reads titles only"):
        evaluate(None, Catalog.load(titled))


@pytest.mark.parametrize(
    ("files", "kind"),
    [
        ({"checkpoints/x": ""}, "run"),
        ({"embeddings.json": "{}"}, "precomputed"),
        ({"modules.json": "[]", "config.json": '{"model_type": "bert"}'}, "sentences"),
        ({"open_clip_config.json": "{}", "config.json": '{"model_type": "clip"}'}, "open_clip_folder"),
        ({"config.json": '{"model_type": "siglip"}'}, "clip"),
        ({"encoder.py": ""}, None),
        ({"config.json": '{"model_type": "bert"}'}, None),
        ({"config.json": "no JSON"}, None),
    ],
)
def test_the_first_adapter_that_matches_a_folder_opens_it(
    tmp_path: Path, files: dict[str, str], kind: str | None
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    if kind is None:
        with pytest.raises(InputError, match="neither a run nor a model of a kind that"):
            models.adapter_name(tmp_path)
    else:
        assert models.adapter_name(tmp_path) == kind


def test_a_missing_path_is_named() -> None:
    with pytest.raises(InputError, match=r"nowhere: not found, expected a run, another model's folder, a \.py file"):
        open_model("nowhere")


@pytest.mark.parametrize(
    ("code", "message"),
    [("x = 1", "`encoder` is nothing of that name"), ("encoder = 3", "`encoder` is a int, expected an object with")],
)
def test_a_python_file_without_an_encoder_is_named(tmp_path: Path, code: str, message: str) -> None:
    (tmp_path / "mine.py").write_text(code, encoding="utf-8")
    with pytest.raises(InputError, match=message):
        open_model(tmp_path / "mine.py")


def test_a_missing_library_is_one_line_with_the_extra_to_install() -> None:
    with pytest.raises(InputError, match=r"a CLIP folder needs no_such_library .*pip install .*\[models\]"):
        import_optional("no_such_library", "models", "a CLIP folder")


def test_a_sentence_transformers_folder_with_classes_of_others_is_refused(tmp_path: Path) -> None:
    (tmp_path / "modules.json").write_text('[{"type": "os.system"}]', encoding="utf-8")
    with pytest.raises(InputError, match=r"class os\.system, expected those of sentence_transformers alone"):
        open_model(tmp_path)


def test_an_open_clip_folder_of_pickles_is_refused(tmp_path: Path) -> None:
    (tmp_path / "open_clip_config.json").write_text("{}", encoding="utf-8")
    (tmp_path / "open_clip_pytorch_model.bin").write_bytes(b"")
    with pytest.raises(InputError, match="pickles are not read"):
        open_model(tmp_path)


def test_precomputed_vectors_are_evaluated(path: Path, tmp_path: Path) -> None:
    """Vectors that rank the relevant first, for all queries but the last product."""
    catalog = Catalog.load(path)
    rng = np.random.default_rng(0)
    ids = [product.id for product in catalog.products]
    products = rng.normal(size=(len(ids), 32)).astype(np.float32)
    products /= np.linalg.norm(products, axis=1, keepdims=True)
    place = {identity: i for i, identity in enumerate(ids)}
    queries = np.stack([sum(g * products[place[p]] for p, g in q.rel.items()) for q in catalog.queries])
    (tmp_path / "embeddings.json").write_text('{"reads": "image"}', encoding="utf-8")
    for name, vectors, names in (
        ("products", products[:-1], ids[:-1]),
        ("queries", queries, [q.id for q in catalog.queries]),
    ):
        np.save(tmp_path / f"{name}.npy", vectors.astype(np.float16))
        (tmp_path / f"{name}.ids.txt").write_text("".join(f"{n}\n" for n in names), encoding="utf-8")
    opened = open_model(tmp_path)
    result = evaluate(opened.model, catalog, "test")
    assert (opened.kind, result.main, list(result.rankings)) == (
        "precomputed",
        "image",
        ["random", "bm25", "image", "image+bm25"],
    )
    assert result.values["image"]["nDCG@10"].mean() > 0.9
    assert any("1 of 12 products cannot be found image" in note for note in result.notes)


def test_the_digest_of_a_folder_covers_names_and_contents(tmp_path):
    def folder(name: str, **files: str) -> Path:
        (tmp_path / name / "within").mkdir(parents=True)
        for file, text in files.items():
            (tmp_path / name / "within" / file).write_text(text)
        return tmp_path / name

    same = [folder_digest(folder(name, one="1", two="2")) for name in "ab"]
    others = [folder_digest(folder("c", one="2", two="1")), folder_digest(folder("d", one="1", three="2"))]
    assert len(same[0]) == 64 and len({*same, *others}) == 3


def test_vectors_are_not_kept_in_the_folder_of_the_model(path: Path, tmp_path: Path) -> None:
    catalog = Catalog.load(path)
    (tmp_path / "embeddings.json").write_text('{"reads": "title"}')
    for name, ids in (("queries", [q.id for q in catalog.queries]), ("products", [p.id for p in catalog.products])):
        np.save(tmp_path / f"{name}.npy", np.ones((len(ids), 4), np.float32))
        (tmp_path / f"{name}.ids.txt").write_text("\n".join(ids))
    options = [str(tmp_path), "--data.catalog", str(path), "--embeddings", str(tmp_path / "kept")]
    with pytest.raises(InputError, match=r"kept: inside the model's folder"):
        program.evaluate_model(parse_evaluation(options, ""))


@pytest.mark.parametrize("pickle", ["open_clip_pytorch_model.bin", "model.pth"])
def test_an_open_clip_folder_whose_pickle_has_precedence_is_refused(tmp_path: Path, pickle: str) -> None:
    for name in ("open_clip_config.json", "model.safetensors", pickle):
        (tmp_path / name).write_text("{}")
    with pytest.raises(InputError, match=r"no open_clip_model\.safetensors, expected it there; pickles are not read"):
        open_model(tmp_path)


def test_bm25_alone_keeps_no_vectors_and_adds_no_note(path: Path, tmp_path: Path) -> None:
    result = evaluate(None, Catalog.load(path), vectors_folder=tmp_path / "kept")
    assert not (tmp_path / "kept").exists() and not any("float16" in note for note in result.notes)
