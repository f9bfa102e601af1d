"""TREC run and qrels files, for re-scoring with trec_eval or ir_measures."""

import gzip
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from make_jax.files import write_atomically
from make_jax.retrieval.top_k import TopK

_SMALLEST = np.finfo(np.float32).tiny  # some programs flush smaller numbers to zero, which would be a tie


def strictly_decreasing(scores: Float32[np.ndarray, "Q k"]) -> Float32[np.ndarray, "Q k"]:
    """Returns the scores, lowered by as few f32 steps as needed to make each row strictly decreasing. -inf stays.

    trec_eval compares scores as f32 and breaks ties by document id. Without ties, every program reads the same order.
    """
    out = np.where(np.abs(scores) < _SMALLEST, np.float32(0), scores)
    for rank in range(1, out.shape[1]):
        before = out[:, rank - 1]
        below = np.nextafter(before, np.float32(-np.inf))
        below = np.where(np.abs(below) >= _SMALLEST, below, np.where(before > 0, np.float32(0), -_SMALLEST))
        out[:, rank] = np.minimum(out[:, rank], below)
    return out


def write_run(path: Path, ranking: TopK, query_ids: Sequence[str], product_ids: Sequence[str], tag: str) -> None:
    """Writes a gzipped TREC run (`query Q0 product rank score tag`) atomically."""
    products = np.array([_field(identity) for identity in product_ids], dtype=object)
    lines = [  # template of the longest row; 9 digits round-trip f32; one % per row is fast
        f"\0 Q0 %s {rank} %.9g {_field(tag).replace('%', '%%')}\n" for rank in range(1, ranking.indices.shape[1] + 1)
    ]
    full_row = "".join(lines)
    parts: list[bytes] = []
    for query, row, scores in zip(query_ids, ranking.indices, strictly_decreasing(ranking.scores), strict=True):
        n = int(np.count_nonzero(row >= 0))
        template = full_row if n == len(lines) else "".join(lines[:n])
        fields = [field for pair in zip(products[row[:n]].tolist(), scores[:n].tolist(), strict=True) for field in pair]
        text = (template % tuple(fields)).replace("\0", _field(query))
        parts.append(gzip.compress(text.encode("utf-8"), compresslevel=1, mtime=0))
    write_atomically(path, b"".join(parts))  # a gzip file may have several members


def write_qrels(path: Path, qrels: Mapping[str, Mapping[str, int]]) -> None:
    """Writes the judgements as a TREC qrels file (`query 0 product grade`) atomically."""
    lines = [
        f"{_field(query)} 0 {_field(product)} {grade}\n"
        for query, rel in qrels.items()
        for product, grade in rel.items()
    ]
    write_atomically(path, "".join(lines))


def _field(text: str) -> str:
    """Returns an id as one field of a line: white space and % are percent-encoded, as the format has no quoting."""
    return re.sub(r"[\s%]", lambda match: "".join(f"%{byte:02X}" for byte in match[0].encode("utf-8")), text)
