"""Examples of the contrastive loss, its compiled implementations, and a reference on Python sets."""

from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, PartitionSpec

from make_jax.objectives.contrastive import contrastive_loss
from make_jax.objectives.false_negatives import ContrastiveInputs

B, D, V = 24, 8, 40  # 24 rows: on 8 devices 3 each, which tiles of 2 do not divide
AXES = ("data", "fsdp")
LEARNED = ("q", "p", "swap", "s", "b")
MARGIN = 0.2
Example = dict[str, Any]


def members(packed: Any) -> list[set[int]]:
    """Unpacks keyword sets."""
    return [{k for k in range(V) if row[k // 32] >> (k % 32) & 1} for row in np.asarray(packed).tolist()]


def packed(sets: Any) -> np.ndarray:
    words = [[sum(1 << k % 32 for k in of if k // 32 == w) for w in range(-(-V // 32))] for of in sets]
    return np.array(words, np.uint32)


def negatives(e: Example) -> np.ndarray:
    """Which pairs are negatives, pair by pair."""
    qid, pid, w = (np.asarray(e[name]) for name in ("qid", "pid", "w"))
    query_keywords, product_keywords = (members(e[name]) for name in ("qk", "pk"))
    negative = np.zeros((B, B), bool)
    for i in range(B):
        for j in range(B):
            same = (qid[i] == qid[j] >= 0) or (pid[i] == pid[j] >= 0)
            has_all = bool(query_keywords[i]) and query_keywords[i] <= product_keywords[j]
            negative[i, j] = i != j and not (same or has_all or w[i] == 0 or w[j] == 0)
    return negative


@cache
def formula(loss_type: str, margin: float):
    """Returns a function example -> (value, gradients), by the formula in the docstring of contrastive.py."""

    def loss(a, e, negative):
        included, eye = negative | np.eye(B, dtype=bool), jnp.eye(B)
        scale = jnp.exp(a["s"])
        logits = scale * (jnp.dot(a["q"], a["p"].T, precision="highest") - margin * eye)
        swapped = scale * jnp.sum(a["swap"] * a["p"], 1)
        has_swap = e["sid"] >= 0
        if loss_type == "softmax":
            rows = jnp.where(included, logits, -jnp.inf)
            columns = jnp.concatenate([rows, jnp.where(has_swap, swapped, -jnp.inf)[None]], 0)
            losses = jax.nn.logsumexp(rows, 1) + jax.nn.logsumexp(columns, 0) - 2 * jnp.diag(logits)
        else:
            pairs = jnp.where(included, -jax.nn.log_sigmoid((2 * eye - 1) * (logits + a["b"])), 0)
            losses = pairs.sum(1) + pairs.sum(0)
            losses += jnp.where(has_swap, -jax.nn.log_sigmoid(-(swapped + a["b"])), 0)
        return jnp.sum(e["w"] * losses) / (2 * e["w"].sum())

    compiled = jax.jit(jax.value_and_grad(loss))
    return lambda e: compiled({name: e[name] for name in LEARNED}, e, jnp.asarray(negatives(e)))


@cache
def loss_of(
    implementation: str,
    devices: int,
    loss_type: str = "softmax",
    margin: float = MARGIN,
    tile: int = 2,
    bare: bool = False,
):
    """Returns example -> ((value, metrics), gradients). 0 devices: `axis=None`; bare: without keywords and swaps."""

    def local(q, p, swap, w, s, b):
        if bare:
            q, p, swap = ContrastiveInputs(q.embeddings, q.ids), ContrastiveInputs(p.embeddings, p.ids), None
        return contrastive_loss(
            q,
            p,
            s,
            weights=w,
            loss_type=loss_type,
            logit_bias=b,
            margin=margin,
            swaps=swap,
            implementation=implementation,
            tile=tile,
            axis=AXES if devices else None,
        )

    if devices:
        mesh = mesh_of(devices)
        rows, replicated = PartitionSpec(AXES), PartitionSpec()
        local = jax.shard_map(
            local, mesh=mesh, in_specs=(rows,) * 4 + (replicated,) * 2, out_specs=replicated, check_vma=True
        )

    def loss(a, e):
        return local(
            ContrastiveInputs(a["q"], e["qid"], e["qk"]),
            ContrastiveInputs(a["p"], e["pid"], e["pk"]),
            ContrastiveInputs(a["swap"], e["sid"]),
            e["w"],
            a["s"],
            a["b"],
        )

    compiled = jax.jit(jax.value_and_grad(loss, has_aux=True))
    return lambda e: compiled({name: e[name] for name in LEARNED}, e)


def mesh_of(devices: int) -> jax.sharding.Mesh:
    """Two mesh axes from two devices on, so that the ring spans both."""
    shape = (max(devices // 2, 1), min(devices, 2))
    return jax.make_mesh(shape, AXES, axis_types=(AxisType.Auto,) * 2, devices=jax.devices()[:devices])


def agree(actual, expected, tolerance=1e-5):
    """Asserts that the largest difference, relative to the largest reference value, is within tolerance."""
    for x, y in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
        assert np.abs(x - y).max() <= tolerance * max(np.abs(y).max(), 1e-12)


def vectors(rng: np.random.Generator, rows: int) -> np.ndarray:
    x = rng.normal(size=(rows, D)).astype(np.float32)
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def plain_example(seed: int = 0) -> Example:
    """Embeddings alone: every other row is a negative."""
    rng = np.random.default_rng(seed)
    arrays = {
        "q": vectors(rng, B),
        "p": vectors(rng, B),
        "qid": np.arange(B, dtype=np.int32),
        "pid": np.arange(B, dtype=np.int32),
        "qk": packed([()] * B),
        "pk": packed([()] * B),
        "swap": vectors(rng, B),
        "sid": np.full(B, -1, np.int32),
        "w": np.ones(B, np.float32),
        "s": np.float32(np.log(20.0)),
        "b": np.float32(-3.0),
    }
    return {name: jnp.asarray(value) for name, value in arrays.items()}


def options(seed: int = 0) -> dict[str, Example]:
    """Changes to a plain example, by name."""
    rng = np.random.default_rng(seed)

    def sets(rows: int, most: int) -> jax.Array:
        few = [0, 1, 31, 32, 39]  # on both sides of a word's end, and few, so that subsets are frequent
        return jnp.asarray(
            packed([rng.choice(few, rng.integers(most + 1), replace=False).tolist() for _ in range(rows)])
        )

    def ids(*values: int) -> jax.Array:
        return jnp.asarray([*values, *range(len(values), B)], jnp.int32)

    exact = np.tile(rng.choice([-0.5, 0.5], (4, D)).astype(np.float32), (B // 4, 1))  # exactly summed in any order
    near = np.where(rng.random((B, D)) < 1 / D, -exact, exact)
    return {
        "duplicates": {
            "qid": ids(0, 0, 2, 3, 4, 5, 5, 5, -1, -1, 10, 11, 12, 13, 14, 15),
            "pid": ids(0, 1, 1, 3, 4, 5, 6, 7, 8, 9, -1, -1, 12, 12, 12, 15),
        },
        "keywords": {"qk": sets(B, 2), "pk": sets(B, 4)},
        "padding rows": {"w": jnp.ones(B).at[jnp.array([3, 15, 22, 23])].set(0.0).at[7].set(0.5).at[13].set(2.0)},
        "swaps": {"sid": jnp.asarray([0, -1] * (B // 2), jnp.int32)},
        "scale 100": {"s": jnp.float32(np.log(100.0))},
        "no valid negative": {"qid": jnp.zeros(B, jnp.int32)},
        "some without a negative": {"qid": ids(*[0] * 20), "pid": ids(*range(20), *[20] * 4)},
        "all weights zero": {"w": jnp.zeros(B)},
        "equal cosines": {"q": jnp.asarray(near), "p": jnp.asarray(exact)},
    }


def together(seed: int = 0) -> Example:
    """All compatible options at once."""
    e = plain_example(seed)
    for name in ("duplicates", "keywords", "padding rows", "swaps"):
        e |= options(seed)[name]
    return e
