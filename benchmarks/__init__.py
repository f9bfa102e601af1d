"""Measurements behind `docs/results/`, in folders by subject. Run a file by its path from the repository root.

- `loss/`: time and memory of the contrastive loss, and of open_clip's in comparison.
- `scaling/`: training steps over devices and processes, gradient cache, compiled pod programs, cost model, tagging.
- `inputs/`: training batches from large JPEGs, with torch and torchvision for comparison.
- `study/`: ablations of MAKE, batch sizes, costs of objectives, modal weights.
- `baselines/`: models that MAKE is compared with, and pretrained text encoders.
- `robustness/`: crash recovery.
- `search/`: the search server over HTTP and its engines; exact search of millions of vectors, with FAISS; exports.
- `common/`: child processes and compiled steps that several of them use.
"""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "docs" / "results"
