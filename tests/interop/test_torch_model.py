"""The exported PyTorch model against our own, and as PyTorch users have it."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from make_jax.interop import torch_checkpoint
from make_jax.interop.bundle import read_bundle
from tests.conftest import ROOT
from tests.interop.exports import IMAGES, MODELS, TEXTS, TITLES, assert_close, flax_outputs, random_params, tiny_bundle

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install -e '.[torch]'")
from make_jax.interop.torch_model import MakeModel, MakeProcessor  # noqa: E402


@pytest.fixture(scope="module", params=MODELS)
def every(request, tmp_path_factory):
    """Each kind of model: its folder, and as `exported`."""
    folder = tmp_path_factory.mktemp("export")
    return folder, *exported(folder, request.param)


@pytest.fixture(scope="module")
def fashion(tmp_path_factory):
    """What the recipe for fashion is made of."""
    return exported(tmp_path_factory.mktemp("fashion"), "fashion")


def exported(folder: Path, name: str):
    """What an export was made of, and what PyTorch makes of it."""
    bundle = tiny_bundle(MODELS[name])
    params = random_params(bundle)
    torch_checkpoint.write(folder, params, bundle)
    model, info = MakeModel.from_pretrained(folder, output_loading_info=True)
    assert not any(info.values()), info  # no tensor missing, unexpected or of another shape
    return bundle, params, model.eval(), MakeProcessor.from_pretrained(folder)


def test_vectors_and_weights_equal_the_flax_module(every):
    _, bundle, params, model, processor = every
    with torch.no_grad():
        queries = model.query_embedding(**processor.queries(TEXTS))
        products = model.product_embedding(**processor.products(TITLES, IMAGES))
    vectors, product_vectors, weights = flax_outputs(bundle, params)
    assert_close(vectors, queries)
    assert_close(product_vectors, products.vectors)
    assert_close(weights, products.weights)
    if model.has_two_embeddings:  # missing modalities have weight 0
        assert products.weights[1, 0] == 0
        assert products.weights[2, 1] == 0


def test_results_do_not_depend_on_padding(fashion):
    _, _, model, processor = fashion
    query, product = processor.queries(TEXTS[:1]), processor.products(TITLES[:1], IMAGES[:1])
    short = {k: v[:, : int(query["query_mask"].sum())] if v.shape[1] == 6 else v for k, v in query.items()}
    cut = int(product["title_mask"].sum())
    shorter = {k: v[:, :cut] if k.startswith("title") else v for k, v in product.items()}
    with torch.no_grad():
        assert_close(model.query_embedding(**query), model.query_embedding(**short))
        assert_close(model.product_embedding(**product).vectors, model.product_embedding(**shorter).vectors)


def test_save_pretrained_writes_the_export_bit_by_bit(every, tmp_path):
    folder, bundle, _, model, processor = every
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    first, second = (load_file(path / "model.safetensors") for path in (folder, tmp_path))
    assert first.keys() == second.keys()
    assert all(first[key].tobytes() == second[key].tobytes() for key in first)
    assert read_bundle(tmp_path).config == bundle.config  # torch_checkpoint.read has the rest


def test_every_gradient_is_finite_with_missing_texts_and_images(every):
    *_, model, processor = every
    logits = model(processor.queries(TEXTS), processor.products(TITLES, IMAGES))
    torch.nn.functional.cross_entropy(logits, torch.arange(len(TEXTS))).backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert gradients
    assert all(torch.isfinite(gradient).all() for gradient in gradients)


def test_the_pytorch_model_never_imports_jax():
    code = "import make_jax.interop.torch_model, sys; assert 'jax' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_example_of_the_docs_runs_and_its_step_lowers_the_loss(fashion, tmp_path, monkeypatch):
    bundle, params, _, _ = fashion
    monkeypatch.chdir(tmp_path)
    Path("exports/mine").mkdir(parents=True)
    torch_checkpoint.write(Path("exports/mine"), params, bundle)
    Path("a.jpg").write_bytes(IMAGES[0])
    page = (ROOT / "docs" / "converting.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    names: dict = {}
    torch.manual_seed(0)  # of dropout, whatever ran before
    exec(compile(example, "docs/converting.md", "exec"), names)
    assert names["scores"].shape == (1, 2)
    texts, titles, images = names["texts"], names["titles"], names["images"]

    def loss(folder: str) -> float:
        """The contrastive loss without dropout."""
        model = MakeModel.from_pretrained(folder).eval()
        processor, cross_entropy = names["processor"], torch.nn.functional.cross_entropy
        with torch.no_grad():
            logits = model(processor.queries(texts), processor.products(titles, images))
        return float(cross_entropy(logits, names["rows"]) + cross_entropy(logits.T, names["rows"])) / 2

    assert loss("exports/tuned") < loss("exports/mine")
    tuned, _ = torch_checkpoint.read(Path("exports/tuned"))
    assert not np.array_equal(tuned["query_projection"]["kernel"], params["query_projection"]["kernel"])
    assert np.array_equal(tuned["keyword_evidence"]["known"], params["keyword_evidence"]["known"])  # waits for its fit
