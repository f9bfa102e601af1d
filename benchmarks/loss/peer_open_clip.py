"""One process of peers.py that computes open_clip's ClipLoss; needs only torch and NumPy.

    python benchmarks/loss/peer_open_clip.py LOSS_PY RANK PROCESSES PORT BATCH

LOSS_PY is open_clip's `loss.py`. Settings are those that open_clip documents for several processes:
`local_loss` and `gather_with_grad`.
"""

import importlib.util
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the repository root

from benchmarks.loss.peer_process import begin, serve, unit_vectors


def main() -> None:
    """Serves value and gradient of the rows of this process."""
    where, rank, processes, port, batch = sys.argv[1], *map(int, sys.argv[2:])
    answers = begin(rank, processes)
    import torch
    import torch.distributed as dist

    spec = importlib.util.spec_from_file_location("open_clip_loss", Path(where))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if processes > 1:
        dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=processes)
    loss_of = module.ClipLoss(True, True, cache_labels=True, rank=rank, world_size=processes)
    queries, products = (torch.from_numpy(x).requires_grad_() for x in unit_vectors(rank, processes, batch))
    scale = torch.tensor(20.0, requires_grad=True)

    def run() -> dict[str, float]:
        for x in (queries, products, scale):
            x.grad = None
        loss = loss_of(queries, products, scale)
        loss.backward()
        # Each process has the loss of its rows; loss and gradients are means over processes.
        squares = sum(float((x.grad.double() / processes).square().sum()) for x in (queries, products))
        return {"loss": loss.item() / processes, "squares": squares}

    kept: dict[int, int] = {}  # tensors saved for the backward pass, by address

    def keep(x: torch.Tensor) -> torch.Tensor:
        kept[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    def planned() -> int:
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
            loss_of(queries, products, scale)
        own = {x.untyped_storage().data_ptr() for x in (queries, products, scale)}
        return sum(size for address, size in kept.items() if address not in own)

    serve(answers, run, planned)


if __name__ == "__main__":
    main()
