"""What engines must return, by plain loops over the products; shares no code with make_jax.serving."""

import unicodedata
from collections.abc import Mapping
from typing import Any

import numpy as np

from make_jax.evaluation.baselines import TitleBM25
from make_jax.serving.engines import EngineQuery, EngineResult, Rows
from make_jax.serving.filters import And, Compare, Exists, Filter, In, Not, Or
from make_jax.serving.requests import FacetStats


def items(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


def text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return value if isinstance(value, str) else f"{value:g}"


def key(value: Any) -> str:
    return unicodedata.normalize("NFC", text(value)).casefold()


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def meets(condition: Filter | None, attributes: Mapping[str, Any]) -> bool:
    if condition is None:
        return True
    if isinstance(condition, And):
        return all(meets(part, attributes) for part in condition.conditions)
    if isinstance(condition, Or):
        return any(meets(part, attributes) for part in condition.conditions)
    if isinstance(condition, Not):
        return not meets(condition.condition, attributes)
    if isinstance(condition, Exists):
        return condition.attribute in attributes
    values = items(attributes.get(condition.attribute, ()))
    if isinstance(condition, In):
        return any(key(value) == key(wanted) for value in values for wanted in condition.values)
    assert isinstance(condition, Compare)
    wanted = condition.value
    if condition.operator == "=":
        return any(key(value) == key(wanted) for value in values)
    numbers = [value for value in values if is_number(value) and is_number(wanted)]
    tests = {">": lambda v: v > wanted, ">=": lambda v: v >= wanted, "<": lambda v: v < wanted}
    return any(tests.get(condition.operator, lambda v: v <= wanted)(number) for number in numbers)


class Reference:
    """The products of an index and their ranking."""

    def __init__(self, rows: Rows) -> None:
        self.products = {
            row: (vector, title, attributes)
            for row, vector, title, attributes in zip(rows.rows.tolist(), *rows[1:], strict=True)
        }

    def update(self, replaced: Rows, deleted: np.ndarray) -> None:
        self.products |= Reference(replaced).products
        for row in deleted.tolist():
            self.products.pop(row, None)

    def matching(self, condition: Filter | None, count: int) -> list[bool]:
        return [row in self.products and meets(condition, self.products[row][2]) for row in range(count)]

    def search(self, query: EngineQuery) -> EngineResult:
        rows = sorted(self.products)
        bm25 = TitleBM25([self.products[row][1] for row in rows]).scores([query.text])[0] if query.text else []
        lexical = dict(zip(rows, map(float, bm25), strict=False))
        kept = [row for row in rows if row not in query.exclude and meets(query.filter, self.products[row][2])]
        best = max([lexical[row] for row in kept], default=0) if query.text else 0
        found = []
        for row in kept:
            vector = self.products[row][0].astype(np.float64)
            share = lexical[row] / best if best else 0.0
            if query.vector is None:
                if not query.text or share > 0:
                    found.append((row, share, np.nan, share if query.text else np.nan))
            elif query.text or vector.any():
                cosine = float(vector @ query.vector)
                found.append((row, cosine + query.lexical_weight * share, cosine, share if query.text else np.nan))
        if query.min_score is not None:
            found = [item for item in found if item[1] >= query.min_score]
        return self._result(query, found)

    def _result(self, query: EngineQuery, found: list[tuple[int, float, float, float]]) -> EngineResult:
        order = sorted(found, key=lambda item: (-np.float32(item[1]), item[0]))
        for sort in reversed(query.sort):
            order = self._sorted(order, sort.attribute, sort.order == "desc")
        if query.distinct:
            seen: dict[str, int] = {}
            kept = []
            for item in order:
                value = self.products[item[0]][2].get(query.distinct)
                group = None if value is None else key(items(value)[0])
                if group is None or seen.get(group, 0) < query.max_per_value:
                    kept.append(item)
                if group is not None:
                    seen[group] = seen.get(group, 0) + 1
            order = kept
        page = order[query.offset : query.offset + query.limit]
        columns = np.array(page, np.float64).reshape(-1, 4)
        facets, stats = {}, {}
        for name in sorted(self.attributes()) if query.facets == ("*",) else query.facets:
            facets[name] = self._facet(name, [item[0] for item in found])
            values = (value for item in found for value in items(self.products[item[0]][2].get(name, ())))
            if numbers := [value for value in values if is_number(value)]:
                stats[name] = FacetStats(float(min(numbers)), float(max(numbers)))
        scores, dense, lexical = columns[:, 1:].T.astype(np.float32)
        return EngineResult(
            columns[:, 0].astype(np.int64), scores, dense, lexical, len(order), facets=facets, facet_stats=stats
        )

    def _sorted(self, order: list[Any], attribute: str, descending: bool) -> list[Any]:
        def sort_key(item: Any) -> Any:
            keys = [
                (not is_number(value), value if is_number(value) else 0, key(value), text(value))
                for value in items(self.products[item[0]][2][attribute])
            ]
            return max(keys) if descending else min(keys)

        having = [item for item in order if attribute in self.products[item[0]][2]]
        missing = [item for item in order if attribute not in self.products[item[0]][2]]
        return sorted(having, key=sort_key, reverse=descending) + missing  # both directions are stable

    def _facet(self, name: str, rows: list[int]) -> dict[str, int]:
        counts: dict[str, int] = {}
        for row in rows:
            for value in {text(value) for value in items(self.products[row][2].get(name, ()))}:
                counts[value] = counts.get(value, 0) + 1
        return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))

    def attributes(self) -> dict[str, int]:
        names = [name for _, _, attributes in self.products.values() for name in attributes]
        return {name: names.count(name) for name in sorted(set(names))}
