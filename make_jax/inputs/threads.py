"""How many threads decode images."""

import os

_MOST = 8  # in training, each thread makes a batch: more hold more memory, and wait for each other in Python


def decode_threads(threads: int = 0) -> int:
    """Returns `threads`; for 0 the number of cores that this process may use, at most 8."""
    if threads:
        return threads
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS
        cores = os.cpu_count() or 1
    return min(cores, _MOST)
