"""The export formats, apart from their code: the command line knows them before jax is imported."""

from typing import Literal

ExportFormat = Literal["torch", "sentence-transformers", "onnx", "onnx-int8", "stablehlo"]
