"""Sends 10,000 hostile requests to a `search.py serve` on loopback, and checks answers, times, memory and the log.

    python benchmarks/robustness/http_fuzz.py INDEX [--engines flat edge] [--requests 10000] [--seed 0] [--out FILE]

`fuzz_requests.py` makes the requests. Checked of each: the status is one that its kind may have, or 503; an error is
the documented JSON; the answer comes within MAX_SECONDS, also while pictures of 63 million pixels are decoded. Clients
that are slow on purpose must be answered or disconnected within MAX_SLOW_SECONDS. Searches with known results run in
between and must have these results. At the end: the memory of all processes of the server, no traceback and no text
of a request in the log, and a clean stop.
"""

import argparse
import collections
import http.client
import json
import math
import random
import statistics
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the repository root

from benchmarks import RESULTS
from benchmarks.robustness.fuzz_clients import SLOW, Outcome, send
from benchmarks.robustness.fuzz_requests import MARKER, FuzzRequest, Target, make_all
from benchmarks.robustness.serving_process import ServingProcess
from make_jax.catalog.reader import Catalog
from make_jax.errors import InputError, exit_cleanly
from make_jax.files import write_atomically
from make_jax.runs.provenance import metadata
from make_jax.serving.http.errors import CODES

MAX_SECONDS = 20.0
MAX_SLOW_SECONDS = 45.0
MAX_GROWTH_MB = 2000
CLIENTS = 8
SLOW_CLIENTS = 32
_SLOW_OF_EACH_KIND = 50
_UPLOADS = 20  # of 100 MB
_BOMBS = 100
_PROBES = ("apple", "red flower", "苹果", "car", "zzz", "house with a tree")
_PROBE_EVERY = 20  # requests
_IDLE_SECONDS = 10.0  # before the memory at the end is read


