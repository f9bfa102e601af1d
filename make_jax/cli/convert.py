"""`make-jax convert`: pretrained encoders in, models out."""

import sys
from collections.abc import Sequence

from make_jax.cli.options import ExportOptions, parse_conversion
from make_jax.errors import InputError
from make_jax.object_stores import is_url


def main(argv: Sequence[str] | None = None) -> None:
    """Parses `argv`, or `sys.argv`, and converts. InputError for wrong options and for what cannot be converted."""
    program = "convert.py" if argv is None else "make-jax convert"
    options = parse_conversion(sys.argv[1:] if argv is None else argv, program)
    if isinstance(options, ExportOptions):
        from make_jax.runs.convert import export_run  # after parsing: help and a wrong option answer at once
        from make_jax.runs.run_store import pull_run

        if is_url(options.out):
            raise InputError(f"OUT: {options.out} is a URL, expected a new local folder")
        export_run(str(pull_run(options.run)), options.out, options.to, print, checkpoint=options.checkpoint)
    elif options.from_ == "torch":
        from make_jax.runs.convert import import_torch

        import_torch(options.source, options.out, print)
    else:
        from make_jax.interop.import_encoders import import_encoders

        import_encoders(options.source, options.out, print)
