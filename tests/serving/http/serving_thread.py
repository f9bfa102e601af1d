"""A server on a socket, in a thread."""

import contextlib
import threading
from collections.abc import Iterator

import pytest
from fastapi import FastAPI

from make_jax.errors import Terminated
from make_jax.serving.http import server


@contextlib.contextmanager
def serving(app: FastAPI) -> Iterator[tuple[str, int]]:
    """Yields the address of a server of an application, and stops it."""
    running: list[server._Server] = []
    started = threading.Event()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(server._Server, "capture_signals", lambda self: contextlib.nullcontext(running.append(self)))
        listener = server.listen("127.0.0.1", 0)

        def run() -> None:
            with contextlib.suppress(Terminated):
                server.run(app, listener, started.set, lambda: None)

        thread = threading.Thread(target=run)
        thread.start()
        assert started.wait(20)
        yield listener.getsockname()
        running[0].should_exit = True
        thread.join(20)
        assert not thread.is_alive()
