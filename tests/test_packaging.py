"""The wheel: what it contains, and that it works without the clone."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import make_jax
from tests.conftest import ROOT


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of a copy of this clone; nothing is written into the clone, nothing is downloaded."""
    copy, out = tmp_path_factory.mktemp("clone"), tmp_path_factory.mktemp("wheel")
    for folder in ("make_jax", "configs"):
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy / name)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*command, "--wheel-dir", str(out), str(copy)], check=True)
    (path,) = out.glob("*.whl")
    return path


def test_the_wheel_contains_all_modules_recipes_and_the_packaged_catalog(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    expected = {f"make_jax/{path.relative_to(ROOT / 'make_jax')}" for path in (ROOT / "make_jax").rglob("*.py")}
    expected |= {f"make_jax/configs/{path.name}" for path in (ROOT / "configs").glob("*.py")}
    expected |= {"make_jax/py.typed", "make_jax/catalog/openclipart.zip", "make_jax/catalog/openclipart.PROVENANCE.md"}
    assert expected <= names
    extra = {name for name in names - expected if ".dist-info/" not in name}
    assert not extra


def test_the_wheel_runs_and_finds_recipes_outside_the_clone(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    (entry_points,) = (tmp_path / "site").glob("*.dist-info/entry_points.txt")
    assert "make-jax = make_jax.cli.main:run" in entry_points.read_text()

    def run(code: str, *arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-P", "-c", code, *arguments],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout

    program = "from make_jax.cli.main import run; run()"
    assert run(program, "--version") == f"make_jax {make_jax.__version__}\n"
    recipe = "from make_jax.cli import recipes; print(recipes.__file__, recipes.find_recipe('demo'))"
    site = tmp_path / "site" / "make_jax"
    assert run(recipe).split() == [str(site / "cli" / "recipes.py"), str(site / "configs" / "demo.py")]
