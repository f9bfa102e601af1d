"""An export of `convert.py export --to torch`, or what PyTorch has trained from one, run by PyTorch."""

from pathlib import Path
from typing import Any

import numpy as np

from make_jax.evaluation.models.exported import Exported
from make_jax.evaluation.models.pytorch import best_device
from make_jax.extras import import_optional
from make_jax.inputs.batch import Batch
from make_jax.interop import torch_checkpoint
from make_jax.interop.bundle import is_bundle


def matches(path: Path) -> bool:
    """Whether the folder is an export; tried after ONNX and StableHLO, which `bundle` also describes."""
    return is_bundle(path)


def load(path: Path) -> Exported:
    """The model, on a GPU if PyTorch has one. Raises InputError as `torch_checkpoint.read`, and without PyTorch."""
    path = Path(path)
    _, model_bundle = torch_checkpoint.read(path)  # verifies that the tensors are complete
    torch = import_optional("torch", "torch")
    import_optional("transformers", "torch").utils.logging.disable_progress_bar()
    from make_jax.interop.torch_model import MakeModel

    device = best_device()
    model: Any = MakeModel.from_pretrained(path, local_files_only=True, use_safetensors=True).eval().to(device)

    def tensors(batch: Batch) -> dict[str, Any]:
        return {name: torch.from_numpy(array).to(device) for name, array in batch.items()}

    def encode_query(batch: Batch) -> np.ndarray:
        with torch.inference_mode():
            return np.asarray(model.query_embedding(**tensors(batch)).cpu())

    def encode_product(batch: Batch) -> tuple[np.ndarray, np.ndarray]:
        with torch.inference_mode():
            product = model.product_embedding(**tensors(batch))
            return np.asarray(product.vectors.cpu()), np.asarray(product.weights.cpu())

    return Exported(path, model_bundle, encode_query, encode_product)
