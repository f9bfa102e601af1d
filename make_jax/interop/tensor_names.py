"""A family's table: which of its tensors become which of our parameters, and how.

A `ParamMapping` names one parameter of ours. In its names "{}" is the number of the layer. PyTorch keeps a matrix as
[out, in] and a patch filter as [out, channel, row, column]; ours are [in, out], with the patch in the order of
`model.image.patches`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np

from make_jax.interop.model_folder import JsonObject

EncoderKind = Literal["text", "image"]
Params = Any  # a nested dict of arrays, as Flax keeps parameters
Transform = Callable[..., np.ndarray]
OPENAI_MEAN, OPENAI_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HALF = (0.5, 0.5, 0.5)
_ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "quick_gelu": "quick_gelu",
}


class ParamMapping(NamedTuple):
    """One parameter of ours."""

    ours: str  # its path
    theirs: tuple[str, ...]  # the tensors that it is made of; none: it is 0, because the family has no such thing
    rule: Transform  # of those tensors
    ranks: tuple[int, ...]  # dimensions of those tensors


@dataclass(frozen=True)
class EncoderFamily:
    """How the encoders of a family are read."""

    name: str
    kind: EncoderKind
    model_types: dict[str, str]  # config.json's model_type -> the key of the encoder's part in it; "" is all of it
    prefixes: tuple[str, ...]  # what may stand before the names below; the one that fits most is taken
    embeddings: tuple[ParamMapping, ...]
    layer: tuple[ParamMapping, ...]
    settings: Callable[[JsonObject], dict[str, Any]]  # what config.json says of TextConfig or ImageConfig
    size: Callable[[JsonObject], int]  # text: word pieces; image: pixels a side
    left_out: tuple[str, ...] = ()  # beginnings of names that are known and not taken
    offset: Callable[[JsonObject], int] = field(
        default=lambda config: 0
    )  # first row of the position table that is used
    mean: tuple[float, float, float] = HALF  # where there is no preprocessor_config.json
    std: tuple[float, float, float] = HALF
    resample: Literal["bicubic", "bilinear"] = "bicubic"  # of positions to another image size
    pooling: Literal["mean", "cls"] = "cls"  # how its makers use the states, where nothing else is written

    def rows(self, layers: int) -> list[ParamMapping]:
        """The table with every layer written out."""
        numbered = [
            ParamMapping(row.ours.format(i), tuple(name.format(i) for name in row.theirs), row.rule, row.ranks)
            for i in range(layers)
            for row in self.layer
        ]
        return [*self.embeddings, *numbered]


def dense(theirs: str, ours: str, scale: str = "") -> tuple[ParamMapping, ParamMapping]:
    """A matrix and its bias; `scale` names a factor of each output, which is multiplied into both."""
    if not scale:
        return (
            ParamMapping(f"{ours}/kernel", (f"{theirs}.weight",), np.transpose, (2,)),
            ParamMapping(f"{ours}/bias", (f"{theirs}.bias",), same, (1,)),
        )
    return (
        ParamMapping(f"{ours}/kernel", (f"{theirs}.weight", scale), lambda weight, factor: weight.T * factor, (2, 1)),
        ParamMapping(f"{ours}/bias", (f"{theirs}.bias", scale), np.multiply, (1, 1)),
    )


def norm(theirs: str, ours: str) -> tuple[ParamMapping, ParamMapping]:
    """A layer norm."""
    return (
        ParamMapping(f"{ours}/scale", (f"{theirs}.weight",), same, (1,)),
        ParamMapping(f"{ours}/bias", (f"{theirs}.bias",), same, (1,)),
    )


def filters(theirs: str) -> tuple[ParamMapping, ParamMapping]:
    """The patch embedding: a convolution whose stride is its size."""
    return (
        ParamMapping("patch/kernel", (f"{theirs}.weight",), flat_filters, (4,)),
        ParamMapping("patch/bias", (f"{theirs}.bias",), same, (1,)),
    )


def same(tensor: np.ndarray) -> np.ndarray:
    """The tensor as it is."""
    return tensor


def first_row(table: np.ndarray) -> np.ndarray:
    """Of types of token: a text alone is of the first, whatever a pair would be."""
    return table[:1]


def only(tables: np.ndarray) -> np.ndarray:
    """The table in a batch of one."""
    return tables[0]


def flat_filters(tensor: np.ndarray) -> np.ndarray:
    """[D, channel, row, column] -> [row * column * channel, D]."""
    return tensor.transpose(2, 3, 1, 0).reshape(-1, tensor.shape[0])


def square_filters(kernel: np.ndarray) -> np.ndarray:
    """What `flat_filters` gives `kernel` of."""
    side = round((len(kernel) / 3) ** 0.5)
    return kernel.reshape(side, side, 3, -1).transpose(3, 2, 0, 1)


# What undoes a rule, bit by bit, where nothing was left out: the way out.
INVERSE: dict[Transform, Transform] = {
    same: same,
    first_row: same,
    only: lambda table: table[None],
    np.transpose: np.transpose,
    flat_filters: square_filters,
}


def activation(config: JsonObject, default: str, allowed: tuple[str, ...]) -> str:
    """What we call the family's hidden_act. InputError when our encoders have no such thing."""
    found = config.text("hidden_act", default)
    ours = _ACTIVATIONS.get(found)
    if ours not in allowed:
        known = [name for name, value in _ACTIVATIONS.items() if value in allowed]
        config.expect("hidden_act", known[0])
    assert ours is not None
    return ours


class Converted(NamedTuple):
    """What became of a family's tensors."""

    arrays: dict[str, np.ndarray]  # our paths
    problems: list[str]  # all tensors that are missing, of an unexpected shape, or unknown


def convert(
    rows: list[ParamMapping],
    expected: Mapping[str, tuple[int, ...]],
    shapes: Mapping[str, tuple[int, ...]],
    read: Callable[[str], np.ndarray],
) -> Converted:
    """The parameters that `rows` make of tensors, beside every problem on the way.

    Args:
        rows: the table; every parameter of `expected` is in it.
        expected: shapes of our parameters.
        shapes: those of the tensors that are there.
        read: gives a tensor by its name.
    """
    arrays: dict[str, np.ndarray] = {}
    problems: list[str] = []
    for row in rows:
        missing = [name for name in row.theirs if name not in shapes]
        problems += [f"{name} is missing" for name in missing if f"{name} is missing" not in problems]
        if missing:
            continue
        if not row.theirs:
            arrays[row.ours] = np.zeros(expected[row.ours], np.float32)
            continue
        made = None
        if tuple(len(shapes[name]) for name in row.theirs) == row.ranks:
            try:
                made = row.rule(*map(read, row.theirs))
            except ValueError:  # shapes that do not go together
                made = None
        if made is None or made.shape != expected[row.ours]:
            found = " and ".join(f"{name} {list(shapes[name])}" for name in row.theirs)
            gives = "" if made is None else f", which would be {list(made.shape)}"
            problems.append(f"{found} is to become {row.ours} {list(expected[row.ours])}{gives}")
            continue
        arrays[row.ours] = np.array(made, np.float32, order="C")
    return Converted(arrays, problems)
