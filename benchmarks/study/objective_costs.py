"""What each objective costs: step time and memory, on the shapes of configs/fashion.py, side by side in one run.

    python benchmarks/study/objective_costs.py [--steps 7] [--out docs/results/objective-costs.json]

Every variant is compiled once; then the steps of all variants alternate, and medians and quartiles over them are told.
Memory is what the compiler plans for one step beside its inputs and outputs (temporary buffers), and what the step
keeps between steps (the state). Batches are random: time and memory do not depend on what is in them.
"""

import argparse
import dataclasses
import json
import runpy
import statistics
import sys
import time
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the repository root

from benchmarks import RESULTS, ROOT
from make_jax.catalog.reader import Catalog
from make_jax.config import Config, MatchingConfig, check
from make_jax.errors import exit_cleanly
from make_jax.files import write_atomically
from make_jax.inputs.masking import num_masked_patches
from make_jax.model.make import Make
from make_jax.runs.mesh import make_mesh, shard_batch
from make_jax.runs.provenance import metadata
from make_jax.training.step import init_state, make_step

VOCABULARY, KEYWORDS = 8192, 400
ALONE = {"title_contrast": 0.0, "image_contrast": 0.0, "keyword_masking": False, "keyword_swaps": False}
ALONE |= dict.fromkeys(("key", "qim", "qim2", "mlm", "mpm"), 0.0)
RECIPE = {"title_contrast": 0.5, "image_contrast": 0.5, "keyword_masking": True, "keyword_swaps": True, "key": 0.1}
VARIANTS: dict[str, dict[str, Any]] = {
    "QIC alone": {},
    "all of configs/fashion.py": RECIPE,
    "+ AM-Softmax (margin)": {"margin": 0.1},
    "+ sigmoid instead of softmax": {"loss_type": "sigmoid"},
    "+ query-title and query-image contrast": {"title_contrast": 0.5, "image_contrast": 0.5},
    "+ false-negative masking": {"keyword_masking": True},
    "+ keyword swaps": {"keyword_swaps": True},
    "+ enrichment and KEY": {"key": 0.1},
    "+ QIM": {"qim": 1.0},
    "+ QIM2": {"qim2": 1.0},
    "+ MLM": {"mlm": 1.0},
    "+ MPM, contrastive": {"mpm": 1.0},
    "+ MPM, regression": {"mpm": 1.0},
    "all (contrastive MPM)": RECIPE | dict.fromkeys(("qim", "qim2", "mlm", "mpm"), 0.1),
}


def config_of(changes: dict[str, Any], form: Literal["contrastive", "regression"] = "contrastive") -> Config:
    """configs/fashion.py with the objectives of a variant; `form` is that of MPM."""
    recipe: Config = runpy.run_path(str(ROOT / "configs" / "fashion.py"))["config"]
    objectives = dataclasses.replace(recipe.objectives, **(ALONE | changes))
    matching = MatchingConfig(layers=1 if objectives.qim or objectives.qim2 else 0, width=128, heads=2, mlp_width=512)
    model = dataclasses.replace(
        recipe.model,
        matching=matching,
        enrichment=objectives.key > 0,
        mlm=objectives.mlm > 0,
        mpm=form if objectives.mpm else "none",
    )
    config = dataclasses.replace(recipe, objectives=objectives, model=model)
    check(config)
    return config


