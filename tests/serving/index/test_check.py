"""`check_index` finds any flipped byte and names its file."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from make_jax.errors import InputError
from make_jax.serving.index.check import check_index


def test_an_intact_index_has_no_problem_and_each_version_a_line(built: Path) -> None:
    lines, problems = check_index(built)
    assert problems == [] and len(lines) == 1
    assert lines[0].startswith("v1 (current): 60 products of tiny, model fake, 0 updates, 0.")


def test_a_flipped_byte_of_any_file_is_found_and_its_file_named(built: Path, tmp_path: Path) -> None:
    index = tmp_path / "index"
    shutil.copytree(built, index)
    names = [path for path in sorted(index.rglob("*")) if path.is_file() and path.name != "lock"]
    assert len(names) >= 7
    rng = np.random.default_rng(0)
    for path in names:
        whole = path.read_bytes()
        for position in rng.integers(len(whole), size=3).tolist():
            damaged = bytearray(whole)
            damaged[position] ^= 1 << int(rng.integers(8))
            path.write_bytes(damaged)
            (problem,) = check_index(index).problems
            assert problem.startswith(f"{path}: "), (position, problem)
        path.write_bytes(whole)
    assert check_index(index).problems == []


def test_missing_files_and_a_missing_current_version_are_problems(built: Path, tmp_path: Path) -> None:
    index = tmp_path / "index"
    shutil.copytree(built, index)
    (index / "versions" / "v1" / "products-00000.arrow").unlink()
    (problem,) = check_index(index).problems
    assert problem.endswith(
        "products-00000.arrow: No such file or directory; restore it from a backup or build the index again"
    )
    shutil.rmtree(index / "versions" / "v1")
    (problem,) = check_index(index).problems
    assert "names v1, which is missing" in problem
    with pytest.raises(InputError, match="not an index"):
        check_index(tmp_path)
