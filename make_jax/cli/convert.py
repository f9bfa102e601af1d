"""`make-jax convert`: pretrained encoders in, models out."""

import sys
from collections.abc import Sequence

from make_jax.cli.options import ExportOptions, parse_conversion
from make_jax.output_urls import output_folder


def main(argv: Sequence[str] | None = None) -> None:
    """Parses `argv`, or `sys.argv`, and converts. InputError for wrong options and for what cannot be converted."""
    program = "convert.py" if argv is None else "make-jax convert"
    options = parse_conversion(sys.argv[1:] if argv is None else argv, program)
    if isinstance(options, ExportOptions):
        from make_jax.runs.convert import export_run  # after parsing: help and a wrong option answer at once
        from make_jax.runs.run_store import pull_run

        with output_folder(options.out, last="README.md") as out:
            export_run(str(pull_run(options.run)), str(out), options.to, print, checkpoint=options.checkpoint)
    elif options.from_ == "torch":
        from make_jax.runs.convert import import_torch

        import_torch(options.source, options.out, print)
    else:
        from make_jax.interop.import_encoders import import_encoders

        import_encoders(options.source, options.out, print)
