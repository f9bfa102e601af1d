"""Kills, damages and starves real runs of train.py, resumes them and compares them with undisturbed runs.

    python benchmarks/robustness/kill_matrix.py [--kills 20] [--seed 0] [--work FOLDER] [--out FILE]

Every row is a promise: no intact checkpoint is lost, the same batches are read, losses, gradients and the last
parameters are the same bit for bit on the same devices; on other devices, without dropout, the losses within 1e-5 over
20 steps. The same command skips rows that are done; a new `--work` folder does them all. Exit code 1 when a promise was
not kept.
"""

import argparse
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the repository root

import numpy as np

from benchmarks import ROOT
from benchmarks.common import processes as local_processes
from benchmarks.robustness.kill_runs import (
    RECIPE,
    TIMEOUT,
    PromiseBroken,
    Run,
    checkpoints,
    expect,
    expect_same,
    largest,
    last_logged_step,
    logged_values,
    mount_tmpfs,
    newest,
    run_environment,
    saving,
    unmount,
)
from benchmarks.robustness.random_signals import RandomSignals
from make_jax.catalog.reader import Catalog
from make_jax.errors import InputError, exit_cleanly
from make_jax.files import write_atomically
from make_jax.runs.failure_detection import EXIT_PEER_LOST
from make_jax.runs.provenance import metadata
from make_jax.training.loop import COMPILING, FITTING

GRACE = 30.0  # seconds from SIGTERM to the end
STEPS, EVAL = 40, 20
OPTIONS = tuple(f"--train.steps {STEPS} --train.eval-every {EVAL} --train.save-every 10 --train.max-to-keep 4".split())
# The same run: how often it saves changes no result.
FREQUENT_SAVES = (*OPTIONS[:4], *["--train.save-every", "3", "--train.max-to-keep", "3"])
WITHOUT_DROPOUT = (
    *["--train.steps", "20", "--train.eval-every", "0", "--train.save-every", "5", "--train.max-to-keep", "4"],
    *["--model.query.dropout", "0", "--model.title.dropout", "0", "--model.keyword-dims", "0"],
    *["--model.adaptation.weights", "gate"],
)
Row = Callable[[], str]  # runs one experiment and returns what was observed


class NotRunnable(Exception):  # noqa: N818
    """A row that this machine cannot run; the message states why."""


