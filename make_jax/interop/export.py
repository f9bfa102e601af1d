"""Export: writes a model for PyTorch, sentence-transformers, ONNX or XLA from its parameters and its bundle."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from make_jax.files import folder_atomically
from make_jax.interop import onnx_export, sentence_transformers_export, stablehlo_export, torch_checkpoint
from make_jax.interop.bundle import MODEL_CARD, ModelBundle
from make_jax.interop.formats import ExportFormat
from make_jax.interop.tensor_names import Params


class Exporter(NamedTuple):
    """One export format."""

    write: Callable[[Path, Params, ModelBundle], None]  # fills an existing folder, except for the model card
    check_libraries: Callable[[], None] = lambda: None  # raises InputError that names the extra to install


EXPORTERS: dict[ExportFormat, Exporter] = {
    "torch": Exporter(torch_checkpoint.write),
    "sentence-transformers": Exporter(sentence_transformers_export.write),
    "onnx": Exporter(onnx_export.write, partial(onnx_export.check_libraries, int8=False)),
    "onnx-int8": Exporter(partial(onnx_export.write, int8=True), partial(onnx_export.check_libraries, int8=True)),
    "stablehlo": Exporter(stablehlo_export.write, stablehlo_export.check_libraries),
}


def export_model(
    out: Path,
    params: Params,
    bundle: ModelBundle,
    card: str,
    form: ExportFormat,
    add_files: Callable[[Path], None] = lambda folder: None,
) -> None:
    """Writes the model and its model card to the new folder `out`, completely or not at all.

    Args:
        out: must not exist.
        params: parameters of the run; those that only training uses are left out.
        bundle: settings, tokenizer and keywords of the export.
        card: the model card, Markdown.
        form: a key of `EXPORTERS`.
        add_files: writes further files into the folder that it is given.

    Raises:
        InputError: the model has no such form, or a library is missing.
    """
    with folder_atomically(out) as partial_folder:
        EXPORTERS[form].write(partial_folder, params, bundle)
        (partial_folder / MODEL_CARD).write_text(card, encoding="utf-8")
        add_files(partial_folder)
