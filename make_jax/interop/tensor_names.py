"""Tensor-name tables: which tensors of a checkpoint become which of our parameters, and by which transform.

A `ParamMapping` is a row of such a table; `dense`, `layer_norm` and `patch_conv` write the usual ones. In names "{}" is
the number of the layer. PyTorch stores a matrix as [out, in] and a patch filter as [out, channel, row, column]; our
parameters are [in, out], with patches flattened in the order of `model.image.patches`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

Params = Any  # a nested dict of arrays, as Flax represents parameters
Transform = Callable[..., np.ndarray]
MAX_PROBLEMS = 12  # tensors listed in an error


class ParamMapping(NamedTuple):
    """The source of one of our parameters."""

    param: str  # path, such as "layer_0/mlp/in/kernel"
    tensors: tuple[str, ...]  # names in the checkpoint; none: the family has no such tensor and the parameter is 0
    transform: Transform  # of those tensors
    ranks: tuple[int, ...]  # dimensions of each tensor


def dense(tensor: str, param: str, scale: str = "") -> tuple[ParamMapping, ParamMapping]:
    """Maps a linear layer; `scale` names a factor per output that is multiplied into matrix and bias."""
    if not scale:
        return (
            ParamMapping(f"{param}/kernel", (f"{tensor}.weight",), np.transpose, (2,)),
            ParamMapping(f"{param}/bias", (f"{tensor}.bias",), identity, (1,)),
        )
    return (
        ParamMapping(f"{param}/kernel", (f"{tensor}.weight", scale), lambda weight, factor: weight.T * factor, (2, 1)),
        ParamMapping(f"{param}/bias", (f"{tensor}.bias", scale), np.multiply, (1, 1)),
    )


def layer_norm(tensor: str, param: str) -> tuple[ParamMapping, ParamMapping]:
    """Maps a layer norm."""
    return (
        ParamMapping(f"{param}/scale", (f"{tensor}.weight",), identity, (1,)),
        ParamMapping(f"{param}/bias", (f"{tensor}.bias",), identity, (1,)),
    )


def patch_conv(tensor: str) -> tuple[ParamMapping, ParamMapping]:
    """Maps the patch embedding: a convolution whose stride is its kernel size."""
    return (
        ParamMapping("patch/kernel", (f"{tensor}.weight",), flatten_filters, (4,)),
        ParamMapping("patch/bias", (f"{tensor}.bias",), identity, (1,)),
    )


def identity(tensor: np.ndarray) -> np.ndarray:
    """Returns the tensor unchanged."""
    return tensor


def first_row(table: np.ndarray) -> np.ndarray:
    """Returns the first row of a token-type table: a single text has the first type only."""
    return table[:1]


def squeeze_batch(tables: np.ndarray) -> np.ndarray:
    """Returns the only element of a batch of one."""
    return tables[0]


def flatten_filters(tensor: np.ndarray) -> np.ndarray:
    """[D, channel, row, column] -> [row * column * channel, D]."""
    return tensor.transpose(2, 3, 1, 0).reshape(-1, tensor.shape[0])


def unflatten_filters(kernel: np.ndarray) -> np.ndarray:
    """[row * column * channel, D] -> [D, channel, row, column], for square patches of 3 channels."""
    side = round((len(kernel) / 3) ** 0.5)
    return kernel.reshape(side, side, 3, -1).transpose(3, 2, 0, 1)


# Bit-exact inverses, for export, of the transforms that drop nothing.
INVERSE: dict[Transform, Transform] = {
    identity: identity,
    first_row: identity,
    squeeze_batch: lambda table: table[None],
    np.transpose: np.transpose,
    flatten_filters: unflatten_filters,
}


class Converted(NamedTuple):
    """The result of `convert`."""

    arrays: dict[str, np.ndarray]  # by path of the parameter, float32
    problems: list[str]  # tensors that are missing or of an unexpected shape


def convert(
    table: Sequence[ParamMapping],
    expected: Mapping[str, tuple[int, ...]],
    shapes: Mapping[str, tuple[int, ...]],
    read: Callable[[str], np.ndarray],
) -> Converted:
    """Returns the parameters that `table` makes of a checkpoint's tensors, and all problems.

    Args:
        table: has a row for every parameter in `expected`.
        expected: shapes of our parameters by path.
        shapes: shapes of the checkpoint's tensors by name.
        read: returns a tensor by name.
    """
    arrays: dict[str, np.ndarray] = {}
    problems: dict[str, None] = {}  # ordered set: a missing tensor may be the source of several parameters
    for row in table:
        missing = [name for name in row.tensors if name not in shapes]
        problems |= dict.fromkeys(f"{name} is missing" for name in missing)
        if missing:
            continue
        if not row.tensors:
            arrays[row.param] = np.zeros(expected[row.param], np.float32)
            continue
        array = None
        if tuple(len(shapes[name]) for name in row.tensors) == row.ranks:
            try:
                array = row.transform(*map(read, row.tensors))
            except ValueError:  # incompatible shapes
                array = None
        if array is None or array.shape != expected[row.param]:
            given = " and ".join(f"{name} {list(shapes[name])}" for name in row.tensors)
            result = "" if array is None else f", which would be {list(array.shape)}"
            problems[f"{given} is to become {row.param} {list(expected[row.param])}{result}"] = None
            continue
        arrays[row.param] = np.array(array, np.float32, order="C")
    return Converted(arrays, list(problems))


def join_problems(problems: list[str]) -> str:
    """Returns the problems in one line, the first `MAX_PROBLEMS` of them if there are more."""
    more = f"; and {len(problems) - MAX_PROBLEMS} more" if len(problems) > MAX_PROBLEMS else ""
    return "; ".join(problems[:MAX_PROBLEMS]) + more
