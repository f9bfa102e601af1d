"""The programs of this repository, run by benchmarks that train and evaluate whole models."""

import os
import subprocess
from pathlib import Path

from make_jax.errors import InputError

ROOT = Path(__file__).resolve().parent.parent


def run_program(command: list[str], environment: dict[str, str] | None = None) -> None:
    """Runs `PYTHON PROGRAM ...` in the repository's folder; what it says goes to the terminal.

    Raises InputError when it fails.
    """
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": paths} | (environment or {}), check=False)
    if done.returncode:
        raise InputError(f"{' '.join(command[1:3])} ended with exit code {done.returncode}; run this again to go on")
