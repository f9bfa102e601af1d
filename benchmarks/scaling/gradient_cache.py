"""Micro-batches against all rows at once: step time and memory; and one real step of a very large batch.

    python benchmarks/scaling/gradient_cache.py [--steps 5] [--out docs/results/gradient-cache.json]
    python benchmarks/scaling/gradient_cache.py --large CATALOG [--out docs/results/gradient-cache-large.json]
    python benchmarks/scaling/gradient_cache.py --equal [--out docs/results/gradient-cache-equal.json]

The first trains configs/fashion.py on random rows on one device, ring form of the loss. Every variant is compiled once;
then the steps of all variants alternate, and medians, minima and quartiles are told. Memory is what the compiler plans
for one step beside its inputs and outputs (temporary buffers).

The second takes one step of configs/fashion.py on rows of that catalog, read and decoded as training reads them, with a
global batch of 32,768 in micro-batches on eight pretended devices, and tells the largest resident memory of the whole
process up to its end: catalog, batch, compiler, step. The step that is timed is the only one.

The third compares gradients of configs/fashion.py with dropout at 512 rows: eight devices, micro-batches of 16 and the
ring against one device, all rows at once and the gather form; for each parameter max|difference| / max|reference|.
"""

import os
import sys

os.environ["JAX_PLATFORMS"] = "cpu"
# Pretended devices wait for each other as long as the slowest encodes its micro-batches.
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "")
    + " --xla_force_host_platform_device_count=8 --xla_cpu_collective_call_terminate_timeout_seconds=7200"
)

import argparse
import dataclasses
import json
import resource
import runpy
import statistics
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the repository root

from benchmarks import RESULTS, ROOT
from benchmarks.study.objective_costs import KEYWORDS, VOCABULARY, random_batch
from make_jax.catalog.build import build
from make_jax.catalog.reader import Catalog
from make_jax.config import Config, check
from make_jax.errors import exit_cleanly
from make_jax.files import write_atomically
from make_jax.inputs.train_pipeline import train_batches
from make_jax.model.make import Make
from make_jax.objectives.total import total_loss
from make_jax.runs.mesh import batch_sharding, make_mesh, replicated_sharding, shard_batch
from make_jax.runs.provenance import metadata
from make_jax.training.gradient_cache import make_encode, make_gradient
from make_jax.training.step import init_params, init_state, make_step
from make_jax.training.vocabularies import make_keywords, make_tokenizer

VARIANTS = [(256, 0), (256, 64), (1024, 0), (1024, 64), (1024, 256), (4096, 64), (4096, 256)]  # rows, micro-batch
LARGE, MICRO = 32768, 256


def config_of(batch: int, micro_batch: int) -> Config:
    """configs/fashion.py with the ring form, `batch` rows a step and `micro_batch` of a device at once."""
    recipe: Config = runpy.run_path(str(ROOT / "configs" / "fashion.py"))["config"]
    train = dataclasses.replace(recipe.train, batch_size=batch, micro_batch_size=micro_batch)
    config = dataclasses.replace(
        recipe, train=train, objectives=dataclasses.replace(recipe.objectives, implementation="ring")
    )
    check(config)
    return config


class Variant:
    """A compiled step with its state."""

    def __init__(self, batch: int, micro_batch: int) -> None:
        config, mesh = config_of(batch, micro_batch), make_mesh(devices=jax.devices()[:1])
        asked = {name: rows for name, rows in random_batch(config).items() if "masked" not in name}
        self.batch = shard_batch(asked, mesh)
        model = Make(config.model, config.inputs, VOCABULARY, KEYWORDS)
        self.state = init_state(model, config, mesh)
        self.step = make_step(model, config, mesh, self.state.params).lower(self.state, self.batch).compile()
        self.temporary = self.step.memory_analysis().temp_size_in_bytes
        self.seconds: list[float] = []

    def run(self) -> None:
        """One step, timed to its end."""
        start = time.perf_counter()
        self.state, metrics = self.step(self.state, self.batch)
        jax.block_until_ready(metrics)
        self.seconds.append(time.perf_counter() - start)


def compare(steps: int) -> dict[str, Any]:
    """Time and temporary memory of every variant, by name."""
    variants = {}
    for rows, micro in VARIANTS:
        name = f"{rows} rows, " + (f"micro-batches of {micro}" if micro else "all at once")
        print(f"compiling: {name}", flush=True)
        variants[name] = Variant(rows, micro)
        variants[name].run()  # the first step is warmer for none
        variants[name].seconds.clear()
    for _ in range(steps):
        for variant in variants.values():
            variant.run()
    return {
        name: {
            "seconds": statistics.median(variant.seconds),
            "least": min(variant.seconds),
            "quartiles": [round(q, 4) for q in statistics.quantiles(variant.seconds, n=4)],
            "temporary_mib": round(variant.temporary / 2**20, 1),
        }
        for name, variant in variants.items()
    }


