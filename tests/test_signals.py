"""Ctrl-C and SIGTERM of programs: one line, the exit code, no partial files, no child process that dies of them."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

START = """
import os, signal, subprocess, sys, threading, time
from pathlib import Path
from make_jax.signals import before_exit, block_in_thread, exit_on_signals, ignore_signals
"""


def run(code: str, *arguments: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a program; stdout is a pipe, which Python buffers."""
    command = [sys.executable, "-c", START + code, *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    ("number", "settings", "expected"),
    [
        (signal.SIGTERM, "", (143, "so far\n", "stopped by SIGTERM\n")),
        (signal.SIGINT, "", (130, "so far\n", "interrupted\n")),
        (signal.SIGTERM, "0, '; nothing'", (0, "so far\n", "stopped by SIGTERM; nothing\n")),
        (signal.SIGINT, "0, '; nothing'", (130, "so far\n", "interrupted; nothing\n")),
    ],
)
def test_a_signal_ends_the_process_with_one_line_and_writes_what_stdout_buffers(number, settings, expected):
    code = f"exit_on_signals({settings}); print('so far'); os.kill(os.getpid(), {int(number)}); time.sleep(30)"
    assert run(code) == expected


def test_partial_files_and_folders_are_removed_and_complete_ones_stay(tmp_path: Path) -> None:
    code = """
from make_jax.files import folder_atomically, removed_on_exit, write_atomically
exit_on_signals()
folder = Path(sys.argv[1])
write_atomically(folder / "file", "complete")
with folder_atomically(folder / "export") as new, removed_on_exit(lambda: folder / "temporary") as temporary:
    temporary.write_text("a")
    threading.Thread(target=lambda: [(new / str(i)).write_text("a") for i in range(10**6)], daemon=True).start()
    os.kill(os.getpid(), signal.SIGTERM)
    while new.exists():
        time.sleep(0.01)
"""
    assert run(code, str(tmp_path)) == (143, "", "stopped by SIGTERM\n")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_pipe_without_a_reader_does_not_keep_the_process_alive() -> None:
    code = "exit_on_signals(); threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGTERM)).start(); print('a' * 10**6)"
    code += "; ignore_signals()"
    with subprocess.Popen([sys.executable, "-c", START + code], cwd=ROOT, stdout=subprocess.PIPE) as process:
        assert process.wait(20) == 143


def test_an_ignored_signal_stays_ignored_and_either_the_end_of_a_program_or_a_signal_wins():
    code = "signal.signal(signal.SIGINT, signal.SIG_IGN); exit_on_signals(); os.kill(os.getpid(), signal.SIGINT); "
    assert run(code + "time.sleep(0.3); print('end')") == (0, "end\n", "")
    code = "before_exit(lambda: time.sleep(1)); exit_on_signals(); os.kill(os.getpid(), signal.SIGTERM); "
    assert run(code + "time.sleep(0.3); ignore_signals(); print('end')") == (143, "", "stopped by SIGTERM\n")
    code = "exit_on_signals(); ignore_signals(); os.kill(os.getpid(), signal.SIGTERM); time.sleep(0.3); print('end')"
    assert run(code) == (0, "end\n", "")


def test_children_of_a_thread_that_blocks_signals_outlive_them_and_forked_ones_get_the_default():
    code = """
import warnings
warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12: a fork of a process with threads
exit_on_signals()
def start():
    block_in_thread()
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1)"])
    time.sleep(0.2)
    child.terminate()
    print(child.wait())
thread = threading.Thread(target=start); thread.start(); thread.join()
if not (child := os.fork()):
    time.sleep(30)
time.sleep(0.2)
os.kill(child, signal.SIGTERM)
print(os.waitpid(child, 0)[1])
time.sleep(0.3)
"""
    assert run(code) == (0, f"0\n{int(signal.SIGTERM)}\n", "")


@pytest.mark.parametrize("command", [["train.py"], ["eval.py", "x"], ["-m", "make_jax.catalog", "check"]])
def test_programs_handle_signals_before_their_imports(command):
    """A program that is stopped while it imports anything slow."""
    code = f"""
import runpy
class Stop:
    def find_spec(self, name, *_):
        if name in ("tyro", "numpy", "pydantic", "jax"):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(30)
sys.meta_path.insert(0, Stop())
sys.argv = {command!r}
if sys.argv[0] == "-m":
    runpy.run_module(sys.argv.pop(1), run_name="__main__")
else:
    runpy.run_path(sys.argv[0], run_name="__main__")
"""
    saved = "; there was nothing to save" if command[0] == "train.py" else ""
    assert run(code) == (130, "", f"interrupted{saved}\n")


def test_the_line_of_an_import_states_that_it_resumes(tmp_path: Path) -> None:
    code = """
from make_jax.catalog.__main__ import main
from make_jax.catalog.importers import command
exit_on_signals()
command._import = lambda *_: (os.kill(os.getpid(), signal.SIGTERM), time.sleep(30))
main(["import", "table", sys.argv[1], sys.argv[1] + "-out"])
"""
    (tmp_path / "shop.csv").write_text("id,title\n1,red shirt\n")
    done = run(code, str(tmp_path / "shop.csv"))
    assert done == (143, "", "stopped by SIGTERM; the same command resumes the import\n")


def test_a_program_that_ends_with_its_worker_processes_prints_one_line() -> None:
    """The resource tracker of multiprocessing would warn of the semaphores of the pool, a second later."""
    code = """
from make_jax.catalog.executors import open_executor
if __name__ == "__main__":
    exit_on_signals()
    with open_executor(2) as executor:
        executor.submit(os.getpid)()
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(30)
"""
    assert run(code) == (143, "", "stopped by SIGTERM\n")
