"""Query vectors for a server: few shapes, compiled at start, by JAX or ONNX Runtime, whichever is faster.

A batch is padded to one of BATCH_SIZES, and for a run its tokens to one of few lengths (`Retriever.encode_queries`), so
that a server compiles all programs before its first request. Vectors of texts that are encoded together equal those
of each alone up to float32 rounding.
"""

import functools
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float32

from make_jax.errors import InputError
from make_jax.evaluation.models import onnx_run
from make_jax.retrieval.embed import Encoder, check_finite
from make_jax.retrieval.retriever import MIN_TRIMMED_LENGTH, Retriever

BATCH_SIZES = (1, 2, 4, 8, 16, 32)
MAX_BATCH = BATCH_SIZES[-1]
_PROBES = ("red", "red running shoes for men", "红色 T恤")  # what is measured and compared
_REPEATS = 15  # of each measurement
_MAX_DIFFERENCE = 1e-4  # of a unit vector's numbers, between the model and its ONNX export

Encode = Callable[[Sequence[str]], Float32[np.ndarray, "n D"]]


class QueryEncoder:
    """Encodes texts with a model. Safe to call from several threads."""

    def __init__(self, model: Encoder, onnx: str | Path = "", log: Callable[[str], None] = lambda _: None) -> None:
        """`onnx` is a folder of `convert.py export --to onnx` of the model, used if it is faster; `log` gets a line.

        Raises InputError when the export has other vectors than the model, or onnxruntime is missing.
        """
        self.model = model
        # Held while the model encodes: several threads may call ours, and not every other one.
        self.lock: AbstractContextManager[Any] = nullcontext() if isinstance(model, Retriever) else threading.Lock()
        self._encode: Encode = model.encode_queries
        if isinstance(model, Retriever):
            self._encode = functools.partial(model.encode_queries, trim=True)
        if onnx:
            self._encode = self._faster(Path(onnx), log)

    def warm_up(self) -> None:
        """Compiles the program of each shape that `encode` uses."""
        for size in BATCH_SIZES:
            for length in self._lengths():
                self.encode(["a " * length] * size)

    def encode(self, texts: Sequence[str]) -> Float32[np.ndarray, "n D"]:
        """One query vector per text. Raises InputError for vectors that are not finite."""
        rows = []
        for start in range(0, len(texts), MAX_BATCH):
            chunk = texts[start : start + MAX_BATCH]
            size = next(size for size in BATCH_SIZES if size >= len(chunk))
            with self.lock:
                rows.append(self._encode([*chunk, *[""] * (size - len(chunk))])[: len(chunk)])
        vectors = np.concatenate(rows) if rows else self._encode([])
        check_finite(vectors, "query")
        return vectors

    def _lengths(self) -> list[int]:
        """The token counts that `Retriever.encode_queries` trims to, as words that make a text that long."""
        longest = self.model.model.inputs.max_query_tokens if isinstance(self.model, Retriever) else 0
        lengths, length = [1], MIN_TRIMMED_LENGTH
        while length < longest:
            lengths.append(length)
            length *= 2
        return lengths

    def _faster(self, folder: Path, log: Callable[[str], None]) -> Encode:
        """The model's encoder or that of its ONNX export, by the time of one text; logs both times."""
        exported = onnx_run.load(folder).encode_queries
        ours, theirs = self._encode(_PROBES), exported(_PROBES)
        difference = np.abs(ours - theirs).max() if ours.shape == theirs.shape else np.inf
        if not difference <= _MAX_DIFFERENCE:
            raise InputError(
                f"{folder}: its vectors are not those of the index's model, expected an export of it: "
                "python convert.py export RUN OUT --to onnx"
            )
        ours_name = f"JAX on {jax.default_backend()}" if isinstance(self.model, Retriever) else "the model"
        names = {ours_name: self._encode, "ONNX Runtime": exported}
        seconds = {name: _seconds(encode) for name, encode in names.items()}
        best = min(seconds, key=seconds.__getitem__)
        times = ", ".join(f"{name} {1e3 * value:.2f} ms" for name, value in seconds.items())
        log(f"queries are encoded by {best}, the faster: one text takes {times}")
        return names[best]


def _seconds(encode: Encode) -> float:
    """The median time of encoding one text."""
    times = []
    for text in _PROBES:
        encode([text])  # compiles
    for repeat in range(_REPEATS):
        start = time.perf_counter()
        encode([_PROBES[repeat % len(_PROBES)]])
        times.append(time.perf_counter() - start)
    return statistics.median(times)
