"""Runs, embeddings and reports of `eval` in object stores: downloaded before, uploaded during and after."""

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from make_jax.cli.options import EvalOptions
from make_jax.errors import InputError
from make_jax.object_stores import EMBEDDINGS, REPORT, RUN, Mirror, is_url
from make_jax.runs.run_store import EVALUATIONS, pull_run

_UPLOAD_SECONDS = 30.0  # between uploads of embeddings


@contextlib.contextmanager
def evaluation_stores(options: EvalOptions) -> Iterator[EvalOptions]:
    """Yields the options with local paths in place of URLs; uploads embeddings during the block, reports after it."""
    report = _report_store(options.out) if is_url(options.out) else None
    with contextlib.ExitStack() as uploads:
        local = options
        if is_url(options.model):
            local = replace(local, model=str(pull_run(options.model)))
        if is_url(options.embeddings):
            embeddings = Mirror(options.embeddings, EMBEDDINGS)
            embeddings.pull()
            uploads.enter_context(_uploaded_regularly(embeddings))
            local = replace(local, embeddings=str(embeddings.path))
        if report is not None:
            local = replace(local, out=str(report.path))
        yield local
    if options.only_embed:
        return
    if report is not None:
        report.push(delete=True)
        print(f"uploaded: {report.url}")
    elif is_url(options.model):
        Mirror(options.model, RUN).push(lambda name: name.startswith(EVALUATIONS), delete=True)


def pull_report(path: str) -> str:
    """The local folder of a report; of a URL, its mirror, to which it is downloaded."""
    if not is_url(path):
        return path
    mirror = Mirror(path, REPORT)
    if not mirror.pull(exact=True):
        raise InputError(f"{path}: no complete report there, expected one that eval.py wrote")
    return str(mirror.path)


def _report_store(url: str) -> Mirror:
    """The mirror for a report. Raises InputError when the store has other files there, as for a local folder."""
    mirror = Mirror(url, REPORT)
    if (name := mirror.foreign()) is not None:
        what = f"contains {name}, which is no part of a report" if name else "is a file"
        raise InputError(f"{url}: {what}; choose a new name for the report")
    return mirror


@contextlib.contextmanager
def _uploaded_regularly(mirror: Mirror) -> Iterator[Path]:
    """Uploads the mirror every half minute in a thread, and at the end of the block, which a failed upload fails."""
    ended = threading.Event()
    failures: list[InputError] = []

    def upload() -> None:
        while not failures and not ended.wait(_UPLOAD_SECONDS):
            try:
                mirror.push()
            except InputError as error:
                failures.append(error)

    thread = threading.Thread(target=upload, name="upload", daemon=True)
    thread.start()
    try:
        yield mirror.path
    finally:
        ended.set()
        thread.join()
    mirror.push()
