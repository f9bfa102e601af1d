"""Reads public weights into our names: python convert.py import SOURCE OUT"""

import sys

from make_jax.command_line import parse_conversion
from make_jax.errors import exit_cleanly


def main() -> None:
    """Parses the options and converts."""
    options = parse_conversion(
        sys.argv[1:],
        "import SOURCE OUT: writes the encoders of a Hugging Face model to the folder OUT, which init_from takes.",
    )
    from make_jax.interop.importing import import_encoders  # after parsing: --help and a wrong flag answer at once

    import_encoders(options.source, options.out, print)


if __name__ == "__main__":
    exit_cleanly(main)
