"""Checks of a catalog that need more than one line: unique ids, and references to products."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]
from jaxtyping import Int8, Int32

from make_jax.catalog import jsonl
from make_jax.catalog.columns import CLICK_SCHEMA, PRODUCT_SCHEMA, QUERY_SCHEMA, filter_rows
from make_jax.catalog.id_index import IdIndex
from make_jax.catalog.line_chunks import ParsedFile
from make_jax.catalog.reporting import Problems, preview
from make_jax.catalog.schema import NO_SPLIT, SPLITS

Found = Iterator[tuple[int, str]]  # line number and text of a problem


def unique_products(parsed: ParsedFile, problems: Problems) -> tuple[pa.Table, IdIndex]:
    """The products with unique ids, and their index."""
    table = parsed.table(PRODUCT_SCHEMA)
    index = IdIndex(table.column("id"), table.column("hash").to_numpy())
    repeated = index.duplicates
    lines = table.column("line")
    splits = table.column("split").to_numpy()

    def faults() -> Found:
        for at in repeated.tolist():
            id = table.column("id")[at].as_py()
            yield (
                lines[at].as_py(),
                f'id: "{id}" is the id of line {lines[index[id]].as_py()} too, expected unique ids',
            )

    _add_by_line(jsonl.PRODUCTS, parsed, faults(), problems)
    for at in np.flatnonzero(splits == NO_SPLIT).tolist() if (splits != NO_SPLIT).any() else ():
        expected = f"expected {jsonl.SPLIT_CHOICES}, or no split in any line"
        problems.add(f"{jsonl.PRODUCTS}:{lines[at].as_py()}", f"split: missing, {expected}")
    if len(repeated):
        table = table.take(np.setdiff1d(np.arange(len(table)), repeated))
        index = IdIndex(table.column("id"), table.column("hash").to_numpy())
    return table, index


def valid_queries(parsed: ParsedFile, index: IdIndex | None, problems: Problems) -> pa.Table:
    """The valid queries. `index` None: the products are incomplete, and references are not checked."""
    table = parsed.table(QUERY_SCHEMA)
    rejected = np.logical_not(table.column("valid").to_numpy())
    first: dict[str, int] = {}

    def faults() -> Found:
        row = 0
        for batch in table.to_batches():
            unknown = _unknown_products(batch, index) if index is not None else {}
            lines, qids = batch.column("line").to_pylist(), batch.column("qid").to_pylist()
            for at, (line, qid) in enumerate(zip(lines, qids, strict=True)):
                if ids := unknown.get(at):
                    more = f" and {len(ids) - 1} more" if len(ids) > 1 else ""
                    found = f"judges the unknown product {preview(ids[0])}{more}"
                    yield line, f"rel: {found}, expected ids of {jsonl.PRODUCTS}"
                duplicate = qid is not None and first.setdefault(qid, line) != line
                if duplicate:
                    yield line, f'qid: "{qid}" is the qid of line {first[qid]} too, expected unique qids'
                rejected[row] |= bool(ids) or duplicate
                row += 1

    _add_by_line(jsonl.QUERIES, parsed, faults(), problems)
    return table.filter(pa.array(~rejected)) if rejected.any() else table


def _unknown_products(batch: pa.RecordBatch, index: IdIndex) -> dict[int, list[str]]:
    """Row -> the ids it judges that are of no product."""
    judged = batch.column("products")
    ids = judged.flatten()
    unknown = np.flatnonzero(index.positions(ids) < 0)
    rows = np.searchsorted(np.asarray(judged.offsets) - judged.offsets[0].as_py(), unknown, side="right") - 1
    by_row: dict[int, list[str]] = {}
    for row, at in zip(rows.tolist(), unknown.tolist(), strict=True):
        by_row.setdefault(row, []).append(ids[at].as_py())
    return by_row


def valid_clicks(
    parsed: ParsedFile,
    index: IdIndex | None,
    splits: Int8[np.ndarray, " products"],
    problems: Problems,
    warnings: Problems,
) -> tuple[pa.Table, Int32[np.ndarray, " clicks"]]:
    """The clicks on products of the training split, or on any if products have no split, and the position of each
    one's product. Ignored clicks are added to `warnings`.

    `index` as in `valid_queries`; `splits` by position.
    """
    table = parsed.table(CLICK_SCHEMA)
    rejected = np.logical_not(table.column("valid").to_numpy())
    positions = np.full(len(table), -1, np.int32)
    trained = (SPLITS.index("train"), NO_SPLIT)

    def faults() -> Found:
        assert index is not None
        start = 0
        for batch in table.to_batches():
            rows, products, lines = slice(start, start + len(batch)), batch.column("product"), batch.column("line")
            positions[rows] = found = index.positions(products)
            unknown = (found < 0) & np.asarray(products.is_valid())
            ignored = (found >= 0) & ~np.isin(splits[found], trained)
            rejected[rows] |= unknown | ignored
            start = rows.stop
            for at in np.flatnonzero(unknown).tolist():
                id = preview(products[at].as_py())
                yield (
                    lines[at].as_py(),
                    f"product: found the unknown product {id}, expected an id of {jsonl.PRODUCTS}",
                )
            for at in np.flatnonzero(ignored).tolist():
                text = f'{preview(products[at].as_py())} is in the split "{SPLITS[splits[found[at]]]}"'
                place = f"{jsonl.CLICKS}:{lines[at].as_py()}"
                warnings.add(place, f"product: {text}, so training ignores the click")

    _add_by_line(jsonl.CLICKS, parsed, faults() if index is not None else iter(()), problems)
    if not rejected.any():
        return table, positions
    start, batches = 0, []
    for batch in table.to_batches():
        batches.append(filter_rows(batch, ~rejected[start : start + len(batch)]))
        start += len(batch)
    return pa.Table.from_batches(batches, CLICK_SCHEMA), positions[~rejected]


def _add_by_line(name: str, parsed: ParsedFile, found: Found, problems: Problems) -> None:
    """Adds the problems of a file in the order of its lines; of one line, those of the parser first."""
    references = Problems(problems.path, problems.max_per_kind)
    for line, text in found:
        references.add(f"{name}:{line}", text)
    problems.add_by_line([*parsed.problems, references])