def take_large_step(catalog: Catalog, rows: int) -> dict[str, Any]:
    """What one step of `rows` rows of a catalog told, how long it took, and the largest memory that it needed."""
    config, mesh = config_of(rows, MICRO), make_mesh()
    built = build(catalog, config.data.cache)
    tokenizer, keywords = make_tokenizer(config, catalog), make_keywords(config, catalog)
    start = time.perf_counter()
    batches = train_batches(
        built,
        tokenizer,
        keywords,
        config.inputs,
        dataclasses.replace(config.data, prefetch=1),
        keyword_swaps=True,
        batch_size=rows,
        seed=config.train.seed,
    )
    batch = next(batches)
    batches.close()
    read = time.perf_counter() - start
    print(f"read {rows} rows in {read:.0f} s; {_peak_gib():.2f} GiB at most until now", flush=True)
    input_bytes = sum(array.nbytes for array in batch.values())
    queries, products = (len(np.unique(batch[f"{name}_id"])) for name in ("query", "product"))
    placed = shard_batch(batch, mesh)
    del batch
    model = Make(config.model, config.inputs, tokenizer.vocab_size, len(keywords))
    state = init_state(model, config, mesh)
    step = make_step(model, config, mesh, state.params).lower(state, placed).compile()
    print(f"compiled; {_peak_gib():.2f} GiB at most until now", flush=True)
    start = time.perf_counter()
    state, metrics = step(state, placed)
    told = {name: float(value) for name, value in jax.device_get(metrics).items()}
    seconds = time.perf_counter() - start
    return {
        "rows": rows,
        "devices": mesh.size,
        "micro_batch": MICRO,
        "distinct_queries": queries,
        "distinct_products": products,
        "keywords": len(keywords),
        "peak_rss_gib": round(_peak_gib(), 2),
        "temporary_mib_each_device": round(step.memory_analysis().temp_size_in_bytes / 2**20, 1),
        "input_mib": round(input_bytes / 2**20, 1),
        "seconds": round(seconds, 1),
        "seconds_reading": round(read, 1),
        "metrics": told,
    }


def compare_gradients(rows: int = 512, micro: int = 16, dropout: float = 0.1) -> dict[str, Any]:
    """How far the gradient by micro-batches is from that of all rows at once, for the worst parameters."""
    config = config_of(rows, micro)
    text, image = (dataclasses.replace(tower, dropout=dropout) for tower in (config.model.query, config.model.image))
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, query=text, title=text, image=image))
    plain = dataclasses.replace(config.objectives, implementation="gather")
    model, mesh, key = Make(config.model, config.inputs, VOCABULARY, KEYWORDS), make_mesh(), jax.random.key(1)
    batch = {name: row for name, row in random_batch(config).items() if "masked" not in name}
    params = jax.device_get(init_params(model, 0))
    encode, groups = make_encode(model, config), rows // micro

    def loss_of(params: Any) -> jax.Array:
        cut = jax.tree.map(lambda x: x.reshape(groups, micro, *x.shape[1:]), batch)
        read = jax.vmap(lambda rows, i: encode(params, rows, key, i))
        vectors, means = read(jax.tree.map(jax.numpy.asarray, cut), jax.numpy.arange(groups))
        vectors = jax.tree.map(lambda x: x.reshape(rows, -1), vectors)
        means = jax.tree.map(lambda x: x.sum(axis=0), means)
        placed = jax.tree.map(jax.numpy.asarray, batch)
        return total_loss(plain, vectors, means, placed, params["log_logit_scale"], params["logit_bias"], None)[0]

    expected_loss, expected = jax.device_get(jax.jit(jax.value_and_grad(loss_of))(params))
    gradient = make_gradient(model, config, mesh, params, jax.tree.map(lambda _: 1.0, params))
    places = replicated_sharding(mesh), batch_sharding(mesh), replicated_sharding(mesh)
    arguments = jax.device_put((params, batch, key), places)
    loss, _, _, found = jax.device_get(jax.jit(lambda p, b, k: gradient(p, b, None, k))(*arguments))
    largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(expected))
    ours, differences = flatten_dict(found, sep="/"), {}
    for name, leaf in flatten_dict(expected, sep="/").items():
        # A softmax does not see what is added to all of its logits: a key's bias has gradient 0, computed as noise.
        scale = largest if name.endswith("key/bias") else np.abs(leaf).max()
        differences[name] = float(np.abs(ours[name] - leaf).max() / max(scale, 1e-30))
    worst = sorted(differences, key=lambda name: -differences[name])[:5]
    return {
        "rows": rows,
        "devices": mesh.size,
        "micro_batch": micro,
        "dropout": dropout,
        "loss": float(loss),
        "loss_all_at_once": float(expected_loss),
        "parameters": len(differences),
        "worst": {name: differences[name] for name in worst},
    }


def _peak_gib() -> float:
    """The largest resident memory of this process so far; Linux counts it in KiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    """Measures and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=5, help="timed steps of each variant")
    parser.add_argument("--large", metavar="CATALOG", help="take one large step on the rows of a catalog instead")
    parser.add_argument("--equal", action="store_true", help="compare gradients instead")
    parser.add_argument("--rows", type=int, default=LARGE, help="of the large step")
    parser.add_argument("--out", type=Path, help="where the JSON file goes")
    asked = parser.parse_args()
    kind = "-large" if asked.large else "-equal" if asked.equal else ""
    out = asked.out or RESULTS / f"gradient-cache{kind}.json"
    catalog = Catalog.load(asked.large or "")
    if asked.large:
        command = f"python benchmarks/scaling/gradient_cache.py --large {Path(asked.large).name} --rows {asked.rows}"
        made = {"about": metadata(catalog, seed=0, command=command), **take_large_step(catalog, asked.rows)}
        print(json.dumps(made, indent=1))
    elif asked.equal:
        made = {"about": metadata(catalog, seed=0), **compare_gradients()}
        print(json.dumps(made, indent=1))
    else:
        rows = compare(asked.steps)
        made = {"about": metadata(catalog, seed=0), "steps": asked.steps, "rows": rows}
        for name, row in rows.items():
            print(f"{name:35} {row['seconds']:7.3f} s  least {row['least']:7.3f} s  {row['temporary_mib']:8.1f} MiB")
    write_atomically(out, json.dumps(made, indent=1) + "\n")


if __name__ == "__main__":
    exit_cleanly(main)
