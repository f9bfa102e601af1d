"""`convert.py import`: a public model becomes a folder of encoders in our names."""

from collections.abc import Callable
from pathlib import Path

from make_jax.errors import InputError
from make_jax.interop import saved
from make_jax.interop.encoders import families_of, read_family
from make_jax.interop.source import find, open_source
from make_jax.interop.starting import describe


def import_encoders(source: str, out: str, note: Callable[[str], None]) -> None:
    """Reads every encoder that we know of in `source`, a folder or hub id, and writes them to the folder `out`.

    `note` is told what was read and the settings for a recipe. Raises InputError, with nothing written, as
    `encoders.read_encoder` does, and when `out` exists.
    """
    folder = find(source, "SOURCE")
    if Path(out).exists():
        raise InputError(f"OUT: {out} exists; name a folder that does not")
    opened = open_source(folder)
    encoders = [read_family(opened, family) for family in families_of(opened)]
    saved.save(encoders, Path(out))
    for encoder in encoders:
        count = sum(array.size for array in encoder.arrays.values())
        note(f"{out}: the {encoder.kind} encoder of {encoder.family}, {count / 1e6:.1f}M parameters; in a recipe:")
        note(describe(encoder, out))
        if encoder.kind == "text" and encoder.tokenizer is None:
            note("no tokenizer lies beside the weights; set inputs.tokenizer to the folder of the one they belong to")
