"""`convert.py import`: a public model becomes a folder of encoders in our names."""

from collections.abc import Callable
from pathlib import Path

from make_jax.errors import InputError
from make_jax.interop import encoder_files
from make_jax.interop.import_encoders import families_of, read_family
from make_jax.interop.init_encoders import recipe_lines
from make_jax.interop.model_folder import open_model_folder, resolve_model_folder


def import_encoders(source: str, out: str, note: Callable[[str], None]) -> None:
    """Reads every encoder that we know of in `source`, a folder or hub id, and writes them to the folder `out`.

    `note` is told what was read and the settings for a recipe. Raises InputError, with nothing written, as
    `encoders.read_encoder` does, and when `out` exists.
    """
    folder = resolve_model_folder(source, "SOURCE")
    if Path(out).exists():
        raise InputError(f"OUT: {out} exists; name a folder that does not")
    opened = open_model_folder(folder)
    encoders = [read_family(opened, family) for family in families_of(opened)]
    encoder_files.save_encoders(encoders, Path(out))
    for encoder in encoders:
        count = sum(array.size for array in encoder.arrays.values())
        note(f"{out}: the {encoder.kind} encoder of {encoder.family}, {count / 1e6:.1f}M parameters; in a recipe:")
        note(recipe_lines(encoder, out))
        if encoder.kind == "text" and encoder.tokenizer is None:
            note("no tokenizer lies beside the weights; set inputs.tokenizer to the folder of the one they belong to")
