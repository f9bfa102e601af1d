"""A run in an object store: downloaded when training starts, uploaded in the background after each checkpoint."""

import random
from pathlib import Path

from make_jax.errors import InputError
from make_jax.object_stores import RUN, Mirror, is_url, local_path
from make_jax.runs.processes import Processes

EVALUATIONS = "eval/"  # reports in a run, which eval.py uploads


class RunStore:
    """The store's copy of a run; every method does nothing for a run in a local folder.

    Process 0 transfers. In a run of several processes all must share the mirror, as they share a local run folder.
    """

    def __init__(self, run: str) -> None:
        self.folder = local_path(run)
        self._mirror = Mirror(run, RUN) if is_url(run) else None

    def start(self, processes: Processes) -> None:
        """Downloads the run; what was not uploaded before stays. All processes must call it.

        Raises InputError when the store cannot be used, and when the processes do not share the mirror.
        """
        if self._mirror is None:
            return
        token = float(random.SystemRandom().randrange(1 << 30))
        if processes.is_coordinator:
            self._mirror.pull()
            self._mirror.delete_incomplete(lambda name: not name.startswith(EVALUATIONS))
        if processes.count == 1:
            return
        token = processes.broadcast({"token": token})["token"]
        shared = self.folder.parent / f"shared-{int(token)}"
        if processes.is_coordinator:
            shared.touch()
        processes.broadcast({"written": 1.0})
        found = shared.exists()
        processes.broadcast({"checked": 1.0})
        if not found:
            raise InputError(
                f"{self._mirror.url}: process {processes.index} of {processes.count} does not see the mirror of "
                f"process 0, {self.folder}; set XDG_CACHE_HOME to a folder on a file system that all processes share"
            )
        if processes.is_coordinator:
            shared.unlink()

    def upload(self) -> None:
        """Uploads what has changed, in process 0."""
        if self._mirror is not None:
            self._mirror.push(lambda name: not name.startswith(EVALUATIONS), delete=True)

    def upload_checkpoint(self, step: int) -> None:
        """Uploads like `upload` after the checkpoint of a step was saved. InputError that names the step."""
        try:
            self.upload()
        except InputError as error:
            raise InputError(
                f"{error}; the checkpoint of step {step} is in {self.folder} and not in the store: the next start on "
                "this machine uploads it"
            ) from None


def pull_run(path: str | Path) -> Path:
    """The local folder of a run or another model; of a URL, its mirror, to which it is downloaded.

    Raises InputError when the store has nothing there.
    """
    if not is_url(path):
        return Path(path)
    mirror = Mirror(str(path), RUN)
    if not mirror.pull():
        raise InputError(f"{path}: not found, expected a run or another model's folder")
    return mirror.path
