"""Measurements behind `docs/results/`, in folders by subject. Run a file by its path from the repository root.

- `loss/`: time and memory of the contrastive loss, and open_clip's beside it.
- `scaling/`: training steps over devices and processes, gradient cache, compiled pod programs, cost model, tagging.
- `study/`: ablations of MAKE, batch sizes, costs of objectives, modal weights.
- `baselines/`: models that MAKE is compared with, and public text weights.
- `robustness/`: crash recovery.
- `search/`: exact search of millions of vectors, with FAISS for comparison; exported models.
- `common/`: what several of them use.
"""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "docs" / "results"