@dataclass
class Matrix:
    """The rows of the matrix, run in the folder `work`."""

    work: Path
    kills: int
    seed: int

    def rows(self) -> dict[str, Row]:
        """Returns all rows in order; the first ones are the references of the others."""
        kills = {f"SIGKILL {k + 1}": partial(self.kill, k) for k in range(self.kills)}
        return {
            "undisturbed": partial(self.undisturbed, "undisturbed", OPTIONS),
            **kills,
            "to the end after the kills": self.after_kills,
            **{f"SIGTERM in {moment}": partial(self.end_early, moment) for moment in ("import", "compilation")},
            **{f"SIGTERM in {moment}": partial(self.stop, moment) for moment in ("step", "save")},
            "50 signals in the first minute": RandomSignals(self.work / "signals-cached", 50, self.seed, cached=True),
            "50 more, nothing cached": RandomSignals(self.work / "signals", 50, self.seed, cached=False),
            "Ctrl-C": partial(self.stop, "step", signal.SIGINT),
            **{f"SIGTERM in {moment}": partial(self.stop, moment) for moment in ("evaluation", "fit")},
            "to the end after the signals": self.after_stops,
            "truncated checkpoint": partial(self.damage, "truncated"),
            "bit-flipped checkpoint": partial(self.damage, "flipped"),
            "disk full before a save": partial(self.full_disk, 0.0),
            "disk full during a save": partial(self.full_disk, 0.5),
            "write that fails during a save": self.failing_write,
            "undisturbed, without dropout": partial(self.undisturbed, "without-dropout", WITHOUT_DROPOUT),
            "8 -> 4 -> 2 -> 8 devices": self.other_devices,
            "undisturbed, two processes": self.undisturbed_pair,
            "second of two processes killed": partial(self.one_of_a_pair, 1, signal.SIGKILL),
            "first of two processes killed": partial(self.one_of_a_pair, 0, signal.SIGKILL),
            "SIGTERM to one of two processes": partial(self.one_of_a_pair, 1, signal.SIGTERM),
        }

    def start(self, name: str, options: tuple[str, ...], **how: Any) -> Run:
        """Starts the run in work/`name`."""
        return Run(self.work / name, self.work, options, **how)

    def to_the_end(self, name: str, options: tuple[str, ...], reference: str) -> Run:
        """Resumes a run until its end, which must equal that of the undisturbed run `reference`."""
        run = self.start(name, options)
        expect(run.end() == 0, f"exit code {run.process.returncode}: {run.output[-300:]!r}")
        expect_same(run.folder, self.work / reference)
        return run

    def undisturbed(self, name: str, options: tuple[str, ...]) -> str:
        """An undisturbed run."""
        shutil.rmtree(self.work / name, ignore_errors=True)
        run = self.start(name, options)
        expect(run.end() == 0, f"exit code {run.process.returncode}: {run.output[-300:]!r}")
        return f"{last_logged_step(run.folder)} steps"

    def kill(self, k: int) -> str:
        """SIGKILL at an instant drawn from (seed, k): three of twenty during start-up, half of them during a save."""
        rng = np.random.default_rng([self.seed, k])
        moment = ["start", *["save"] * 5, *["step"] * 3, "save"][k % 10] if k % 20 != 11 else "start"
        folder, before = self.work / "killed", newest(self.work / "killed")
        if before >= STEPS:  # no step is left to be killed in
            shutil.rmtree(folder)
            before = 0
        run = self.start("killed", FREQUENT_SAVES)
        if moment == "start":
            time.sleep(rng.uniform(1, 12))
        else:
            run.until(lambda: run.has_stepped, "a step")
            time.sleep(rng.uniform(0, 3))
            if moment == "save":
                earlier = saving(folder)
                run.until(lambda: bool(saving(folder) - earlier), "a save")
                time.sleep(rng.uniform(0, 0.6))
        at_kill = newest(folder)
        run.kill()
        writing = saving(folder)
        after, wrong = newest(folder), [text for text in checkpoints(folder).values() if text]
        expect(run.process.returncode == -signal.SIGKILL, f"ended by itself: {run.output[-300:]!r}")
        expect(not wrong, f"a checkpoint with a complete one's name is not intact: {wrong}")
        expect(after >= at_kill >= before, f"step {at_kill} was saved, {after} is left")
        expect(run.resumed_from in (None, before), f"step {before} was saved, resumed from {run.resumed_from}")
        if folder.exists() and last_logged_step(folder):
            expect_same(folder, self.work / "undisturbed", complete=False)
        kind = "in a save" if writing else "between saves" if run.has_stepped else "while starting"
        return f"{kind}; logged step {last_logged_step(folder)}, saved {after}"

    def after_kills(self) -> str:
        """The killed run ends like the undisturbed one."""
        run = self.to_the_end("killed", OPTIONS, "undisturbed")
        return f"resumed from {run.resumed_from}; all values and the last parameters are the same"

    def end_early(self, moment: str) -> str:
        """SIGTERM during imports or the compilation of the first step: exit code 0 at once."""
        shutil.rmtree(self.work / "ended", ignore_errors=True)
        run = self.start("ended", FREQUENT_SAVES, cache=f"jax-{time.time_ns()}")
        if moment == "import":
            run.until(lambda: run.handles_sigterm, "the first line of train.py")
            time.sleep(0.5)
        else:
            run.until(lambda: COMPILING in run.output, "compiling")
            time.sleep(2.0)
        seconds = self.send(run, signal.SIGTERM, 0)
        expect("nothing to save" in run.output and newest(run.folder) == 0, run.output[-300:])
        return f"exit code 0 after {seconds:.1f} s; there was nothing to save"

    def stop(self, moment: str, number: signal.Signals = signal.SIGTERM) -> str:
        """A signal: state saved, exit code 0 (Ctrl-C: 130), in time. One run gets all signals and resumes each time."""
        folder = self.work / "stopped"
        before = newest(folder)
        run = self.start("stopped", FREQUENT_SAVES)
        if moment == "fit":
            run.until(lambda: run.has_stepped, "a step")  # a resumed run may begin with the fit of its last step
            earlier = run.output.count(FITTING)
            run.until(lambda: run.output.count(FITTING) > earlier, "the fit after a step")
            time.sleep(0.5)
        elif moment == "evaluation":
            run.until(lambda: run.has_stepped and last_logged_step(folder) >= EVAL, "the step before the evaluation")
        else:
            run.until(lambda: run.has_stepped, "a step")
        if moment == "save":
            run.until(lambda: bool(saving(folder)), "a save")
        step = last_logged_step(folder)
        seconds = self.send(run, number, 0 if number == signal.SIGTERM else 130)
        expect(before == (run.resumed_from or 0), f"step {before} was saved, resumed from {run.resumed_from}")
        saved = newest(folder)
        expect(saved >= step and f"step {saved} is saved" in run.output, f"saved {saved}: {run.output[-300:]!r}")
        if moment in ("evaluation", "fit"):
            expect((step, "val_ndcg@10") not in logged_values(folder), "it was over before the signal arrived")
        expect_same(folder, self.work / "undisturbed", complete=False)
        return f"exit code {run.process.returncode} after {seconds:.1f} s; saved {saved}"

    def send(self, run: Run, number: signal.Signals, expected: int) -> float:
        """Sends a signal and returns the seconds until the exit, which must be in time and without a traceback."""
        began = time.monotonic()
        run.signal(number)
        code, seconds = run.end(), time.monotonic() - began
        expect(code == expected and "Traceback" not in run.output, f"exit code {code}: {run.output[-300:]!r}")
        expect(seconds <= GRACE, f"took {seconds:.1f} s")
        return seconds

    def after_stops(self) -> str:
        """The stopped run ends like the undisturbed one."""
        run = self.to_the_end("stopped", OPTIONS, "undisturbed")
        return f"resumed from {run.resumed_from}; all values and the last parameters are the same"

    def damage(self, how: str) -> str:
        """The newest checkpoint is damaged: the file is named, and the older checkpoint used."""
        name, folder = how, self.work / how
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self.work / "undisturbed", folder)
        for path in (folder / "checkpoints" / "last" / f"{STEPS:06d}", folder / "checkpoints" / "best"):
            shutil.rmtree(path)
        file = largest(folder / "checkpoints" / "last" / "000030" / "state")
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content if how == "flipped" else content[:-1])
        run = self.to_the_end(name, OPTIONS, "undisturbed")
        expect(
            f"{file}: damaged" in run.output and "last/000020 instead" in run.output,
            f"not logged: {run.output[:500]!r}",
        )
        expect(run.resumed_from == 20, f"resumed from {run.resumed_from}")
        return f"named {file.parent.name}/{file.name[:8]}...; resumed from 20; the rest is the same"

    def full_disk(self, share: float) -> str:
        """A separate disk that is full except for `share` of a save's size."""
        if os.geteuid() != 0:
            raise NotRunnable("mounting a small disk needs root; see the row of a write that fails")
        one = self.work / "undisturbed" / "checkpoints" / "last" / "000010"
        total = sum(file.stat().st_size for file in one.rglob("*") if file.is_file())
        disk = self.work / "disk"
        disk.mkdir(parents=True, exist_ok=True)
        try:
            mount_tmpfs(disk, 8 * total)
        except OSError as error:
            raise NotRunnable(f"mounting a small disk: {error.strerror}") from error
        try:
            run = self.start("disk/run", FREQUENT_SAVES)
            run.until(lambda: newest(run.folder) > 0, "a checkpoint")
            free = shutil.disk_usage(disk).free
            with (disk / "filler").open("wb") as filler:
                filler.write(bytes(max(0, free - (1 << 16) - int(share * total))))
            code, saved = run.end(), newest(run.folder)
            expect(code == 2 and run.output.count("error: ") == 1, f"exit code {code}: {run.output[-500:]!r}")
            expect("No space left on device" in run.output and "Traceback" not in run.output, run.output[-500:])
            expect(saved > 0 and not any(checkpoints(run.folder).values()), f"saved {saved}")
            (disk / "filler").unlink()
            self.to_the_end("disk/run", OPTIONS, "undisturbed")
            line = next(line for line in run.output.splitlines() if "error: " in line)
        finally:
            unmount(disk)
        return f"exit code 2, {line.split('(')[-1].split(';')[0]!r}; {saved} is intact; the rest is the same"

    def failing_write(self) -> str:
        """A write of arrays that the system rejects."""
        shutil.rmtree(self.work / "refused", ignore_errors=True)
        run = self.start("refused", FREQUENT_SAVES)
        run.until(lambda: newest(run.folder) > 0, "a checkpoint")
        resource.prlimit(run.process.pid, resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))
        code, saved = run.end(), newest(run.folder)
        expect(
            code == 2 and "was not written (File too large)" in run.output, f"exit code {code}: {run.output[-500:]!r}"
        )
        expect(saved > 0 and not any(checkpoints(run.folder).values()), f"saved {saved}")
        expect("Traceback" not in run.output, "a traceback")
        self.to_the_end("refused", OPTIONS, "undisturbed")
        return f"exit code 2, named the step that was not written; {saved} is intact; the rest is the same"

    def other_devices(self) -> str:
        """Five steps each on another number of devices, restored from the previous ones."""
        folder, worst = self.work / "elastic", 0.0
        shutil.rmtree(folder, ignore_errors=True)
        for devices, stop in ((8, 5), (4, 10), (2, 15), (8, 20)):
            run = self.start("elastic", WITHOUT_DROPOUT, devices=devices)
            expect(run.end() == 0, f"{devices} devices: exit code {run.process.returncode}: {run.output[-300:]!r}")
            expect(run.resumed_from == (stop - 5 or None), f"{devices} devices: resumed from {run.resumed_from}")
            worst = max(worst, self.compare(folder))
            for path in checkpoints(folder):  # as if the run had been stopped there
                if path.parent.name == "best" or int(path.name) > stop:
                    shutil.rmtree(path)
        return f"the same batches; losses differ by {worst:.1e} at most"

    def pair(self, name: str) -> tuple[Path, list[subprocess.Popen[bytes]]]:
        """The run's folder and two started processes of four devices each, which train it."""
        folder = self.work / name
        arguments = ["--config", str(RECIPE), "--run", str(folder), *WITHOUT_DROPOUT]
        arguments += ["--data.cache", str(self.work / "catalog")]
        return folder, local_processes.start(arguments, 2, 4, self.work / "logs" / name)

    def undisturbed_pair(self) -> str:
        """Two undisturbed processes: the batches and losses of one process."""
        shutil.rmtree(self.work / "pair", ignore_errors=True)
        folder, processes = self.pair("pair")
        codes = local_processes.wait(processes, TIMEOUT)
        expect(codes == [0, 0], f"exit codes {codes}")
        return f"the same batches as one process; losses differ by {self.compare(folder):.1e} at most"

    def compare(self, folder: Path) -> float:
        """Returns the largest relative difference of losses to the run without dropout.

        Raises PromiseBroken for other batches or a difference above 1e-5.
        """
        reference, worst = logged_values(self.work / "without-dropout"), 0.0
        for (step, name), value in logged_values(folder).items():
            expect(name != "data_fingerprint" or value == reference[step, name], f"another batch before step {step}")
            if name == "loss":
                worst = max(worst, abs(value - reference[step, name]) / abs(reference[step, name]))
        expect(worst <= 1e-5, f"losses differ by {worst:.1e}")
        return worst

    def one_of_a_pair(self, index: int, number: signal.Signals) -> str:
        """A signal to one of two processes: both end in time and resume from the last checkpoint."""
        name = f"pair-{index}-{number.name}"
        shutil.rmtree(self.work / name, ignore_errors=True)
        folder, processes = self.pair(name)
        end = time.monotonic() + TIMEOUT
        while not newest(folder) and time.monotonic() < end and all(p.poll() is None for p in processes):
            time.sleep(0.05)
        before = newest(folder)
        expect(before > 0, "no checkpoint was written")
        began = time.monotonic()
        processes[index].send_signal(number)
        codes = ended = local_processes.wait(processes, 120)
        seconds, saved = time.monotonic() - began, newest(folder)
        output = local_processes.log_file(self.work / "logs" / name, 1 - index).read_text(errors="replace")
        last = output.strip().splitlines()[-1]
        if number == signal.SIGTERM:
            expect(codes == [0, 0] and seconds <= GRACE, f"exit codes {codes} after {seconds:.0f} s: {last!r}")
            expect(f"step {saved} is saved" in output, f"saved {saved}: {last!r}")
        else:
            expect(
                codes[1 - index] == EXIT_PEER_LOST and seconds <= 60,
                f"exit codes {codes} after {seconds:.0f} s: {last!r}",
            )
            expect("restart the job with the same command" in output, f"not logged: {last!r}")
        expect(saved >= before and not any(checkpoints(folder).values()), f"{before} was saved, {saved} is left")
        codes = local_processes.wait(self.pair(name)[1], TIMEOUT)
        expect(codes == [0, 0], f"resuming: exit codes {codes}")
        expect_same(folder, self.work / "pair")
        return f"both ended, exit codes {ended}, within {seconds:.0f} s; saved {saved}; the rest is the same"


