"""Step time and memory of each objective, on the shapes of configs/fashion.py.

    python benchmarks/study/objective_costs.py [--steps 7] [--out docs/results/objective-costs.json]

Two CPU cores, about a minute plus compilation. Each variant is compiled once, then the steps of all
variants alternate; the file has medians and quartiles. Memory is the compiler's plan of temporary buffers, without
inputs and outputs, and the state that is kept between steps. Batches are random, which changes neither time nor memory.
"""

import argparse
import dataclasses
import json
import runpy
import sys
from pathlib import Path
from typing import Any, Literal

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the repository root

from benchmarks import RESULTS, ROOT
from benchmarks.common.steps import CompiledStep, random_batch, run_alternating
from make_jax.catalog.reader import Catalog
from make_jax.config import Config, MatchingConfig, check
from make_jax.errors import exit_cleanly
from make_jax.files import write_atomically
from make_jax.runs.mesh import make_mesh
from make_jax.runs.provenance import metadata

QIC_ONLY = {"title_contrast": 0.0, "image_contrast": 0.0, "keyword_masking": False, "keyword_swaps": False}
QIC_ONLY |= dict.fromkeys(("key", "qim", "qim2", "mlm", "mpm"), 0.0)
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


def config_of(changes: dict[str, Any], mpm: Literal["contrastive", "regression"] = "contrastive") -> Config:
    """Returns configs/fashion.py with the objectives of a variant; `mpm` is its form of MPM."""
    recipe: Config = runpy.run_path(str(ROOT / "configs" / "fashion.py"))["config"]
    objectives = dataclasses.replace(recipe.objectives, **(QIC_ONLY | changes))
    matching = MatchingConfig(layers=1 if objectives.qim or objectives.qim2 else 0, width=128, heads=2, mlp_width=512)
    model = dataclasses.replace(
        recipe.model,
        matching=matching,
        enrichment=objectives.key > 0,
        mlm=objectives.mlm > 0,
        mpm=mpm if objectives.mpm else "none",
    )
    config = dataclasses.replace(recipe, objectives=objectives, model=model)
    check(config)
    return config


def main() -> None:
    """Measures all variants and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=7, help="timed steps of each variant")
    parser.add_argument("--out", type=Path, default=RESULTS / "objective-costs.json")
    args = parser.parse_args()
    batch, mesh = random_batch(config_of({})), make_mesh()
    variants = {}
    for name, changes in VARIANTS.items():
        print(f"compiling: {name}", flush=True)
        config = config_of(changes, "regression" if "regression" in name else "contrastive")
        swaps = config.objectives.keyword_swaps
        inputs = {key: rows for key, rows in batch.items() if swaps or not key.startswith("swap")}
        variants[name] = CompiledStep(config, inputs, mesh)
    run_alternating(variants, args.steps)
    rows = {
        name: variant.summary() | {"state_mib": round(variant.state_bytes / 2**20, 1)}
        for name, variant in variants.items()
    }
    result = {"about": metadata(Catalog.load(""), seed=0), "steps": args.steps, "rows": rows}
    write_atomically(args.out, json.dumps(result, indent=1) + "\n")
    base = rows["QIC alone"]["seconds"]
    for name, row in rows.items():
        print(f"{name:45} {row['seconds']:.3f} s  {row['seconds'] / base:5.2f} x  {row['temporary_mib']:7.1f} MiB")


if __name__ == "__main__":
    exit_cleanly(main)
