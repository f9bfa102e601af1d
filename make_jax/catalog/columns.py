"""Products, judged queries and clicks as Arrow tables, read like sequences of records.

A table is in memory, or a memory-mapped file whose pages all processes share. A record is made when it is read.
"""

import itertools
import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Generic, SupportsIndex, TypeVar, overload

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]
from jaxtyping import Bool, Int

from make_jax.catalog.attributes import attributes_of_json
from make_jax.catalog.schema import SPLITS, Click, Product, Query, Split, split_name

_ROWS_AT_ONCE = 4096  # rows that an iteration converts together

_TEXTS = pa.list_(pa.string())
_LABELS = pa.dictionary(pa.int32(), pa.string())  # texts that repeat
PRODUCT_SCHEMA = pa.schema(
    {
        "line": pa.int64(),  # of products.jsonl
        "id": pa.string(),
        "hash": pa.uint64(),  # `id_hash` of the id
        "title": pa.string(),
        "image": pa.string(),  # null without one
        "split": pa.int8(),  # position in SPLITS, or NO_SPLIT
        "category": _TEXTS,
        "group": pa.string(),  # null without one
        "attributes": pa.string(),  # JSON object
        "dropped": _TEXTS,
        "sensitive": pa.bool_(),
    }
)
QUERY_SCHEMA = pa.schema(
    {
        "line": pa.int64(),
        "qid": pa.string(),
        "text": pa.string(),
        "split": pa.int8(),
        "products": _TEXTS,  # judged ones
        "grades": pa.list_(pa.int64()),
        "kind": pa.string(),
        "lang": pa.string(),
        "heldout": pa.bool_(),
        "valid": pa.bool_(),  # false: some value is wrong, and the query is only checked further
    }
)
CLICK_SCHEMA = pa.schema(
    {"line": pa.int64(), "query": _LABELS, "product": pa.string(), "lang": _LABELS, "valid": pa.bool_()}
)

Record = TypeVar("Record")


class Records(Sequence[Record], Generic[Record]):
    """Rows of a table as records: all of them, or those at `rows`. Immutable and picklable."""

    def __init__(
        self,
        table: pa.Table,
        decode: Callable[[dict[str, list[Any]]], Iterator[Record]],
        rows: Int[np.ndarray, " n"] | None = None,
    ) -> None:
        """`decode` converts columns of Python values to records; it is a function of a module, to be picklable."""
        self.table = table
        self.rows = rows
        self._decode = decode

    def __len__(self) -> int:
        return len(self.table) if self.rows is None else len(self.rows)

    @overload
    def __getitem__(self, index: SupportsIndex) -> Record: ...

    @overload
    def __getitem__(self, index: slice) -> "Records[Record]": ...

    def __getitem__(self, index: SupportsIndex | slice) -> "Record | Records[Record]":
        if isinstance(index, slice):
            return self.select(np.arange(*index.indices(len(self)), dtype=np.int32))
        position = range(len(self))[operator.index(index)]
        row = position if self.rows is None else int(self.rows[position])
        return next(self._decode(self.table.slice(row, 1).to_pydict()))

    def __iter__(self) -> Iterator[Record]:
        for start in range(0, len(self), _ROWS_AT_ONCE):
            part = self.rows_of(self.table, slice(start, min(start + _ROWS_AT_ONCE, len(self))))
            yield from self._decode(part.to_pydict())

    def rows_of(self, table: pa.Table, positions: slice) -> pa.Table:
        """The rows of these records in `table`, which has some columns of the records' own table."""
        if self.rows is None:
            return table.slice(positions.start, positions.stop - positions.start)
        rows = self.rows[positions]
        if not len(rows):
            return table.slice(0, 0)
        first, last = int(rows.min()), int(rows.max())  # taking from a part first, because Arrow may join all chunks
        return table.slice(first, last + 1 - first).take(rows - first)

    def values(self, name: str) -> Iterator[list[Any]]:
        """The values of one column, in lists of at most 4,096."""
        table = self.table.select([name])
        for start in range(0, len(self), _ROWS_AT_ONCE):
            part = self.rows_of(table, slice(start, min(start + _ROWS_AT_ONCE, len(self))))
            yield part.column(name).to_pylist()

    def distinct(self, name: str) -> Iterator[list[Any]]:
        """The distinct values of a column of texts that repeat, ordered by first occurrence, in lists."""
        column = self.column(name).unify_dictionaries()  # keeps the order
        values: pa.Array = column.chunk(0).dictionary if column.num_chunks else pa.array([], pa.string())
        for start in range(0, len(values), _ROWS_AT_ONCE):
            yield values[start : start + _ROWS_AT_ONCE].to_pylist()

    def of_split(self, split: Split) -> "Records[Record]":
        """The records of a split, in file order."""
        rows = np.flatnonzero(self.column("split").to_numpy() == SPLITS.index(split))
        return Records(self.table, self._decode, rows.astype(np.int32) if self.rows is None else self.rows[rows])

    def select(self, positions: Int[np.ndarray, " n"]) -> "Records[Record]":
        """The records at these positions."""
        return Records(self.table, self._decode, positions if self.rows is None else self.rows[positions])

    def column(self, name: str) -> pa.ChunkedArray:
        """One column of these rows."""
        column = self.table.column(name)
        return column if self.rows is None else column.take(self.rows)

    def line(self, position: int) -> int:
        """The line number of a record in its file."""
        number: int = self.table.column("line")[position if self.rows is None else int(self.rows[position])].as_py()
        return number

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<{len(self):,} records>"


