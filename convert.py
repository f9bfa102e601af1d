"""Weights in and out: python convert.py import SOURCE OUT [--from torch], python convert.py export RUN OUT --to FORM"""

import sys

from make_jax.command_line import ExportOptions, parse_conversion
from make_jax.errors import exit_cleanly

DESCRIPTION = """\
import SOURCE OUT               writes the encoders of a Hugging Face model to the folder OUT, which init_from takes
import SOURCE OUT --from torch  makes a run of what export --to torch wrote, or of what PyTorch saved after it
export RUN OUT --to FORM        writes a run's model as torch, sentence-transformers, onnx, onnx-int8 or stablehlo

import --help and export --help list the options; docs/converting.md tells what is exact.
"""


def main() -> None:
    """Parses the options and converts."""
    options = parse_conversion(sys.argv[1:], DESCRIPTION)  # before anything slow: a wrong flag answers at once
    if isinstance(options, ExportOptions):
        from make_jax.runs.convert import export_run

        export_run(options, print)
    elif options.from_ == "torch":
        from make_jax.runs.convert import import_torch

        import_torch(options.source, options.out, print)
    else:
        from make_jax.interop.import_encoders import import_encoders

        import_encoders(options.source, options.out, print)


if __name__ == "__main__":
    exit_cleanly(main)
