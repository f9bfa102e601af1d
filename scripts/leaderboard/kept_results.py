"""Stored results of the leaderboard: the numbers of one system of a report, with nDCG@10 per query for paired tests."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from make_jax.errors import InputError
from make_jax.evaluation.compare import ReadReport, read_report
from make_jax.files import write_atomically

METRIC = "nDCG@10"
FORMAT = 1
_DIGITS = 4


class Row(NamedTuple):
    """The stored result of a model on a benchmark."""

    path: Path
    kept: dict[str, Any]
    values: np.ndarray  # [Q] METRIC of each query
    members: dict[str, np.ndarray]  # slice -> [Q] which queries


def keep(report: Path, target: Path, label: str, *, system: str = "", ours: bool = False, **more: Any) -> None:
    """Writes the numbers of one system of a report, the main one for "", to `target`, with the fields `more`.

    `label` names the model in tables; `ours` marks MAKE. Raises InputError for a folder without a report.
    """
    loaded = read_report(report, system)
    content = loaded.report
    shown = [name for name in content["slices"] if is_shown(name)]
    column = content["metrics"].index(METRIC)
    kept = {
        "format": FORMAT,
        "label": label,
        "ours": ours,
        "model": content["about"].get("model", {}),
        "system": loaded.system,
        "benchmark": content["about"]["catalog"]["name"],
        **{
            key: content[key]
            for key in ("split", "pool", "queries", "products", "relevant_grade", "parameters", "notes")
        },
        "cost": content["cost"] if loaded.system == content["main"] else {},
        "slices": {
            name: {
                "queries": content["slices"][name]["queries"],
                "metrics": content["slices"][name]["systems"][loaded.system],
            }
            for name in shown
        },
        "macro": {"groups": content["macro"]["groups"], "metrics": content["macro"]["systems"][loaded.system]},
        "asked": _digest(loaded.queries),
        "per_query": [round(value * 10**_DIGITS) for value in _sorted(loaded)[:, column].tolist()],
        "members": {name: _packed(loaded, name) for name in shown},
    }
    kept = _rounded(kept) | more | {"about": content["about"]}  # a learning rate of 2e-5 is not rounded to 0
    write_atomically(target, json.dumps(kept, ensure_ascii=False, separators=(",", ":")) + "\n")


def load(folder: Path) -> list[Row]:
    """Returns the results of a folder, by file name. Raises InputError for a file that is not a result."""
    rows = []
    for path in sorted(folder.glob("*.json")):
        try:
            kept = json.loads(path.read_text("utf-8"))
            if kept["format"] != FORMAT:
                raise InputError(f"{path}: format {kept['format']}, expected {FORMAT}; keep it again")
            values = np.array(kept["per_query"], np.float64) / 10**_DIGITS
            members = {
                name: np.unpackbits(np.frombuffer(bytes.fromhex(bits), np.uint8))[: len(values)].astype(bool)
                for name, bits in kept["members"].items()
            }
        except (ValueError, KeyError, TypeError) as error:
            command = "scripts/leaderboard/leaderboard.py keep"
            raise InputError(f"{path}: not a kept result ({error!r}); write it with {command}") from None
        rows.append(Row(path, kept, values, members))
    return rows


def check_comparable(rows: Sequence[Row]) -> None:
    """Raises InputError for results of one benchmark over different catalogs, splits, pools or queries."""
    first = rows[0]
    for row in rows[1:]:
        for key in ("split", "pool", "asked"):
            if row.kept[key] != first.kept[key]:
                raise InputError(
                    f"{row.path}: {key} differs from that of {first.path}; evaluate both with the same options"
                )
        if row.kept["about"]["catalog"]["digest"] != first.kept["about"]["catalog"]["digest"]:
            raise InputError(
                f"{row.path}: other version of the catalog than {first.path}; evaluate both on one version"
            )


def is_shown(name: str) -> bool:
    """Returns whether the leaderboard shows a slice: all except complete kinds, of which there are many."""
    return not name.startswith("kind:") or name.count(":") == (2 if " lang:" in name else 1)


def _sorted(read: ReadReport) -> np.ndarray:
    """Returns the values in the order of query ids, as in every file."""
    return read.values[np.argsort(np.array(read.queries, object))]


def _packed(read: ReadReport, name: str) -> str:
    mask = np.zeros(len(read.queries), bool)
    mask[read.slices[name]] = True
    return np.packbits(mask[np.argsort(np.array(read.queries, object))]).tobytes().hex()


def _digest(queries: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(sorted(queries)).encode("utf-8")).hexdigest()


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, _DIGITS)
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, list) else value
