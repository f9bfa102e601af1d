"""Latency of the search server over HTTP, beside sentence-transformers MiniLM with FAISS behind FastAPI.

    python search.py index RUN CATALOG.zip INDEX
    python benchmarks/search/http_latency.py INDEX CATALOG.zip --folder WORK --peer-python PYTHON --peer-model MODEL

All servers run at the same time, and each round measures one after the other: one client that waits for each response,
then 32 clients at once. The load generator (`http_load.py`) is a process on the same cores; its share is in the result.
Requests are those of the page: a query, 24 products with the parts of their scores, counts of all attributes. Variants
add a filter of the page, or leave out `explain`. Queries are those of the catalog, its clicks and `--queries`; no
text is sent twice to a server, so that no cache can help. Responses are checked. `minilm_server.py` says what the
peer does; its settings (backend, threads, processes) are the best of those tried at the start, for each number of
clients. PYTHON has sentence-transformers[onnx], faiss-cpu, fastapi, uvicorn[standard] and orjson; MODEL is a folder of
all-MiniLM-L6-v2.
"""

import argparse
import contextlib
import itertools
import json
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the repository root

from benchmarks import RESULTS, ROOT
from benchmarks.common.processes import free_port
from make_jax.catalog.reader import Catalog
from make_jax.errors import InputError, exit_cleanly
from make_jax.files import write_atomically
from make_jax.runs.provenance import metadata

HERE = Path(__file__).resolve().parent
CLIENTS = (1, 32)
PAGE = {"limit": 24, "offset": 0, "explain": True, "facets": ["*"]}
_SETTINGS = ("backend", "threads", "processes")  # threads: of an operation
PEER_SETTINGS = [
    *itertools.product(("torch", "onnx"), (1, 2), (1,)),
    ("onnx", 1, 2),
]
_START_SECONDS = 900  # of a server, which may build its folder first
_WARM_UP = 50  # requests
_ADDRESS = re.compile(r"http://127\.0\.0\.1:(\d+)")


class Server:
    """A process that answers searches."""

    def __init__(self, command: list[str], log: Path, port: int | None, cwd: Path) -> None:
        """`port` None: the one that it logs."""
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
        with log.open("wb") as file:
            self._process = subprocess.Popen(command, cwd=cwd, env=environment, stdout=file, stderr=file)
        self._log, self._name = log, " ".join(command[1:4])
        self.port = self._wait(port)

    def _wait(self, port: int | None) -> int:
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            if port is None and (found := _ADDRESS.search(self._log.read_text("utf-8", "replace"))):
                return int(found[1])
            if port is not None and load(port, ['{"q": "red"}'], 1)["last"]:
                return port
            time.sleep(0.5)
        self.close()
        raise InputError(f"{self._name} did not start; its log is {self._log}")

    def processor_seconds(self) -> float:
        """Processor time of the process and its children so far."""
        times = [process.cpu_times() for process in self._processes()]
        return sum(one.user + one.system for one in times)

    def memory_bytes(self) -> int:
        """Private memory of the process and its children: without mapped files and shared pages."""
        return sum(process.memory_full_info().uss for process in self._processes())

    def _processes(self) -> list[psutil.Process]:
        process = psutil.Process(self._process.pid)
        return [process, *process.children(recursive=True)]

    def close(self) -> None:
        """Ends the process."""
        self._process.terminate()
        self._process.wait(timeout=60)


def load(port: int, bodies: list[str], clients: int, seconds: float = 60.0) -> dict[str, Any]:
    """What the load generator measured."""
    job = {"port": port, "bodies": bodies, "clients": clients, "seconds": seconds}
    command = [sys.executable, str(HERE / "http_load.py")]
    done = subprocess.run(command, input=json.dumps(job), capture_output=True, text=True, check=False)
    if done.returncode:
        return {"last": "", "errors": [done.stderr[-500:]]}
    return json.loads(done.stdout)


class Queries:
    """Texts, each of which is taken once."""

    def __init__(self, catalog: Catalog, files: list[Path], seed: int) -> None:
        texts = {click.query for click in catalog.clicks} | {query.text for query in catalog.queries}
        for file in files:
            texts |= {json.loads(line)["text"] for line in file.read_text("utf-8").splitlines()}
        ordered = sorted(texts)
        np.random.default_rng([seed, 0]).shuffle(ordered)
        self.count = len(ordered)
        self._texts = iter(ordered)

    def take(self, count: int) -> list[str]:
        """The next `count` texts. Raises InputError if there are not that many."""
        taken = list(itertools.islice(self._texts, count))
        if len(taken) < count:
            raise InputError(f"the catalog has {self.count:,} queries, expected more: set fewer --rounds or --seconds")
        return taken


