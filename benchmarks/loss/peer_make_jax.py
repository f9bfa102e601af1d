"""One process of peers.py that computes our loss.

python benchmarks/loss/peer_make_jax.py IMPLEMENTATION RANK PROCESSES PORT BATCH
"""

import os
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the repository root

from benchmarks.loss.peer_process import begin, serve, unit_vectors


def main() -> None:
    """Serves value and gradient of the rows of this process."""
    implementation, rank, processes, port, batch = sys.argv[1], *map(int, sys.argv[2:])
    answers = begin(rank, processes)
    os.environ["JAX_PLATFORMS"] = "cpu"
    import jax
    import numpy as np

    from benchmarks.loss.inputs import specs, value_and_gradient
    from make_jax.runs.mesh import batch_sharding, make_mesh, replicated_sharding

    if processes > 1:
        jax.distributed.initialize(f"127.0.0.1:{port}", processes, rank)
    mesh = make_mesh() if processes > 1 else None
    queries, products = unit_vectors(rank, processes, batch)
    rows = batch // processes
    numbers = np.arange(rank * rows, (rank + 1) * rows, dtype=np.int32)
    local = {"queries": queries, "products": products, "query_ids": numbers, "product_ids": numbers}
    local |= {"weights": np.ones(rows, np.float32), "log_logit_scale": np.float32(np.log(20.0))}

    def place(name: str, x: Any) -> Any:
        if mesh is None:
            return jax.numpy.asarray(x)
        sharding = replicated_sharding(mesh) if name == "log_logit_scale" else batch_sharding(mesh)
        return jax.make_array_from_process_local_data(sharding, x)

    arrays = {name: place(name, x) for name, x in local.items()}
    program = value_and_gradient(implementation, 256, mesh, margin=0.0).lower(specs(batch, 0, mesh)).compile()

    def run() -> dict[str, float]:
        (loss, _), gradients = jax.block_until_ready(program(arrays))
        squares = 0.0
        for name in ("queries", "products"):
            (own,) = gradients[name].addressable_shards
            squares += float(np.square(np.asarray(own.data, np.float64)).sum())
        return {"loss": float(loss.addressable_data(0)) / processes, "squares": squares}

    serve(answers, run, lambda: program.memory_analysis().temp_size_in_bytes)


if __name__ == "__main__":
    main()
