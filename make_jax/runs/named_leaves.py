"""Trees of arrays as dicts from name to leaf, the form in which a checkpoint stores them.

A name is the path to a leaf, ("params", "title", "kernel"). Containers without leaves (None, an empty optimizer state)
have no name. `flax.traverse_util.unflatten_dict` makes nested dicts of it.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import jax

Name = tuple[str, ...]


def flatten(tree: Any) -> dict[Name, Any]:
    """Returns the leaves of any tree (dicts, tuples, dataclasses) by name, in the order of jax.tree.leaves."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {tuple(jax.tree_util.keystr((key,), simple=True) for key in path): leaf for path, leaf in leaves}


def unflatten(template: Any, leaves: Mapping[Name, Any]) -> Any:
    """Returns `leaves` in the structure of `template`, which has the same names."""
    return jax.tree.unflatten(jax.tree.structure(template), [leaves[name] for name in flatten(template)])


def differences(stored: Mapping[Name, Any], expected: Mapping[Name, Any], limit: int = 5) -> list[str]:
    """Returns how two sets of arrays differ in names, shapes and dtypes, at most `limit` arrays per kind."""
    missing = [f"{_text(name)} {_type(expected[name])}" for name in expected if name not in stored]
    extra = [f"{_text(name)} {_type(stored[name])}" for name in stored if name not in expected]
    changed = [
        f"{_text(name)} {_type(stored[name])} instead of {_type(leaf)}"
        for name, leaf in expected.items()
        if name in stored and _type(stored[name]) != _type(leaf)
    ]
    kinds = (("lacks", missing), ("has in addition", extra), ("has", changed))
    return [f"{verb} {_first(arrays, limit)}" for verb, arrays in kinds if arrays]


def _first(arrays: list[str], limit: int) -> str:
    more = f" and {len(arrays) - limit} more" if len(arrays) > limit else ""
    return ", ".join(arrays[:limit]) + more


def _text(name: Iterable[str]) -> str:
    return "/".join(name)


def _type(leaf: Any) -> str:
    return f"{leaf.dtype}{list(leaf.shape)}"
