"""Ctrl-C and SIGTERM: the process ends at once while nothing can be lost, at the next poll afterwards."""

import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from make_jax.errors import Terminated
from make_jax.training.stopping import StopRequested, stop_on_signals
from tests.conftest import ROOT

BOTH = pytest.mark.parametrize(
    ("number", "code", "word"), [(signal.SIGTERM, 0, "stopped by SIGTERM"), (signal.SIGINT, 130, "interrupted")]
)


def send(number: int) -> None:
    os.kill(os.getpid(), number)


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
        with pytest.raises(error, match="step 3 is saved; the same command resumes from there"):
            stop.end(3)
        with pytest.raises(error, match="there was nothing to save"):
            stop.end(0)


def test_outside_of_a_program_a_signal_that_the_loop_does_not_take_does_what_it_did_before():
    received = []
    previous = signal.signal(signal.SIGTERM, lambda *_: received.append("SIGTERM"))
    try:
        with stop_on_signals() as stop:
            send(signal.SIGTERM)
            assert received == ["SIGTERM"] and not stop.should_stop()
        with pytest.raises(KeyboardInterrupt), stop_on_signals():
            send(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt), stop_on_signals() as stop:
            stop.has_stepped = True
            send(signal.SIGTERM)
            send(signal.SIGTERM)
            send(signal.SIGINT)
            assert stop.should_stop()
            send(signal.SIGINT)  # the second one does not wait
    finally:
        signal.signal(signal.SIGTERM, previous)
    assert received == ["SIGTERM"]


def test_previous_handlers_are_restored():
    previous = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with stop_on_signals():
        pass
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == previous


def ended(inside: str) -> tuple[int, str]:
    """Exit code and stderr of a program that executes `inside` in the block of a run."""
    program = f"""
import gc, hashlib, os, signal, sys, threading, time
from make_jax.signals import exit_on_signals
exit_on_signals(0, "; there was nothing to save")
from make_jax.training.stopping import stop_on_signals

def later(*numbers):
    for i, number in enumerate(numbers):
        threading.Timer(0.1 + 0.2 * i, os.kill, (os.getpid(), number)).start()

with stop_on_signals() as stop:
{textwrap.indent(textwrap.dedent(inside), "    ")}
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=100)
    return done.returncode, done.stderr


@BOTH
def test_a_program_ends_at_once_inside_native_code_before_the_first_step(number, code, word):
    """The native call is as long as a compilation, and Python runs no handler in it."""
    native = 'hashlib.pbkdf2_hmac("sha256", b"", b"", (1 << 31) - 1)'
    line = f"{word} before the first step; there was nothing to save\n"
    assert ended(f"later({int(number)}); {native}") == (code, line)


@BOTH
def test_a_program_ends_in_a_callback_of_the_garbage_collector_that_swallows_exceptions(number, code, word):
    inside = f"""
    gc.callbacks.append(lambda *_: (os.kill(os.getpid(), {int(number)}), time.sleep(30)))
    gc.collect()
    """
    assert ended(inside) == (code, f"{word} before the first step; there was nothing to save\n")


def test_after_a_step_a_program_goes_on_and_only_a_second_ctrl_c_ends_it():
    inside = """
    stop.has_stepped = True
    later(signal.SIGTERM, signal.SIGTERM, signal.SIGINT)
    time.sleep(1.5)
    print(stop.should_stop(), file=sys.stderr, flush=True)
    later(signal.SIGINT)
    time.sleep(30)
    """
    assert ended(inside) == (
        130,
        "True\ninterrupted again; steps since the last checkpoint are not saved; the same command resumes from there\n",
    )


@BOTH
def test_a_stopped_program_ends_without_waiting_for_its_workers_or_for_the_exit_of_python(number, code, word):
    inside = f"""
    import atexit
    from make_jax.signals import before_exit
    atexit.register(time.sleep, 60)
    threading.Thread(target=time.sleep, args=(60,)).start()
    before_exit(lambda: os.write(2, b"cleaned"))
    print("progress", flush=True)
    stop.has_stepped = True
    later({int(number)})
    while not stop.should_stop():
        time.sleep(0.05)
    stop.end(3)
    """
    line = f"{word}; step 3 is saved; the same command resumes from there\n"
    started = time.monotonic()
    assert ended(inside) == (code, line)
    assert time.monotonic() - started < 50
