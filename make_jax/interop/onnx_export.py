"""An export for ONNX runtimes: query.onnx and product.onnx, traced from the PyTorch model, in float32 or with int8.

    query.onnx      query_tokens [batch, length] int32, query_mask [batch, length] bool, query_keywords [batch, n] bool
                    -> vectors [batch, E + n]
    product.onnx    title_tokens [batch, length] int32, title_mask [batch, length] bool, image [batch, H, W, 3] uint8,
                    has_title [batch] bool, has_image [batch] bool -> vectors [batch, E + n], weights [batch, 2]

An input that a model does not read is none of the graph's: query_keywords without keyword evidence, pictures where
titles alone are read, and titles where pictures alone are. Needs torch, onnx and onnxscript to write, none of them to
run.
"""

import contextlib
import io
import logging
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from make_jax.errors import InputError
from make_jax.interop import torch_checkpoint
from make_jax.interop.bundle import ModelBundle
from make_jax.interop.model_folder import WEIGHTS
from make_jax.interop.optional_imports import import_optional
from make_jax.interop.tensor_names import Params

OPSET = 18
QUERY, PRODUCT = "query.onnx", "product.onnx"
_LARGEST = 2_000_000_000  # bytes of a file in the format of protocol buffers


def check_libraries(int8: bool) -> None:
    """InputError that says what to install where something is missing that `write` needs."""
    for name in ("torch", "transformers", "onnx", "onnxscript", *(["onnxruntime"] if int8 else [])):
        import_optional(name, "onnx")


def write(folder: Path, params: Params, served: ModelBundle, int8: bool = False) -> None:
    """Writes both graphs and what belongs to them, but the card, into an existing folder.

    With `int8` matrices of the graphs are int8, each column with a scale of its own, and activations are quantised as
    they come (dynamic quantisation of onnxruntime).
    """
    with tempfile.TemporaryDirectory() as between:
        torch_checkpoint.write(Path(between), params, served)
        if (Path(between) / WEIGHTS).stat().st_size > _LARGEST:
            raise InputError(
                f"--to onnx: the parameters take more than {_LARGEST:,} bytes, expected what one file holds"
            )
        with _quiet():
            for name, module, inputs, outputs in _graphs(Path(between), served):
                _trace(module, inputs, outputs, folder / name)
                if int8:
                    _quantise(folder / name, Path(between) / name)
    served.write(folder)


def _graphs(folder: Path, served: ModelBundle) -> Iterator[tuple[str, Any, dict[str, Any], list[str]]]:
    """File, module, example inputs and names of outputs of each graph."""
    import torch

    from make_jax.interop.torch_inputs import MakeProcessor
    from make_jax.interop.torch_make import MakeModel

    import_optional("transformers", "onnx").utils.logging.disable_progress_bar()
    model: Any = MakeModel.from_pretrained(folder, attn_implementation="eager").eval()
    processor = MakeProcessor(served)
    queries, products = processor.queries(["a", "b"]), processor.products(["a", "b"], [None, None])
    if not served.dimensions:
        del queries["query_keywords"]
    products = {name: products[name] for name in ("title_tokens", "title_mask", "image", "has_title", "has_image")}

    class Query(torch.nn.Module):
        """`MakeModel.encode_query` as a module."""

        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, query_tokens: Any, query_mask: Any, query_keywords: Any = None) -> Any:
            return self.model.encode_query(query_tokens, query_mask, query_keywords)

    class Product(torch.nn.Module):
        """`MakeModel.encode_product` as a module."""

        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, title_tokens: Any, title_mask: Any, image: Any, has_title: Any, has_image: Any) -> Any:
            made = self.model.encode_product(title_tokens, title_mask, image, has_title, has_image)
            return made.vectors, made.weights

    yield QUERY, Query(), queries, ["vectors"]
    yield PRODUCT, Product(), products, ["vectors", "weights"]


def _quantise(path: Path, between: Path) -> None:
    """Replaces a graph by one with int8 matrices; `between` is a place for a file that is not kept."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(path, between, per_channel=True, weight_type=QuantType.QInt8)
    path.write_bytes(between.read_bytes())


def _trace(module: Any, inputs: dict[str, Any], outputs: list[str], path: Path) -> None:
    import torch

    batch, length = torch.export.Dim("batch"), torch.export.Dim("length")
    sizes = {name: {0: batch, 1: length} if name.endswith(("_tokens", "_mask")) else {0: batch} for name in inputs}
    made = torch.onnx.export(
        module,
        args=tuple(inputs.values()),
        input_names=list(inputs),
        output_names=outputs,
        dynamic_shapes=sizes,
        opset_version=OPSET,
        dynamo=True,
        verbose=False,
    )
    graph = made.model_proto
    for node in graph.graph.node:
        del node.metadata_props[:]  # where in whose files each was traced
    path.write_bytes(graph.SerializeToString(deterministic=True))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Nothing of what the libraries tell of their own working."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
