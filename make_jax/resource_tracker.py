"""The process of the standard library that frees what worker processes share, without its warnings."""

import os
from multiprocessing import resource_tracker


def start_resource_tracker() -> None:
    """Starts the process of the standard library that frees semaphores and shared memory after a process has ended.

    Call it before anything that starts worker processes. It would start with the first of them: without the variable,
    which silences its warning of what it frees after a signal, and its start would undo `signals.block_in_thread`,
    which workers inherit. Once started, it stays as it is.
    """
    before = os.environ.get("PYTHONWARNINGS")
    os.environ["PYTHONWARNINGS"] = ",".join([*([before] if before else []), "ignore:resource_tracker:UserWarning"])
    try:
        resource_tracker.ensure_running()
    finally:
        del os.environ["PYTHONWARNINGS"]
        if before is not None:
            os.environ["PYTHONWARNINGS"] = before
