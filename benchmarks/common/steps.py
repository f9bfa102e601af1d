"""Compiled training steps on random batches, timed in alternation."""

import statistics
import time
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from make_jax.config import Config
from make_jax.inputs.masking import num_masked_patches
from make_jax.model.make import Make
from make_jax.runs.mesh import shard_batch
from make_jax.training.step import init_state, make_step

VOCAB_SIZE, KEYWORDS = 8192, 400


class CompiledStep:
    """A compiled training step with its state and batch, after one warm-up step."""

    def __init__(self, config: Config, batch: Mapping[str, np.ndarray], mesh: Mesh) -> None:
        model = Make(config.model, config.inputs, VOCAB_SIZE, KEYWORDS)
        self.state = init_state(model, config, mesh)
        self.batch = shard_batch(dict(batch), mesh)
        self.state_bytes = sum(leaf.nbytes for leaf in jax.tree.leaves(self.state))
        self.step = make_step(model, config, mesh, self.state.params).lower(self.state, self.batch).compile()
        self.temp_bytes = self.step.memory_analysis().temp_size_in_bytes
        self.seconds: list[float] = []
        self.run()
        self.seconds.clear()

    def run(self) -> None:
        """Runs one step and records its wall time."""
        start = time.perf_counter()
        self.state, metrics = self.step(self.state, self.batch)
        jax.block_until_ready(metrics)
        self.seconds.append(time.perf_counter() - start)

    def summary(self) -> dict[str, Any]:
        """Returns median, minimum and quartiles of the step time, and the temporary memory."""
        return {
            "seconds": statistics.median(self.seconds),
            "least": min(self.seconds),
            "quartiles": [round(q, 4) for q in statistics.quantiles(self.seconds, n=4)],
            "temporary_mib": round(self.temp_bytes / 2**20, 1),
        }


def run_alternating(steps: Mapping[str, CompiledStep], count: int) -> None:
    """Runs `count` steps of each, one of each in turn, so that other load on the machine affects all alike."""
    for _ in range(count):
        for step in steps.values():
            step.run()


def random_batch(config: Config) -> dict[str, np.ndarray]:
    """Returns a batch with the keys of all objectives."""
    rng = np.random.default_rng(0)
    b, i = config.train.batch_size, config.inputs
    words = -(-KEYWORDS // 32)
    sizes = {"query": i.max_query_tokens, "title": i.max_title_tokens, "swap": i.max_query_tokens}
    tokens = {f"{name}_tokens": rng.integers(5, VOCAB_SIZE, (b, n)).astype(np.int32) for name, n in sizes.items()}
    masks = {f"{name}_mask": np.ones((b, n), bool) for name, n in sizes.items()}
    first_bit = np.arange(words) == rng.integers(0, words, (b, 1))
    masked = {}
    for name, n in (("query", i.max_query_tokens), ("title", i.max_title_tokens)):
        position = np.arange(n)[None] == rng.integers(0, n, (b, 1))
        masked[f"{name}_masked"] = np.where(position, 4, tokens[f"{name}_tokens"])
        masked[f"{name}_labels"] = np.where(position, tokens[f"{name}_tokens"], -1)
    patches = i.image_height * i.image_width // config.model.image.patch_size**2
    ranks = np.argsort(rng.random((b, patches)), axis=1)
    masked["patch_mask"] = ranks < num_masked_patches(i, patches)
    bits = {f"{name}_keywords": np.where(first_bit, 1, 0).astype(np.uint32) for name in ("query", "product", "swap")}
    return {
        **tokens,
        **masks,
        **bits,
        **masked,
        "image": rng.integers(0, 256, (b, i.image_height, i.image_width, 3)).astype(np.uint8),
        "has_title": np.ones(b, bool),
        "has_image": np.ones(b, bool),
        "query_id": np.arange(b, dtype=np.int32),
        "product_id": np.arange(b, dtype=np.int32),
        "weight": np.ones(b, np.float32),
    }