class Variants:
    """The bodies of requests."""

    def __init__(self, catalog: Catalog, seed: int) -> None:
        self._products = catalog.products
        self._rng = np.random.default_rng([seed, 1])

    def body(self, text: str, variant: str) -> str:
        """A request as the page sends it."""
        request = {"q": text, "filter": self._filter() if variant == "filtered" else [], **PAGE}
        if variant == "without explain":
            request["explain"] = False
        return json.dumps(request, ensure_ascii=False)

    def _filter(self) -> list[list[str]]:
        """A value that a random product has, so that frequent values are chosen often."""
        product = self._products[int(self._rng.integers(len(self._products)))]
        name = str(self._rng.choice(sorted(product.attributes)))
        value = product.attributes[name]
        value = str(self._rng.choice(value)) if isinstance(value, tuple) else value
        quoted = str(value).replace("\\", "\\\\").replace('"', '\\"')
        return [[f'"{name}" = "{quoted}"']]


def peer_command(options: argparse.Namespace, settings: tuple[str, int, int], port: int) -> list[str]:
    """The command of the peer."""
    backend, threads, workers = settings
    paths = [options.peer_python, str(HERE / "minilm_server.py"), options.peer_model, options.catalog]
    words = ["--backend", backend, "--threads", str(threads), "--workers", str(workers), "--port", str(port)]
    return [*paths, str(options.folder), *words]


def start_peer(options: argparse.Namespace, settings: tuple[str, int, int]) -> Server:
    """The peer, ready."""
    port = free_port()
    log = options.folder / f"minilm-{'-'.join(map(str, settings))}.log"
    return Server(peer_command(options, settings, port), log, port, HERE)


def start_ours(options: argparse.Namespace, engine: str) -> Server:
    """`search.py serve`, ready."""
    command = [sys.executable, "search.py", "serve", str(options.index), "--port", "0", "--engine", engine]
    command += ["--onnx", str(options.onnx)] if options.onnx else []
    return Server(command, options.folder / f"{engine}.log", None, ROOT)


def tune_peer(options: argparse.Namespace, queries: Queries, variants: Variants) -> list[dict[str, Any]]:
    """Latency of one client and rate of 32 for each setting of the peer."""
    tried = []
    for settings in PEER_SETTINGS:
        server = start_peer(options, settings)
        try:
            row: dict[str, Any] = dict(zip(_SETTINGS, settings, strict=True))
            load(server.port, [variants.body(text, "page") for text in queries.take(_WARM_UP)], 4)
            for clients in CLIENTS:
                seconds = options.seconds / 3
                texts = queries.take(int(seconds * options.most_per_second * (1 if clients > 1 else 0.5)))
                measured = load(server.port, [variants.body(text, "page") for text in texts], clients, seconds)
                row[f"{clients} clients"] = summary([measured], 24)
            tried.append(row)
            print(json.dumps(row), flush=True)
        finally:
            server.close()
    return tried


def best_settings(tried: list[dict[str, Any]]) -> dict[int, tuple[str, int, int]]:
    """The settings for each number of clients: by p50 for one, by rate for several."""
    fastest = min(tried, key=lambda row: row["1 clients"]["p50"])
    most = max(tried, key=lambda row: row["32 clients"]["queries_per_second"])
    return {clients: tuple(row[name] for name in _SETTINGS) for clients, row in ((1, fastest), (32, most))}


def summary(measured: list[dict[str, Any]], hits: int | None) -> dict[str, Any]:
    """Percentiles in ms, rate, errors and the shares of the processors, of one round or of several together.

    `hits` is the expected number of a page, None: a filter may leave fewer.
    """
    for one in measured:
        page = json.loads(one["last"]) if one["last"] else {"hits": []}
        if not page["hits"] or (hits is not None and len(page["hits"]) != hits) or not page["facetDistribution"]:
            raise InputError(f"the last response is no page of results: {one['last'][:200]} {one['errors'][:1]}")
    seconds = np.concatenate([one["seconds"] for one in measured])
    elapsed = sum(one["elapsed"] for one in measured)
    found: dict[str, Any] = {f"p{p}": round(float(np.percentile(seconds, p)) * 1e3, 2) for p in (50, 90, 99)}
    found |= {
        "queries": len(seconds),
        "queries_per_second": round(len(seconds) / elapsed, 1),
        "errors": sum(len(one["errors"]) for one in measured),
        "bytes": round(sum(one["bytes"] for one in measured) / len(seconds)),
        "client_cores": round(sum(one["processor_seconds"] for one in measured) / elapsed, 3),
    }
    if "server_seconds" in measured[0]:
        found["server_cores"] = round(sum(one["server_seconds"] for one in measured) / elapsed, 2)
    return found


