"""Keeps off the terminal what libraries print of a failed background save, which we say in one line."""

import logging
import os
import sys
from collections.abc import Callable
from types import TracebackType
from typing import Any


def silence_late_tracebacks() -> None:
    """Orbax, asyncio and TensorStore no longer print tracebacks of a save that is raised to its caller later."""
    logging.getLogger("absl").addFilter(_not_from_orbax)
    logging.getLogger("asyncio").addFilter(_not_from_tensorstore)
    if not isinstance(sys.excepthook, _NotFromLateWrite):
        sys.excepthook = _NotFromLateWrite(sys.excepthook)
    if not isinstance(sys.unraisablehook, _NotUnraisable):
        sys.unraisablehook = _NotUnraisable(sys.unraisablehook)


def _not_from_orbax(record: logging.LogRecord) -> bool:
    return f"orbax{os.sep}checkpoint" not in record.pathname


def _not_from_tensorstore(record: logging.LogRecord) -> bool:
    return "OCDBT" not in record.getMessage()


def _is_late_write(kind: type[BaseException], error: BaseException | None) -> bool:
    """What TensorStore raises in its threads when a write ends after the one that failed has ended the loop."""
    return kind is RuntimeError and str(error) == "Event loop is closed"


class _NotFromLateWrite:
    """An excepthook without late writes; TensorStore comes here or to the next one, by its version and Python's."""

    def __init__(self, before: Callable[[type[BaseException], BaseException, TracebackType | None], Any]):
        self.before = before

    def __call__(self, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if not _is_late_write(kind, error):
            self.before(kind, error, trace)


class _NotUnraisable:
    """The same of what is raised where nobody can catch it."""

    def __init__(self, before: Callable[[Any], Any]):
        self.before = before

    def __call__(self, raised: Any) -> None:
        if not _is_late_write(raised.exc_type, raised.exc_value):
            self.before(raised)
