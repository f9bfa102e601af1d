"""The ONNX export: query.onnx and product.onnx, traced from the PyTorch model, in float32 or with int8 weights.

    query.onnx      query_tokens [batch, length] int32, query_mask [batch, length] bool, query_keywords [batch, n] bool
                    -> vectors [batch, E + n]
    product.onnx    title_tokens [batch, length] int32, title_mask [batch, length] bool, image [batch, H, W, 3] uint8,
                    has_title [batch] bool, has_image [batch] bool -> vectors [batch, E + n], weights [batch, 2]

A graph has no input that the model does not use: no query_keywords without keyword evidence, no image in a title-only
model, no title in an image-only model. Writing needs torch, onnx and onnxscript; running needs none of them.
"""

import contextlib
import io
import logging
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from make_jax.errors import InputError
from make_jax.extras import import_optional
from make_jax.files import removed_on_exit
from make_jax.inputs.batch import PRODUCT_INPUTS
from make_jax.interop import torch_checkpoint
from make_jax.interop.bundle import ModelBundle
from make_jax.interop.model_folder import WEIGHTS
from make_jax.interop.tensor_names import Params

OPSET = 18
QUERY, PRODUCT = "query.onnx", "product.onnx"
_MAX_BYTES = 2_000_000_000  # of a protocol buffer file


def check_libraries(int8: bool) -> None:
    """Raises InputError that names the extra to install if a library that `write` needs is missing."""
    for name in ("torch", "transformers", "onnx", "onnxscript", *(["onnxruntime"] if int8 else [])):
        import_optional(name, "onnx")


def write(folder: Path, params: Params, bundle: ModelBundle, int8: bool = False) -> None:
    """Writes both graphs and the bundle's files into an existing folder.

    With `int8`, matrices are int8 with one scale per column, and activations are quantized at run time (dynamic
    quantization of onnxruntime).
    """
    with removed_on_exit(tempfile.mkdtemp) as torch_folder:
        torch_checkpoint.write(torch_folder, params, bundle)
        if (torch_folder / WEIGHTS).stat().st_size > _MAX_BYTES:
            raise InputError(
                f"--to onnx: the parameters take more than {_MAX_BYTES:,} bytes, expected what one file holds"
            )
        with _silence_libraries():
            for graph in _graphs(torch_folder, bundle):
                _trace(graph, folder / graph.file)
                if int8:
                    _quantize(folder / graph.file, torch_folder / graph.file)
    bundle.write(folder)


class _Graph(NamedTuple):
    """A graph to trace."""

    file: str
    module: Any  # torch.nn.Module
    inputs: dict[str, Any]  # example tensors by name
    outputs: list[str]


def _graphs(folder: Path, bundle: ModelBundle) -> Iterator[_Graph]:
    """The query graph and the product graph of a PyTorch export."""
    import torch

    from make_jax.interop.torch_model import MakeModel, MakeProcessor

    import_optional("transformers", "onnx").utils.logging.disable_progress_bar()
    model: Any = MakeModel.from_pretrained(folder, attn_implementation="eager").eval()
    processor = MakeProcessor(bundle)
    queries, products = processor.queries(["a", "b"]), processor.products(["a", "b"], [None, None])
    if not bundle.keyword_dims:
        del queries["query_keywords"]

    class Query(torch.nn.Module):
        """`MakeModel.query_embedding` as a module."""

        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, query_tokens: Any, query_mask: Any, query_keywords: Any = None) -> Any:
            return self.model.query_embedding(query_tokens, query_mask, query_keywords)

    class Product(torch.nn.Module):
        """`MakeModel.product_embedding` as a module."""

        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, title_tokens: Any, title_mask: Any, image: Any, has_title: Any, has_image: Any) -> Any:
            output = self.model.product_embedding(title_tokens, title_mask, image, has_title, has_image)
            return output.vectors, output.weights

    yield _Graph(QUERY, Query(), queries, ["vectors"])
    yield _Graph(PRODUCT, Product(), {name: products[name] for name in PRODUCT_INPUTS}, ["vectors", "weights"])


def _quantize(path: Path, temporary: Path) -> None:
    """Replaces a graph by one with int8 matrices; `temporary` is a path for an intermediate file."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(path, temporary, per_channel=True, weight_type=QuantType.QInt8)
    path.write_bytes(temporary.read_bytes())


def _trace(graph: _Graph, path: Path) -> None:
    import torch

    batch, length = torch.export.Dim("batch"), torch.export.Dim("length")
    dynamic_shapes = {
        name: {0: batch, 1: length} if name.endswith(("_tokens", "_mask")) else {0: batch} for name in graph.inputs
    }
    program = torch.onnx.export(
        graph.module,
        args=tuple(graph.inputs.values()),
        input_names=list(graph.inputs),
        output_names=graph.outputs,
        dynamic_shapes=dynamic_shapes,
        opset_version=OPSET,
        dynamo=True,
        verbose=False,
    )
    model = program.model_proto
    for node in model.graph.node:
        del node.metadata_props[:]  # source files and lines of this machine
    path.write_bytes(model.SerializeToString(deterministic=True))


@contextlib.contextmanager
def _silence_libraries() -> Iterator[None]:
    """Suppresses log messages, warnings and prints of the libraries."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