class Case:
    """One system, variant and number of clients, with a measurement for each round."""

    def __init__(self, system: str, server: Server, variant: str, clients: int) -> None:
        self.system, self.server, self.variant, self.clients = system, server, variant, clients
        self.measured: list[dict[str, Any]] = []

    def run(self, bodies: list[str], seconds: float) -> None:
        """Measures one round."""
        before = self.server.processor_seconds()
        measured = load(self.server.port, bodies, self.clients, seconds)
        self.measured.append(measured | {"server_seconds": self.server.processor_seconds() - before})

    def row(self) -> dict[str, Any]:
        """The medians and ranges of the rounds, and the percentiles of all requests together."""
        hits = None if self.variant == "filtered" else PAGE["limit"]
        rounds = [summary([one], hits) for one in self.measured]
        spread = {
            name: {"median": statistics.median(r[name] for r in rounds), "rounds": [r[name] for r in rounds]}
            for name in ("p50", "p90", "p99", "queries_per_second")
        }
        total = summary(self.measured, hits)
        kept = ("queries", "errors", "bytes", "client_cores", "server_cores")
        return {
            "system": self.system,
            "request": self.variant,
            "clients": self.clients,
            **spread,
            **{name: total[name] for name in kept},
            "error_texts": sorted({text for one in self.measured for text in one["errors"]})[:5],
        }


def measure(options: argparse.Namespace, queries: Queries, variants: Variants) -> dict[str, Any]:
    """All measurements."""
    with contextlib.ExitStack() as stack:

        def kept(server: Server) -> Server:
            stack.callback(server.close)
            return server

        ours = {engine: kept(start_ours(options, engine)) for engine in options.engines}
        tried = tune_peer(options, queries, variants) if options.peer_python else []
        chosen = best_settings(tried) if tried else {}
        peers = {settings: kept(start_peer(options, settings)) for settings in set(chosen.values())}
        cases = list(_cases(ours, {clients: peers[settings] for clients, settings in chosen.items()}))
        for case in {id(case.server): case for case in cases}.values():
            load(case.server.port, [variants.body(text, "page") for text in queries.take(_WARM_UP)], 4)
        for number in range(options.rounds):
            _round(options, cases, queries, variants)
            print(f"round {number + 1} of {options.rounds}, load {os.getloadavg()[0]:.1f}", file=sys.stderr, flush=True)
        memory = {case.system: case.server.memory_bytes() for case in cases}
        return {
            "peer_settings": {clients: dict(zip(_SETTINGS, chosen[clients], strict=True)) for clients in chosen},
            "peer_settings_tried": tried,
            "memory_bytes": memory,
            "rows": [case.row() for case in cases],
        }


def _cases(ours: dict[str, Server], peers: dict[int, Server]) -> Iterator[Case]:
    """Of one variant and number of clients all systems follow each other."""
    for clients in CLIENTS:
        for variant in ("page", "filtered", "without explain"):
            for engine, server in ours.items():
                yield Case(f"make_jax, {engine}", server, variant, clients)
            if peers and variant != "without explain":  # the peer explains nothing
                yield Case("MiniLM + FAISS", peers[clients], variant, clients)


def _round(options: argparse.Namespace, cases: list[Case], queries: Queries, variants: Variants) -> None:
    """One measurement of each case; those of one variant and number of clients get the same requests."""
    for (variant, clients), group in itertools.groupby(cases, key=lambda case: (case.variant, case.clients)):
        count = options.requests if clients == 1 else int(options.seconds * options.most_per_second)
        bodies = [variants.body(text, variant) for text in queries.take(count)]
        for case in group:
            case.run(bodies, 600.0 if clients == 1 else options.seconds)


def main() -> None:
    """Measures, and writes the result file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("index", type=Path, help="folder that search.py index wrote")
    parser.add_argument("catalog", help="the catalog of the index, a .zip")
    parser.add_argument("--folder", type=Path, required=True, help="receives logs and the peer's vectors")
    parser.add_argument("--queries", type=Path, nargs="*", default=[], help="further queries, JSON lines with text")
    parser.add_argument("--engines", nargs="*", default=["flat", "edge"])
    parser.add_argument("--onnx", default="", help="folder of `convert.py export --to onnx` of the run")
    parser.add_argument("--peer-python", default="", help='a Python with the peer\'s packages; "": without the peer')
    parser.add_argument("--peer-model", default="", help="a folder of all-MiniLM-L6-v2")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--requests", type=int, default=300, help="of one client in a round")
    parser.add_argument("--seconds", type=float, default=8.0, help="of 32 clients in a round")
    parser.add_argument("--most-per-second", type=int, default=350, help="queries that are set aside for 32 clients")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS / "search-latency.json")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    catalog = Catalog.load(options.catalog)
    queries = Queries(catalog, options.queries, options.seed)
    about = metadata(
        catalog,
        seed=options.seed,
        command="python benchmarks/search/http_latency.py INDEX CATALOG.zip --folder WORK --peer-python PYTHON",
        cores=os.cpu_count(),
        load_at_start=round(os.getloadavg()[0], 2),
    )
    result = measure(options, queries, Variants(catalog, options.seed))
    settings = {"rounds": options.rounds, "requests_of_one_client": options.requests, "seconds": options.seconds}
    settings |= {"products": len(catalog.products), "queries": queries.count}
    about["load_at_end"] = round(os.getloadavg()[0], 2)
    write_atomically(options.out, json.dumps({"about": about, **settings, **result}, indent=1) + "\n")


if __name__ == "__main__":
    exit_cleanly(main)
