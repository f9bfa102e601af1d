"""Code shared by the processes of peers.py; imports neither jax nor torch."""

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

import numpy as np

WIDTH = 512


def begin(rank: int, processes: int) -> TextIO:
    """Binds the process to its cores and returns the stream for answers; call it before threads start."""
    cores = sorted(os.sched_getaffinity(0))
    own = cores[rank % len(cores) :: processes] if processes < len(cores) else [cores[rank % len(cores)]]
    os.sched_setaffinity(0, own)
    os.environ["OMP_NUM_THREADS"] = str(len(own))
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # gloo writes to standard output
    return answers


def unit_vectors(rank: int, processes: int, batch: int) -> list[np.ndarray]:
    """Returns queries and products of this process, [batch / processes, 512] each."""
    rows = batch // processes
    vectors = []
    for seed in (0, 1):
        x = np.random.default_rng(seed).normal(size=(batch, WIDTH)).astype(np.float32)
        x /= np.linalg.norm(x, axis=1, keepdims=True)
        vectors.append(x[rank * rows : (rank + 1) * rows].copy())
    return vectors


def serve(answers: TextIO, run: Callable[[], dict[str, float]], planned: Callable[[], int]) -> None:
    """Answers each line of standard input with JSON: "memory" runs once with memory use, "run" with times."""
    for line in sys.stdin:
        if line.strip() == "memory":
            answer: dict[str, float] = {"before": _resident("VmRSS")}
            Path("/proc/self/clear_refs").write_text("5")  # resets the peak
            answer |= run()
            answer |= {"peak": _resident("VmHWM"), "planned": planned()}
        else:
            start, used = time.perf_counter(), _processor()
            run()
            answer = {"seconds": time.perf_counter() - start, "processor": _processor() - used}
        print(json.dumps(answer), file=answers, flush=True)


def _resident(field: str) -> int:
    """Bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))


def _processor() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime
