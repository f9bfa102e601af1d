"""An export for PyTorch, written and read back without PyTorch: parameters go out and come back bit by bit."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import save_file

from make_jax.errors import InputError
from make_jax.interop import served as beside
from make_jax.interop.encoders import Params, flatten, listed, nest
from make_jax.interop.names import convert
from make_jax.interop.served import Served
from make_jax.interop.source import WEIGHTS, open_source
from make_jax.interop.torch_names import outward, rows
from make_jax.model.keyword_evidence import EPS, LENGTH, RIVAL
from make_jax.model.make import Make

CONSTANTS = {"eps": EPS, "rival": RIVAL, "length": LENGTH}
_TRAINING_ONLY = ("matching", "query_head", "title_head", "patch_head")  # what `served.searching` leaves out


def make_of(served: Served) -> Make:
    """The module whose parameters an export holds."""
    keywords = served.keywords
    vocabulary = served.tokenizer.vocabulary_size
    return Make(served.config.model, served.config.inputs, vocabulary, len(keywords), keywords.rivals)


def search_params(params: Params) -> Params:
    """The parameters that `make_of` has: those of a run without what only training uses."""
    return {name: tree for name, tree in params.items() if name not in _TRAINING_ONLY}


def write(folder: Path, params: Params, served: Served) -> None:
    """Writes model.safetensors and what belongs to it, but the card, into an existing folder."""
    leaves = {path: np.asarray(leaf, np.float32) for path, leaf in flatten(search_params(params)).items()}
    table = rows(served.config.model, len(served.keywords))
    assert {row.ours for row in table} == leaves.keys()
    save_file(outward(table, leaves.__getitem__), folder / WEIGHTS, metadata={"format": "pt"})
    (folder / WEIGHTS).chmod(0o644)  # the library writes for its own user alone
    served.write(folder)


def read(folder: Path) -> tuple[Params, Served]:
    """The parameters, as NumPy arrays, and what belongs to them.

    InputError: something is absent, damaged, a pickle, or asks for code; tensors too few, too many or of another shape
    (all listed); other constants than this version of make_jax computes with.
    """
    served = beside.read(folder)
    if dict(served.evidence) != CONSTANTS:
        raise InputError(f"{folder / beside.CONFIG}: evidence is {served.evidence}, this make_jax has {CONSTANTS}")
    source = open_source(folder)
    table = rows(served.config.model, len(served.keywords))
    shapes = {name: source.shape(name) for name in source.tensors}
    known = {row.theirs[0] for row in table}
    found = convert(table, shapes_of(served), shapes, source.read)
    problems = [*found.problems, *(f"{name} {list(shapes[name])} is unknown" for name in shapes if name not in known)]
    if problems:
        raise InputError(f"{folder}: the tensors are not those of its {beside.CONFIG}: {listed(problems)}")
    return nest(found.arrays), served


def shapes_of(served: Served) -> dict[str, tuple[int, ...]]:
    """Shapes of the parameters by path; nothing is computed."""
    one = served.queries([""]) | served.products([""], [None])
    batch = {name: jnp.zeros(array.shape, array.dtype) for name, array in one.items() if name != "query_keywords"}
    tree = jax.eval_shape(make_of(served).init, jax.random.key(0), batch)
    return {path: leaf.shape for path, leaf in flatten(tree["params"]).items()}
