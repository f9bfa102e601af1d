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


def copy_clone(folder: Path) -> Path:
    """Copies what an installation reads into `folder` and returns it."""
    for name in ("make_jax", "configs"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of a copy of this clone; nothing is written into the clone, nothing is downloaded."""
    copy, out = copy_clone(tmp_path_factory.mktemp("clone")), tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*command, "--wheel-dir", str(out), str(copy)], check=True)
    (path,) = out.glob("*.whl")
    return path


def test_the_wheel_contains_all_modules_recipes_and_the_packaged_catalog(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    expected = {f"make_jax/{path.relative_to(ROOT / 'make_jax')}" for path in (ROOT / "make_jax").rglob("*.py")}
    expected |= {f"make_jax/configs/{path.name}" for path in (ROOT / "configs").glob("*.py")}
    page = (ROOT / "make_jax" / "serving" / "page").iterdir()
    expected |= {f"make_jax/serving/page/{path.name}" for path in page if path.suffix != ".py"}
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


def test_an_editable_install_is_importable_from_any_folder(tmp_path: Path) -> None:
    """Also above the clone, whose folder has the name of the package and would be a namespace package."""
    (tmp_path / "make_jax").mkdir()
    clone, site = copy_clone(tmp_path / "make_jax"), tmp_path / "site"
    build = "import setuptools.build_meta as b, sys; b.build_editable(sys.argv[1])"
    subprocess.run([sys.executable, "-c", build, str(tmp_path)], cwd=clone, check=True, capture_output=True)
    (editable,) = tmp_path.glob("*.whl")
    zipfile.ZipFile(editable).extractall(site)
    # Without the path entry of the clone that this environment may be an editable install of.
    own = f"sys.path[:] = [each for each in sys.path if each != {str(ROOT)!r}]"
    code = (
        f"import site, sys; {own}; site.addsitedir(sys.argv[1]); from make_jax import Retriever; import make_jax as m"
    )
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    (tmp_path / "elsewhere" / "make_jax").mkdir(parents=True)  # an empty folder of that name
    for folder in (tmp_path, clone, tmp_path / "elsewhere", clone / "configs"):
        command = [sys.executable, "-c", f"{code}; print(m.__file__)", str(site)]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
        assert done.stdout == f"{clone / 'make_jax' / '__init__.py'}\n", done.stderr
