"""Lines of products.jsonl, queries.jsonl and clicks.jsonl to rows of columns.py, each checked alone.

What needs other lines, unique ids and references, is checked by reader.py.
"""

import json
import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa  # type: ignore[import-untyped]

from make_jax.catalog import jsonl
from make_jax.catalog.columns import CLICK_SCHEMA, PRODUCT_SCHEMA, QUERY_SCHEMA
from make_jax.catalog.id_index import id_hash
from make_jax.catalog.line_chunks import Summary
from make_jax.catalog.reporting import Problems, preview
from make_jax.catalog.schema import NO_SPLIT, SPLITS, CatalogInfo
from make_jax.catalog.source import Source, unsafe_name

Rows = defaultdict[str, list[Any]]


@dataclass(frozen=True)
class ProductParser:
    """Parses products; those without a valid id give no row."""

    info: CatalogInfo
    source: Source
    name: str = jsonl.PRODUCTS

    @property
    def path(self) -> Path:
        """The catalog's path."""
        return self.source.path

    def parse(self, data: bytes, first: int, problems: Problems) -> tuple[pa.RecordBatch, Summary]:
        """Rows of PRODUCT_SCHEMA."""
        rows, lines, keys = Rows(list), 0, set[str]()
        for number, parsed in jsonl.parse_lines(jsonl.ProductLine, data, self.name, first, problems):
            lines += 1
            if parsed is None:
                continue
            line, place = parsed.line, f"{self.name}:{number}"
            keys.update(line.model_extra or ())
            image = self._image(line, place, problems)
            attributes = jsonl.attributes(line, self.info, place, problems)
            if "id" in parsed.wrong:
                continue
            _append(
                rows,
                line=number,
                id=line.id,
                hash=id_hash(line.id),
                title="" if self.info.hide_title else line.title,
                image=image or None,
                split=_split(parsed),
                category=line.category,
                group=line.group or None,
                attributes=json.dumps(attributes, ensure_ascii=False),
                dropped=line.dropped,
                sensitive=line.sensitive,
            )
        return _batch(rows, PRODUCT_SCHEMA), Summary(lines, tuple(sorted(keys)))

    def _image(self, line: jsonl.ProductLine, place: str, problems: Problems) -> str:
        """The name of the image in the catalog; adds what is wrong with it."""
        image = re.sub(r"^(\./)+", "", line.image)
        image = self.source.find(image) or image
        if image and (fault := _image_fault(image, self.source)):
            problems.add(place, f"image: {preview(line.image)} {fault}")
        if self.info.hide_title and not line.image:
            problems.add(place, 'image: missing, expected an image, because catalog.json has "hide_title"')
        elif not line.image and not line.title:
            problems.add(place, "title: neither title nor image, expected at least one of them")
        return image


@dataclass(frozen=True)
class QueryParser:
    """Parses judged queries; invalid lines give rows too, so that their ids and references are checked."""

    path: Path
    name: str = jsonl.QUERIES

    def parse(self, data: bytes, first: int, problems: Problems) -> tuple[pa.RecordBatch, Summary]:
        """Rows of QUERY_SCHEMA."""
        rows, lines = Rows(list), 0
        for number, parsed in jsonl.parse_lines(jsonl.QueryLine, data, self.name, first, problems):
            lines += 1
            if parsed is None:
                continue
            line = parsed.line
            _append(
                rows,
                line=number,
                qid=None if "qid" in parsed.wrong else line.qid,
                text=line.text,
                split=SPLITS.index(line.split),
                products=list(line.rel),
                grades=list(line.rel.values()),
                kind=line.kind,
                lang=line.lang,
                heldout=line.heldout_combo,
                valid=not parsed.wrong,
            )
        return _batch(rows, QUERY_SCHEMA), Summary(lines)


@dataclass(frozen=True)
class ClickParser:
    """Parses clicks; invalid lines give rows too, so that their references are checked."""

    path: Path
    name: str = jsonl.CLICKS

    def parse(self, data: bytes, first: int, problems: Problems) -> tuple[pa.RecordBatch, Summary]:
        """Rows of CLICK_SCHEMA."""
        rows, lines = Rows(list), 0
        for number, parsed in jsonl.parse_lines(jsonl.ClickLine, data, self.name, first, problems):
            lines += 1
            if parsed is None:
                continue
            line = parsed.line
            product = None if "product" in parsed.wrong else line.product
            _append(rows, line=number, query=line.query, product=product, lang=line.lang, valid=not parsed.wrong)
        return _batch(rows, CLICK_SCHEMA), Summary(lines)


def _split(parsed: jsonl.Parsed[jsonl.ProductLine]) -> int:
    """Position of the split; a wrong one counts as one that is there."""
    split = parsed.line.split or ("train" if "split" in parsed.wrong else None)
    return NO_SPLIT if split is None else SPLITS.index(split)


def _append(rows: Rows, **values: Any) -> None:
    for name, value in values.items():
        rows[name].append(value)


def _batch(rows: Rows, schema: pa.Schema) -> pa.RecordBatch:
    columns = []
    for field in schema:
        if pa.types.is_dictionary(field.type):
            columns.append(pa.array(rows[field.name], field.type.value_type).dictionary_encode())
        else:
            columns.append(pa.array(rows[field.name], field.type))
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _image_fault(image: str, source: Source) -> str:
    """What is wrong with the path of an image, and what was expected; "" if nothing is."""
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+://|//|data:", image):
        kind = "a data URL" if image.lower().startswith("data:") else "a URL"
        return f"is {kind}, expected a path inside the catalog; save the image there, for example with img2dataset"
    if reason := unsafe_name(image):
        return f"{reason}, expected a path inside the catalog"
    if image not in source.sizes:
        parts = image.split("/")
        linked = any("/".join(parts[:end]) in source.links for end in range(1, len(parts) + 1))
        found = "goes through a symbolic link" if linked else "is not in the catalog"
        similar = source.similar(image)
        found += f", which has {preview(similar)}" if similar and not linked else ""
        return f"{found}, expected a file inside the catalog"
    return "is an empty file, expected a JPEG, PNG or WebP file" if source.sizes[image] == 0 else ""
