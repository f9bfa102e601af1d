"""What `convert.py export --to torch` wrote, or PyTorch saved after it, run by PyTorch."""

from pathlib import Path
from typing import Any

import numpy as np

from make_jax.evaluation.models.exported import Exported
from make_jax.evaluation.models.torch_device import best_device
from make_jax.inputs.batch import Batch
from make_jax.interop import torch_checkpoint
from make_jax.interop.bundle import is_bundle
from make_jax.interop.optional_imports import import_optional


def matches(path: Path) -> bool:
    """Whether the folder is an export; asked after the other forms, whose files lie in a folder with a name."""
    return is_bundle(path)


def load(path: Path) -> Exported:
    """The model, on a GPU where PyTorch has one. InputError as `torch_checkpoint.read`, and without PyTorch."""
    path = Path(path)
    _, beside = torch_checkpoint.read(path)  # every tensor is there, and nothing else
    torch = import_optional("torch", "torch")
    import_optional("transformers", "torch").utils.logging.disable_progress_bar()
    from make_jax.interop.torch_model import MakeModel

    device = best_device()
    model: Any = MakeModel.from_pretrained(path, local_files_only=True, use_safetensors=True).eval().to(device)

    def tensors(batch: Batch) -> dict[str, Any]:
        return {name: torch.from_numpy(array).to(device) for name, array in batch.items()}

    def query(batch: Batch) -> np.ndarray:
        with torch.inference_mode():
            return np.asarray(model.query_embedding(**tensors(batch)).cpu())

    def product(batch: Batch) -> tuple[np.ndarray, np.ndarray]:
        with torch.inference_mode():
            made = model.product_embedding(**tensors(batch))
            return np.asarray(made.vectors.cpu()), np.asarray(made.weights.cpu())

    return Exported(path, beside, query, product)
