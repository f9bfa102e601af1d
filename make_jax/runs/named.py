"""Trees of arrays as nested dicts of named leaves, which is how a checkpoint stores them.

A name is the path to a leaf, ("params", "title", "kernel"); containers without leaves (None, an empty optimizer
state) leave no trace. What is read back is put into the structure of a template by name.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import jax

Name = tuple[str, ...]


def flatten(tree: Any) -> dict[Name, Any]:
    """Returns the leaves of any tree (dicts, tuples, dataclasses) by name, in the order of jax.tree.leaves."""
    return {tuple(map(_word, path)): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def unflatten(template: Any, leaves: Mapping[Name, Any]) -> Any:
    """Returns `leaves` in the structure of `template`, which has the same names."""
    return jax.tree.unflatten(jax.tree.structure(template), [leaves[name] for name in flatten(template)])


def nest(leaves: Mapping[Name, Any]) -> dict[str, Any]:
    """Returns named leaves as dicts in dicts."""
    tree: dict[str, Any] = {}
    for name, leaf in leaves.items():
        node = tree
        for word in name[:-1]:
            node = node.setdefault(word, {})
        node[name[-1]] = leaf
    return tree


def differences(stored: Mapping[Name, Any], expected: Mapping[Name, Any], limit: int = 5) -> list[str]:
    """Returns what differs between two sets of leaves with shape and dtype, in words: at most `limit` of each sort."""
    missing = [f"{_text(name)} {_kind(expected[name])}" for name in expected if name not in stored]
    extra = [f"{_text(name)} {_kind(stored[name])}" for name in stored if name not in expected]
    unlike = [
        f"{_text(name)} {_kind(stored[name])} instead of {_kind(leaf)}"
        for name, leaf in expected.items()
        if name in stored and _kind(stored[name]) != _kind(leaf)
    ]
    sorts = (("lacks", missing), ("has besides", extra), ("has", unlike))
    return [f"{verb} {_first(found, limit)}" for verb, found in sorts if found]


def _first(found: list[str], limit: int) -> str:
    more = f" and {len(found) - limit} more" if len(found) > limit else ""
    return ", ".join(found[:limit]) + more


def _text(name: Iterable[str]) -> str:
    return "/".join(name)


def _kind(leaf: Any) -> str:
    return f"{leaf.dtype}{list(leaf.shape)}"


def _word(key: Any) -> str:
    """One step of a path, whatever container it goes into."""
    for attribute in ("key", "idx", "name"):  # DictKey and FlattenedIndexKey, SequenceKey, GetAttrKey
        if hasattr(key, attribute):
            return str(getattr(key, attribute))
    raise TypeError(f"a tree node without names: {key!r}")
