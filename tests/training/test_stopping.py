"""Ctrl-C and SIGTERM: exit at once while nothing can be lost, at the next poll afterwards."""

import os
import signal
import subprocess
import sys
import textwrap

import pytest

from make_jax.errors import Terminated
from make_jax.training.stopping import StopRequested, stop_on_signals
from tests.conftest import ROOT


def send(number: int) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize(("number", "error"), [(signal.SIGTERM, Terminated), (signal.SIGINT, KeyboardInterrupt)])
def test_before_the_first_step_a_signal_exits_at_once(number, error):
    with pytest.raises(error), stop_on_signals():
        send(number)


@pytest.mark.parametrize(("number", "error"), [(signal.SIGTERM, Terminated), (signal.SIGINT, KeyboardInterrupt)])
def test_after_a_step_a_signal_is_noticed_at_the_next_poll(number, error):
    with stop_on_signals() as stop:
        stop.has_stepped = True
        stop.raise_if_stopping()
        assert not stop.should_stop()
        send(number)
        assert stop.should_stop()
        with pytest.raises(StopRequested):
            stop.raise_if_stopping()
        assert stop.should_stop()
        with pytest.raises(error):
            stop.raise_stopped("step 3 is saved")


def test_a_second_ctrl_c_does_not_wait_and_a_second_sigterm_does():
    with stop_on_signals() as stop:
        stop.has_stepped = True
        send(signal.SIGTERM)
        send(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGINT)


def test_previous_handlers_are_restored():
    previous = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with stop_on_signals():
        pass
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == previous
    assert signal.set_wakeup_fd(-1) == -1


def test_sigterm_exits_at_once_inside_native_code_before_the_first_step():
    program = textwrap.dedent(
        """
        import hashlib, os, signal, threading
        from make_jax.training import stopping
        stopping._SECONDS_TO_UNWIND = 0.2
        with stopping.stop_on_signals():
            threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM)).start()
            hashlib.pbkdf2_hmac("sha256", b"", b"", (1 << 31) - 1)  # like a compilation: long native code
        """
    )
    result = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert (result.returncode, result.stderr) == (
        0,
        "stopped by SIGTERM before the first step; there was nothing to save\n",
    )