def product_records(table: pa.Table) -> Records[Product]:
    """The products of a table of PRODUCT_SCHEMA."""
    return Records(table, _products)


def query_records(table: pa.Table) -> Records[Query]:
    """The judged queries of a table of QUERY_SCHEMA."""
    return Records(table, _queries)


def click_records(table: pa.Table) -> Records[Click]:
    """The clicks of a table of CLICK_SCHEMA."""
    return Records(table, _clicks)


def click_table(clicks: Iterable[Click]) -> pa.Table:
    """The table of clicks that are in no file."""
    batches = []
    remaining = iter(clicks)
    while chunk := list(itertools.islice(remaining, _ROWS_AT_ONCE * 16)):
        queries, products, langs = zip(*((click.query, click.product, click.lang) for click in chunk), strict=True)
        count = len(chunk)
        columns = [
            pa.array(np.zeros(count, np.int64)),
            pa.array(queries, pa.string()).dictionary_encode(),
            pa.array(products, pa.string()),
            pa.array(langs, pa.string()).dictionary_encode(),
            pa.array(np.ones(count, bool)),
        ]
        batches.append(pa.RecordBatch.from_arrays(columns, schema=CLICK_SCHEMA))
    return pa.Table.from_batches(batches, CLICK_SCHEMA)


def filter_rows(batch: pa.RecordBatch, kept: Bool[np.ndarray, " rows"]) -> pa.RecordBatch:
    """The kept rows; dictionaries lose the values of the others."""
    columns = [
        column.dictionary_decode().dictionary_encode() if pa.types.is_dictionary(column.type) else column
        for column in batch.filter(pa.array(kept)).columns
    ]
    return pa.RecordBatch.from_arrays(columns, schema=batch.schema)


def _products(columns: dict[str, list[Any]]) -> Iterator[Product]:
    names = ("id", "title", "image", "split", "category", "group", "attributes", "dropped", "sensitive")
    for id, title, image, split, category, group, attributes, dropped, sensitive in zip(
        *(columns[name] for name in names), strict=True
    ):
        yield Product(
            id=id,
            title=title,
            image=image,
            split=split_name(split),
            category=tuple(category),
            group=group,
            attributes=attributes_of_json(attributes),
            dropped=tuple(dropped),
            sensitive=sensitive,
        )


def _queries(columns: dict[str, list[Any]]) -> Iterator[Query]:
    names = ("qid", "text", "split", "products", "grades", "kind", "lang", "heldout")
    for qid, text, split, products, grades, kind, lang, heldout in zip(*(columns[name] for name in names), strict=True):
        yield Query(qid, text, SPLITS[split], dict(zip(products, grades, strict=True)), kind, lang, heldout)


def _clicks(columns: dict[str, list[Any]]) -> Iterator[Click]:
    for query, product, lang in zip(columns["query"], columns["product"], columns["lang"], strict=True):
        yield Click(query, product, lang)
