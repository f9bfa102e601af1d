"""The encoder family of docs/extending.md, executed from the page, imports a checkpoint and computes what it should."""

import re
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import unflatten_dict
from scipy.special import erf

from make_jax.config import TextConfig
from make_jax.errors import InputError
from make_jax.interop import families
from make_jax.interop.import_encoders import import_encoders, read_encoder
from make_jax.model.text import TextEncoder
from tests.conftest import ROOT
from tests.interop import tiny_checkpoints as tiny

LAYERS, WIDTH, HEADS, MLP, TOKENS, LENGTH = 2, 16, 2, 32, 48, 20
CONFIG = {
    "model_type": "stacked_bert",
    "num_layers": LAYERS,
    "d_model": WIDTH,
    "nhead": HEADS,
    "dim_feedforward": MLP,
    "vocab_size": TOKENS,
    "max_position_embeddings": LENGTH,
}


def tensors() -> dict[str, np.ndarray]:
    """A checkpoint of random numbers in the names of the page."""
    shapes: dict[str, tuple[int, ...]] = {
        "tokens.weight": (TOKENS, WIDTH),
        "positions.weight": (LENGTH, WIDTH),
        "types.weight": (2, WIDTH),
        "lm_head.weight": (TOKENS, WIDTH),
        **tiny.both("norm", WIDTH),
    }
    for i in range(LAYERS):
        layer = f"layers.{i}"
        shapes |= {
            f"{layer}.self_attn.in_proj_weight": (3 * WIDTH, WIDTH),
            f"{layer}.self_attn.in_proj_bias": (3 * WIDTH,),
            **tiny.both(f"{layer}.self_attn.out_proj", WIDTH, WIDTH),
            **tiny.both(f"{layer}.linear1", MLP, WIDTH),
            **tiny.both(f"{layer}.linear2", WIDTH, MLP),
            **tiny.both(f"{layer}.norm1", WIDTH),
            **tiny.both(f"{layer}.norm2", WIDTH),
        }
    return tiny.tensors(shapes)


def reference(t: dict[str, np.ndarray], tokens: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The encoder in plain NumPy, in float64, from the checkpoint's own tensors."""

    def linear(x: np.ndarray, name: str) -> np.ndarray:
        return x @ t[f"{name}.weight"].T + t[f"{name}.bias"]

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        centered = x - x.mean(-1, keepdims=True)
        return (
            centered / np.sqrt((centered**2).mean(-1, keepdims=True) + 1e-5) * t[f"{name}.weight"] + t[f"{name}.bias"]
        )

    t = {name: array.astype(np.float64) for name, array in t.items()}
    b, length = tokens.shape
    x = norm(t["tokens.weight"][tokens] + t["positions.weight"][:length] + t["types.weight"][0], "norm")
    for i in range(LAYERS):
        layer = f"layers.{i}"
        stacked = x @ t[f"{layer}.self_attn.in_proj_weight"].T + t[f"{layer}.self_attn.in_proj_bias"]
        query, key, value = (
            part.reshape(b, length, HEADS, WIDTH // HEADS).transpose(0, 2, 1, 3)
            for part in np.split(stacked, 3, axis=-1)
        )
        logits = query @ key.transpose(0, 1, 3, 2) / np.sqrt(WIDTH // HEADS)
        logits = np.where(mask[:, None, None], logits, -np.inf)
        weights = np.exp(logits - logits.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        attended = (weights @ value).transpose(0, 2, 1, 3).reshape(b, length, WIDTH)
        x = norm(x + linear(attended, f"{layer}.self_attn.out_proj"), f"{layer}.norm1")
        hidden = linear(x, f"{layer}.linear1")
        hidden = hidden * 0.5 * (1 + erf(hidden / np.sqrt(2)))
        x = norm(x + linear(hidden, f"{layer}.linear2"), f"{layer}.norm2")
    return x


@pytest.fixture
def checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkpoint of the family, with the code of the page executed and its family added to the table."""
    page = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    section = page.split("## An encoder family")[1]
    (example,) = re.findall(r"^```python\n(.*?)^```", section, re.DOTALL | re.MULTILINE)
    names: dict[str, Any] = {}
    exec(compile(example, "docs/extending.md", "exec"), names)
    monkeypatch.setattr(families, "FAMILIES", [*families.FAMILIES, names["STACKED_BERT"]])
    monkeypatch.setattr("make_jax.interop.import_encoders.FAMILIES", families.FAMILIES)
    return tiny.write(tmp_path / "stacked", CONFIG, tensors())


def test_the_family_of_the_docs_imports_and_equals_a_plain_reference(checkpoint: Path, tmp_path: Path) -> None:
    import_encoders(str(checkpoint), str(tmp_path / "out"), print)
    encoder = read_encoder(str(tmp_path / "out"), "text", "init_from")
    assert encoder.family == "stacked-bert"
    mask = np.arange(9)[None] < np.array([9, 4, 6])[:, None]
    tokens = np.random.default_rng(1).integers(0, TOKENS, mask.shape)
    module = TextEncoder(TextConfig(**encoder.settings), TOKENS, LENGTH)
    params = unflatten_dict(encoder.arrays, sep="/")
    states = np.asarray(module.apply({"params": params}, jnp.asarray(tokens, jnp.int32), jnp.asarray(mask)))
    expected = reference(tensors(), tokens, mask)
    assert np.abs(states - expected)[mask].max() <= 1e-5 * np.abs(expected).max()


def test_the_family_of_the_docs_rejects_what_it_cannot_compute(checkpoint: Path) -> None:
    tiny.write(checkpoint, CONFIG | {"norm_first": True}, tensors())
    with pytest.raises(InputError, match="norm_first is True; our encoders support False only"):
        read_encoder(str(checkpoint), "text", "init_from")
    tiny.write(checkpoint, CONFIG, {name: array for name, array in tensors().items() if name != "norm.bias"})
    with pytest.raises(InputError, match=r"norm\.bias is missing"):
        read_encoder(str(checkpoint), "text", "init_from")
