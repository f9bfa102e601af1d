"""MAKE in PyTorch, for search and fine-tuning: the twin of `make_jax.model`, file by file. Imports no jax.

A class or function has the name and file of its JAX original, where the formulas and shapes are documented. Text and
image encoders are transformers' `BertModel` and `ViTModel`. The matching encoder and the heads of masked modeling are
left out, because search uses neither. `processor.py` makes the input tensors.
"""

from make_jax.interop.torch_model.make import MakeConfig, MakeModel
from make_jax.interop.torch_model.processor import MakeProcessor

__all__ = ["MakeConfig", "MakeModel", "MakeProcessor"]