def main() -> None:
    """Runs all engines and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("index", type=Path)
    parser.add_argument("--engines", nargs="+", default=["flat", "edge"])
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS / "http-fuzz.json")
    args = parser.parse_args()
    runs = {engine: fuzz(args.index, engine, args.requests, args.seed) for engine in args.engines}
    limits = {
        "seconds": MAX_SECONDS,
        "seconds of slow clients": MAX_SLOW_SECONDS,
        "growth of memory, MB": MAX_GROWTH_MB,
    }
    about = metadata(Catalog.load(""), seed=args.seed, requests=args.requests, clients=CLIENTS, limits=limits)
    write_atomically(args.out, json.dumps({"about": about, "engines": runs}, indent=1) + "\n")
    if any(run["violations"] for run in runs.values()):
        raise InputError(f"{args.out}: an answer was not as expected, see `violations`")


def fuzz(index: Path, engine: str, count: int, seed: int) -> dict[str, Any]:
    """The result of one server."""
    with ServingProcess(index, engine) as server:
        target = _target(server)
        requests = make_all(seed, count, target, slow=_SLOW_OF_EACH_KIND, uploads=_UPLOADS, bombs=_BOMBS)
        probes = {query: _probe(server, query) for query in _PROBES}
        before = server.memory_mb()
        checked = _Checked(probes)
        started = time.monotonic()
        _send_all(server, requests, checked)
        seconds = time.monotonic() - started
        time.sleep(_IDLE_SECONDS)
        for query in _PROBES:
            checked.probe(query, _probe(server, query))
        memory = {"before": before, "largest": server.largest_mb, "after": server.memory_mb()}
        code, stop_seconds = server.stop()
    if code:
        checked.violations.append(f"exit code {code} after SIGTERM")
    checked.violations += _log_violations(server.log.read_text("utf-8", "replace"), target)
    if memory["largest"] > before + MAX_GROWTH_MB:
        checked.violations.append(f"memory: {memory}")
    return {
        "requests": len(requests),
        "seconds": round(seconds, 1),
        "memory of all processes, MB": {name: round(value) for name, value in memory.items()},
        "seconds to stop": round(stop_seconds, 2),
        "searches with known results in between": checked.probes,
        "violations": checked.violations[:50],
        "kinds": checked.by_kind(),
    }


class _Checked:
    """Outcomes of requests, and what was wrong with them. Safe to call from several threads."""

    def __init__(self, expected: dict[str, "_Probe"]) -> None:
        self.violations: list[str] = []
        self.probes = 0
        self._expected = expected
        self._lock = threading.Lock()
        self._outcomes: dict[str, list[Outcome]] = collections.defaultdict(list)

    def add(self, request: FuzzRequest, outcome: Outcome) -> None:
        """Counts an outcome and checks it."""
        wrong = problem(request, outcome)
        with self._lock:
            self._outcomes[request.kind].append(outcome)
            if wrong:
                self.violations.append(f"{request.kind}: {wrong}; sent {request.data[:300]!r}")

    def probe(self, query: str, found: "_Probe") -> None:
        """Checks a search with a known result."""
        expected = self._expected[query]
        close = all(math.isclose(a, b, abs_tol=1e-5) for a, b in zip(found.scores, expected.scores, strict=False))
        with self._lock:
            self.probes += 1
            if sorted(found.ids) != sorted(expected.ids) or not close:
                self.violations.append(f"search for {query!r}: {found}, expected {expected}")

    def by_kind(self) -> dict[str, Any]:
        """Counts by status, and times, of each kind."""
        kinds = {}
        for kind, outcomes in sorted(self._outcomes.items()):
            statuses = collections.Counter(str(outcome.status or "closed") for outcome in outcomes)
            times = [1000 * outcome.seconds for outcome in outcomes]
            kinds[kind] = {
                "requests": len(outcomes),
                "statuses": dict(sorted(statuses.items())),
                "median ms": round(statistics.median(times), 1),
                "longest ms": round(max(times), 1),
            }
        return kinds


def problem(request: FuzzRequest, outcome: Outcome) -> str:
    """What is wrong with an outcome; "" if nothing is."""
    is_slow = request.behavior in SLOW or outcome.status == 408  # the rest of a body did not come
    limit = MAX_SLOW_SECONDS if is_slow else MAX_SECONDS
    if outcome.seconds > limit:
        return f"{outcome.seconds:.1f} s"
    if outcome.status is None:
        return "" if request.may_close else f"no answer ({outcome.error})"
    if outcome.status not in (request.expected | {503}):
        return f"status {outcome.status}, expected {sorted(request.expected)}: {outcome.body[:200]!r}"
    if outcome.status < 400 or request.method == "HEAD":
        return ""
    try:
        content = json.loads(outcome.body)
        row = CODES[content["code"]]
        expected = {"message": content["message"], "code": content["code"], "type": row.type}
        same = content == expected | {"link": f"/errors#{content['code']}"} and row.status == outcome.status
    except (ValueError, KeyError, TypeError):
        same = False
    return "" if same else f"an error in another form: {outcome.body[:200]!r}"


class _Probe(NamedTuple):
    """The result of a search."""

    ids: list[str]
    scores: list[float]


def _probe(server: ServingProcess, query: str) -> _Probe:
    content = server.get("/v1/search", q=query, limit="30", facets="*")
    return _Probe([hit["id"] for hit in content["hits"]], [hit["_rankingScore"] for hit in content["hits"]])


def _target(server: ServingProcess) -> Target:
    """Some ids and the attributes of the index."""
    hits = server.get("/v1/search", limit="50")["hits"]
    return Target(
        f"127.0.0.1:{server.port}", server.key, [hit["id"] for hit in hits], [*server.get("/v1/index")["attributes"]]
    )


def _send_all(server: ServingProcess, requests: list[FuzzRequest], checked: _Checked) -> None:
    """Sends usual requests from CLIENTS threads, and those of slow clients from others meanwhile."""

    def one(number: int, request: FuzzRequest) -> None:
        try:
            checked.add(request, send(("127.0.0.1", server.port), request, MAX_SLOW_SECONDS + 30))
            if number % _PROBE_EVERY == 0:
                query = random.Random(number).choice(_PROBES)
                checked.probe(query, _probe(server, query))
        except (OSError, http.client.HTTPException, ValueError) as error:
            checked.violations.append(f"{request.kind}: {type(error).__name__}: {error}")

    with ThreadPoolExecutor(CLIENTS) as usual, ThreadPoolExecutor(SLOW_CLIENTS) as slow:
        for number, request in enumerate(requests):
            (slow if request.behavior in SLOW else usual).submit(one, number, request)


def _log_violations(log: str, target: Target) -> list[str]:
    """Lines behind the start that are no JSON or have a traceback, and what was searched for."""
    lines = log.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("http://")) + 1
    found = []
    for line in lines[start:]:
        try:
            if "traceback" in json.loads(line):
                found.append(f"log: {line[:2000]}")
        except ValueError:
            if not line.startswith("stopped; answered"):
                found.append(f"log, no JSON: {line[:500]}")
    secrets = {"a text of a request": MARKER, "the key": target.key}
    return found[:20] + [f"log: has {name}" for name, text in secrets.items() if text and text in log]


if __name__ == "__main__":
    exit_cleanly(main)