class Variant:
    """A compiled step with its state."""

    def __init__(self, name: str, changes: dict[str, Any], batch: dict[str, np.ndarray]) -> None:
        config = config_of(changes, "regression" if "regression" in name else "contrastive")
        mesh = make_mesh()
        model = Make(config.model, config.inputs, VOCABULARY, KEYWORDS)
        self.state = init_state(model, config, mesh)
        swaps = config.objectives.keyword_swaps
        self.batch = shard_batch({k: v for k, v in batch.items() if swaps or not k.startswith("swap")}, mesh)
        self.state_bytes = sum(leaf.nbytes for leaf in jax.tree.leaves(self.state))
        self.step = make_step(model, config, mesh, self.state.params).lower(self.state, self.batch).compile()
        self.temporary = self.step.memory_analysis().temp_size_in_bytes
        self.seconds: list[float] = []

    def run(self) -> None:
        """One step, timed to its end."""
        start = time.perf_counter()
        self.state, metrics = self.step(self.state, self.batch)
        jax.block_until_ready(metrics)
        self.seconds.append(time.perf_counter() - start)


def random_batch(config: Config) -> dict[str, np.ndarray]:
    """A batch with every key that an objective may ask for."""
    rng = np.random.default_rng(0)
    b, i = config.train.batch_size, config.inputs
    words = -(-KEYWORDS // 32)
    sizes = {"query": i.max_query_tokens, "title": i.max_title_tokens, "swap": i.max_query_tokens}
    tokens = {f"{name}_tokens": rng.integers(5, VOCABULARY, (b, n)).astype(np.int32) for name, n in sizes.items()}
    masks = {f"{name}_mask": np.ones((b, n), bool) for name, n in sizes.items()}
    one = np.arange(words) == rng.integers(0, words, (b, 1))
    hidden = {}
    for name, n in (("query", i.max_query_tokens), ("title", i.max_title_tokens)):
        chosen = np.arange(n)[None] == rng.integers(0, n, (b, 1))
        hidden[f"{name}_masked"] = np.where(chosen, 4, tokens[f"{name}_tokens"])
        hidden[f"{name}_labels"] = np.where(chosen, tokens[f"{name}_tokens"], -1)
    patches = i.image_height * i.image_width // config.model.image.patch_size**2
    ranks = np.argsort(rng.random((b, patches)), axis=1)
    hidden["patch_mask"] = ranks < num_masked_patches(i, patches)
    bits = {f"{name}_keywords": np.where(one, 1, 0).astype(np.uint32) for name in ("query", "product", "swap")}
    return {
        **tokens,
        **masks,
        **bits,
        **hidden,
        "image": rng.integers(0, 256, (b, i.image_height, i.image_width, 3)).astype(np.uint8),
        "has_title": np.ones(b, bool),
        "has_image": np.ones(b, bool),
        "query_id": np.arange(b, dtype=np.int32),
        "product_id": np.arange(b, dtype=np.int32),
        "weight": np.ones(b, np.float32),
    }


def main() -> None:
    """Measures and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=7, help="timed steps of each variant")
    parser.add_argument("--out", type=Path, default=RESULTS / "objective-costs.json")
    asked = parser.parse_args()
    batch = random_batch(config_of({}))
    variants = {}
    for name, changes in VARIANTS.items():
        print(f"compiling: {name}", flush=True)
        variants[name] = Variant(name, changes, batch)
        variants[name].run()  # the first step is warmer for none
        variants[name].seconds.clear()
    for _ in range(asked.steps):
        for variant in variants.values():
            variant.run()
    rows = {
        name: {
            "seconds": statistics.median(variant.seconds),
            "quartiles": [round(q, 4) for q in statistics.quantiles(variant.seconds, n=4)],
            "temporary_mib": round(variant.temporary / 2**20, 1),
            "state_mib": round(variant.state_bytes / 2**20, 1),
        }
        for name, variant in variants.items()
    }
    made = {"about": metadata(Catalog.load(""), seed=0), "steps": asked.steps, "rows": rows}
    write_atomically(asked.out, json.dumps(made, indent=1) + "\n")
    base = rows["QIC alone"]["seconds"]
    for name, row in rows.items():
        print(f"{name:45} {row['seconds']:.3f} s  {row['seconds'] / base:5.2f} x  {row['temporary_mib']:7.1f} MiB")


if __name__ == "__main__":
    exit_cleanly(main)
