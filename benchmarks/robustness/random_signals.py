"""SIGTERM and Ctrl-C at random instants of the first minute of train.py, for `kill_matrix.py`.

Even numbers are SIGTERM to the process, odd ones Ctrl-C to its process group, as terminals send it. Every second pair
has two data workers. Instants are uniform over 60 s, counted from the installation of the handler in the first lines of
train.py: before it the operating system's default applies. A shot that is done is not repeated.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import ROOT
from benchmarks.robustness.kill_runs import (
    RECIPE,
    TIMEOUT,
    PromiseBroken,
    checkpoints,
    expect,
    handles_sigterm,
    last_logged_step,
    newest,
    run_environment,
)
from make_jax.catalog.build import build as build_catalog
from make_jax.files import PARTIAL, folder_digest, write_atomically

FIRST = 60.0  # seconds from which instants are drawn
AT_ONCE_LIMIT, SAVED_LIMIT = 5.0, 30.0  # seconds to the exit, before and after the first step
PARALLEL = 3  # starts at a time
NEVER_ENDS = ["--train.steps", "1000000", "--train.eval-every", "0", "--train.save-every", "20"]


@dataclass
class RandomSignals:
    """`count` signals in the folder `work`; `cached`: compiled programs and the built catalog exist."""

    work: Path
    count: int
    seed: int
    cached: bool

    def __call__(self) -> str:
        """Sends all signals and returns what was observed; raises PromiseBroken with all failures."""
        if self.cached and not (self.work / "warm").exists():
            self._warm_up()
        with ThreadPoolExecutor(PARALLEL) as pool:
            shots = list(pool.map(self._recorded, range(self.count)))
        broken = [f"{k}: {shot['broken']}" for k, shot in enumerate(shots) if shot["broken"]]
        if broken:
            raise PromiseBroken(f"{len(broken)} of {self.count}: {'; '.join(broken)}")
        resumed = sum("build_resumed" in shot for shot in shots)
        before, after = ([s["seconds"] for s in shots if (s["saved"] > 0) == saved] for saved in (False, True))
        seen = f"{self.count} times one line and exit code 0 or 130: {len(before)} before the first step"
        seen += f" within {max(before, default=0):.1f} s" if before else ""
        seen += f", {len(after)} after it, saved within {max(after):.1f} s" if after else ""
        return seen + (f"; {resumed} in a build, completed later to the same bytes" if resumed else "")

    def _warm_up(self) -> None:
        """Builds the catalog and compiles the step, which depends on all options."""
        run = self.work / "first"
        process = self._start(run, NEVER_ENDS, self.work / "first.txt")
        end = time.monotonic() + TIMEOUT
        while not last_logged_step(run) and process.poll() is None and time.monotonic() < end:
            time.sleep(0.5)
        process.terminate()
        expect(process.wait(TIMEOUT) == 0 and newest(run) > 0, (self.work / "first.txt").read_text()[-300:])
        (self.work / "warm").touch()

    def _recorded(self, k: int) -> dict[str, Any]:
        """The record of shot `k`, from the file of an earlier start if it is there and was kept."""
        file = self.work / f"{k}.json"
        if file.exists() and not json.loads(file.read_text())["broken"]:
            return dict(json.loads(file.read_text()))
        shot = self._shot(k)
        write_atomically(file, json.dumps(shot) + "\n")
        return shot

    def _shot(self, k: int) -> dict[str, Any]:
        number = (signal.SIGTERM, signal.SIGINT)[k % 2]
        instant = float(np.random.default_rng([self.seed, k, self.cached]).uniform(0, FIRST))
        folder = self.work / str(k)
        shutil.rmtree(folder, ignore_errors=True)
        run, errors = folder / "run", self.work / f"{k}.txt"
        process = self._start(run, [*NEVER_ENDS, "--data.workers", "2" if k % 4 > 1 else "0"], errors)
        shot = {"number": number.name, "instant": round(instant, 3), "seconds": 0.0, "saved": 0, "broken": ""}
        try:
            while not handles_sigterm(process.pid):
                time.sleep(0.001)
            time.sleep(instant)
            expect(process.poll() is None, f"ended by itself: {errors.read_text()[-300:]!r}")
            began = time.monotonic()
            (os.killpg if number == signal.SIGINT else os.kill)(process.pid, number)
            code = process.wait(TIMEOUT)
            shot["seconds"] = round(time.monotonic() - began, 2)
            self._check(shot, code, process.pid, run, errors.read_text(errors="replace"))
        except (PromiseBroken, subprocess.TimeoutExpired) as error:
            shot["broken"] = str(error)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
        if not shot["broken"]:
            shutil.rmtree(folder, ignore_errors=True)
        return shot

    def _check(self, shot: dict[str, Any], code: int, group: int, run: Path, errors: str) -> None:
        """Raises PromiseBroken unless everything that docs/checkpoints.md states is true after a shot."""
        seen = f"{shot['number']} after {shot['instant']} s: exit code {code} in {shot['seconds']} s, {errors[-300:]!r}"
        word, expected = ("stopped by SIGTERM", 0) if shot["number"] == "SIGTERM" else ("interrupted", 130)
        lines = [line for line in errors.splitlines() if "\N{BOX DRAWINGS HEAVY HORIZONTAL}" not in line]
        expect(code == expected and len(lines) == 1 and lines[0].startswith(word), seen)
        shot["saved"] = newest(run)
        text = f"step {shot['saved']} is saved" if shot["saved"] else "there was nothing to save"
        expect(text in lines[0], f"{seen}; saved {shot['saved']}")
        expect(shot["seconds"] <= (SAVED_LIMIT if shot["saved"] else AT_ONCE_LIMIT), seen)
        build = next(run.parent.glob(f"catalog/{PARTIAL}*"), None)  # the next start goes on with it
        partial = [str(path) for path in run.parent.rglob(f"*{PARTIAL}*") if build not in (path, *path.parents)]
        expect(not partial and not any(checkpoints(run).values()), f"{seen}; half-written: {partial}")
        end = time.monotonic() + 5
        while (left := _alive(group)) and time.monotonic() < end:
            time.sleep(0.1)
        expect(not left, f"{seen}; processes left: {left}")
        if build is not None:
            shot["build_resumed"] = True
            self._resume_build(build, seen)

    def _resume_build(self, partial: Path, seen: str) -> None:
        """Completes an interrupted build, which must keep what it has and equal the build of another shot."""
        written = {path.name: path.stat().st_mtime_ns for path in _complete_files(partial)}
        built = build_catalog("", str(partial.parent)).folder
        now = {path.name: path.stat().st_mtime_ns for path in _complete_files(built)}
        expect(written.items() <= now.items(), f"{seen}; files of the interrupted build were written again")
        undisturbed = build_catalog("", str(self.work / "undisturbed")).folder
        expect(folder_digest(built) == folder_digest(undisturbed), f"{seen}; the completed build has other bytes")

    def _catalog(self, run: Path) -> Path:
        return self.work / "catalog" if self.cached else run.parent / "catalog"

    def _start(self, run: Path, options: list[str], errors: Path) -> "subprocess.Popen[bytes]":
        """Starts train.py in a process group of its own, with stderr in the file `errors`."""
        run.parent.mkdir(parents=True, exist_ok=True)
        environment = run_environment(self.work)
        if not self.cached:
            del environment["JAX_COMPILATION_CACHE_DIR"]
        command = [sys.executable, str(ROOT / "train.py"), "--config", str(RECIPE), "--run", str(run), *options]
        command += ["--data.cache", str(self._catalog(run))]
        with errors.open("wb") as file:
            return subprocess.Popen(
                command, env=environment, stdout=subprocess.DEVNULL, stderr=file, start_new_session=True
            )


def _complete_files(build: Path) -> list[Path]:
    """The columns and shards in the folder of a build that are complete."""
    return [path for path in build.rglob("*.a*") if path.is_file() and not path.name.startswith(PARTIAL)]


def _alive(group: int) -> list[str]:
    """The commands of the processes of a group, without zombies."""
    found = subprocess.run(["ps", "-A", "-o", "pgid=,stat=,args="], capture_output=True, text=True, check=True).stdout
    rows = (line.split(maxsplit=2) for line in found.splitlines())
    return [row[2] for row in rows if len(row) == 3 and row[0] == str(group) and not row[1].startswith("Z")]