def do(name: str, row: Row, work: Path) -> dict[str, Any]:
    """Runs a row and returns its record, without the path of the folder `work`."""
    began = time.monotonic()
    try:
        result, seen = "kept", row()
    except NotRunnable as error:
        result, seen = "not run", str(error)
    except (PromiseBroken, InputError, subprocess.TimeoutExpired) as error:
        result, seen = "BROKEN", str(error).replace(str(work), "WORK")
    print(f"{result:8} {name:38} {seen}", flush=True)
    return {"row": name, "result": result, "seen": seen, "seconds": round(time.monotonic() - began, 1)}


def main() -> int:
    """Runs the rows that are not done yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20, help="how often a run is killed by SIGKILL")
    parser.add_argument("--seed", type=int, default=0, help="seed of the instants")
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "kill-matrix", help="folder of the runs")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "results" / "kill-matrix.json")
    parser.add_argument("--only", default="", help="run rows whose name contains this, after their references")
    arguments = parser.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # runs inherit it; background jobs of a shell ignore it
    work = arguments.work.resolve()
    os.environ |= run_environment(work)  # for processes that local_processes starts
    file = work / "rows.json"
    rows: dict[str, dict[str, Any]] = {}
    if file.exists():
        rows = {row["row"]: row for row in json.loads(file.read_text()) if row["result"] == "kept"}
    for name, row in Matrix(work, arguments.kills, arguments.seed).rows().items():
        if arguments.only in name and name not in rows:
            rows[name] = do(name, row, work)
            write_atomically(file, json.dumps(list(rows.values()), indent=1) + "\n")
    results = [row["result"] for row in rows.values()]
    made = {
        "about": metadata(Catalog.load(""), seed=arguments.seed, kills=arguments.kills),
        "rows": list(rows.values()),
    }
    write_atomically(arguments.out, json.dumps(made, indent=1) + "\n")
    print(", ".join(f"{results.count(word)} {word}" for word in ("kept", "BROKEN", "not run")) + f"; {arguments.out}")
    return 1 if "BROKEN" in results else 0


if __name__ == "__main__":
    exit_cleanly(main)
