"""Gradient cache: step time and memory of micro-batches, one very large step, and equality of gradients.

    python benchmarks/scaling/gradient_cache.py [--steps 5] [--out docs/results/gradient-cache.json]
    python benchmarks/scaling/gradient_cache.py --large CATALOG [--out docs/results/gradient-cache-large.json]
    python benchmarks/scaling/gradient_cache.py --equal [--out docs/results/gradient-cache-equal.json]

On two CPU cores the first takes about 3 minutes plus compilation, the second 15 minutes plus compilation and 6 GiB.

1. Trains configs/fashion.py on random rows on one device with the ring implementation. Each variant is compiled once,
   then the steps of all variants alternate. Memory is the compiler's plan of temporary buffers for one step.
2. Takes one step of configs/fashion.py on rows of a catalog (fashion-sparse-full.zip), read as in training: a global
   batch of 32,768 in micro-batches on eight simulated devices. The file has the peak resident memory of the process,
   with catalog, batch and compiler, and the time of that single step.
3. Compares gradients of configs/fashion.py with dropout at 512 rows: eight devices, micro-batches of 16 and the ring
   implementation against one device, all rows at once and gather; max|difference| / max|reference| per parameter.
"""

import os
import sys

os.environ["JAX_PLATFORMS"] = "cpu"
# Simulated devices wait for each other while the slowest encodes its micro-batches.
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "")
    + " --xla_force_host_platform_device_count=8 --xla_cpu_collective_call_terminate_timeout_seconds=7200"
)

import argparse
import dataclasses
import json
import resource
import runpy
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the repository root

from benchmarks import RESULTS, ROOT
from benchmarks.common.steps import KEYWORDS, VOCAB_SIZE, CompiledStep, random_batch, run_alternating
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
    """Returns configs/fashion.py with the ring implementation, `batch` rows per step and micro-batches per device."""
    recipe: Config = runpy.run_path(str(ROOT / "configs" / "fashion.py"))["config"]
    train = dataclasses.replace(recipe.train, batch_size=batch, micro_batch_size=micro_batch)
    config = dataclasses.replace(
        recipe, train=train, objectives=dataclasses.replace(recipe.objectives, implementation="ring")
    )
    check(config)
    return config


def compare_steps(count: int) -> dict[str, Any]:
    """Returns time and temporary memory of `count` steps of every variant, by name."""
    variants, mesh = {}, make_mesh(devices=jax.devices()[:1])
    for rows, micro in VARIANTS:
        name = f"{rows} rows, " + (f"micro-batches of {micro}" if micro else "all at once")
        print(f"compiling: {name}", flush=True)
        config = config_of(rows, micro)
        batch = {key: value for key, value in random_batch(config).items() if "masked" not in key}
        variants[name] = CompiledStep(config, batch, mesh)
    run_alternating(variants, count)
    return {name: variant.summary() for name, variant in variants.items()}


def take_large_step(catalog: Catalog, rows: int) -> dict[str, Any]:
    """Returns metrics, time and peak memory of one step of `rows` rows of a catalog."""
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
    read_seconds = time.perf_counter() - start
    print(f"read {rows} rows in {read_seconds:.0f} s; {_peak_gib():.2f} GiB peak so far", flush=True)
    input_bytes = sum(array.nbytes for array in batch.values())
    queries, products = (len(np.unique(batch[f"{name}_id"])) for name in ("query", "product"))
    placed = shard_batch(batch, mesh)
    del batch
    model = Make(config.model, config.inputs, tokenizer.vocab_size, len(keywords))
    state = init_state(model, config, mesh)
    step = make_step(model, config, mesh, state.params).lower(state, placed).compile()
    print(f"compiled; {_peak_gib():.2f} GiB peak so far", flush=True)
    start = time.perf_counter()
    state, metrics = step(state, placed)
    step_metrics = {name: float(value) for name, value in jax.device_get(metrics).items()}
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
        "seconds_reading": round(read_seconds, 1),
        "metrics": step_metrics,
    }


def compare_gradients(rows: int = 512, micro: int = 16, dropout: float = 0.1) -> dict[str, Any]:
    """Returns the largest relative differences between the gradients by micro-batches and of all rows at once."""
    config = config_of(rows, micro)
    text, image = (dataclasses.replace(tower, dropout=dropout) for tower in (config.model.query, config.model.image))
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, query=text, title=text, image=image))
    plain = dataclasses.replace(config.objectives, implementation="gather")
    model, mesh, key = Make(config.model, config.inputs, VOCAB_SIZE, KEYWORDS), make_mesh(), jax.random.key(1)
    batch = {name: row for name, row in random_batch(config).items() if "masked" not in name}
    params = jax.device_get(init_params(model, 0))
    encode, groups = make_encode(model, config), rows // micro

    def loss_of(params: Any) -> jax.Array:
        cut = jax.tree.map(lambda x: x.reshape(groups, micro, *x.shape[1:]), batch)
        encode_groups = jax.vmap(lambda rows, i: encode(params, rows, key, i))
        vectors, means = encode_groups(jax.tree.map(jax.numpy.asarray, cut), jax.numpy.arange(groups))
        vectors = jax.tree.map(lambda x: x.reshape(rows, -1), vectors)
        means = jax.tree.map(lambda x: x.sum(axis=0), means)
        placed = jax.tree.map(jax.numpy.asarray, batch)
        return total_loss(plain, vectors, means, placed, params["log_logit_scale"], params["logit_bias"], None)[0]

    expected_loss, expected = jax.device_get(jax.jit(jax.value_and_grad(loss_of))(params))
    gradient = make_gradient(model, config, mesh, params, jax.tree.map(lambda _: 1.0, params))
    places = replicated_sharding(mesh), batch_sharding(mesh), replicated_sharding(mesh)
    arguments = jax.device_put((params, batch, key), places)
    loss, _, found = jax.device_get(jax.jit(gradient)(*arguments))
    largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(expected))
    ours, differences = flatten_dict(found, sep="/"), {}
    for name, leaf in flatten_dict(expected, sep="/").items():
        # A softmax is invariant to a constant added to all logits: the gradient of a key bias is 0 up to rounding.
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
    """Returns the peak resident memory of this process; Linux reports KiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    """Runs the selected measurement and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=5, help="timed steps of each variant")
    parser.add_argument("--large", metavar="CATALOG", help="take one large step on the rows of a catalog instead")
    parser.add_argument("--equal", action="store_true", help="compare gradients instead")
    parser.add_argument("--rows", type=int, default=LARGE, help="of the large step")
    parser.add_argument("--out", type=Path, help="where the JSON file goes")
    args = parser.parse_args()
    kind = "-large" if args.large else "-equal" if args.equal else ""
    out = args.out or RESULTS / f"gradient-cache{kind}.json"
    catalog = Catalog.load(args.large or "")
    if args.large:
        command = f"python benchmarks/scaling/gradient_cache.py --large {Path(args.large).name} --rows {args.rows}"
        result = {"about": metadata(catalog, seed=0, command=command), **take_large_step(catalog, args.rows)}
        print(json.dumps(result, indent=1))
    elif args.equal:
        result = {"about": metadata(catalog, seed=0), **compare_gradients()}
        print(json.dumps(result, indent=1))
    else:
        rows = compare_steps(args.steps)
        result = {"about": metadata(catalog, seed=0), "steps": args.steps, "rows": rows}
        for name, row in rows.items():
            print(f"{name:35} {row['seconds']:7.3f} s  least {row['least']:7.3f} s  {row['temporary_mib']:8.1f} MiB")
    write_atomically(out, json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    exit_cleanly(main)
