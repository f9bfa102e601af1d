"""Recipes: Python files that define `config`, named by their path or, in `configs/`, by their name."""

import ast
import re
import runpy
import traceback
from pathlib import Path

import make_jax
from make_jax.config import Config
from make_jax.config_renames import REMOVED, RENAMED, renamed
from make_jax.errors import InputError

_UNEXPECTED_KEYWORD = re.compile(r"got an unexpected keyword argument '(\w+)'")


def recipe_folder() -> Path:
    """Returns the folder of the recipes that come with make_jax.

    A wheel contains it inside the package; in a clone it is next to the package.
    """
    package = Path(make_jax.__file__).parent
    return package / "configs" if (package / "configs").is_dir() else package.parent / "configs"


def recipes() -> dict[str, str]:
    """Returns the name of each recipe with the first line of its docstring."""
    lines = {}
    for path in sorted(recipe_folder().glob("*.py")):
        docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        lines[path.stem] = docstring.partition("\n")[0]
    return lines


def find_recipe(name: str) -> str:
    """Returns the path of a recipe: `name` itself if it is a file, else the recipe of that name in `configs/`.

    InputError that lists the recipes otherwise.
    """
    if Path(name).is_file():
        return name
    path = recipe_folder() / f"{name}.py"
    if name.isidentifier() and path.is_file():
        return str(path)
    raise InputError(f"--config: no recipe {name}, expected {_choices()}")


def missing_recipe() -> InputError:
    """Returns the error for `--config` without a value; it lists the recipes."""
    return InputError(f"--config: expected {_choices()}")


def _choices() -> str:
    known = "; ".join(f"{name} ({line.rstrip('.')})" for name, line in recipes().items())
    return f"a Python file that defines `config`, or one of {known}"


def load_recipe(path: str) -> Config:
    """Returns the `config` that the Python file at `path` defines.

    The file is executed, so it is only ever one that the user names; the settings of a run are read from JSON.

    Raises:
        InputError: the file is absent, raises, or defines no Config; with file and line.
    """
    if not Path(path).is_file():
        raise InputError(f"--config: no recipe {path}, expected a Python file that defines `config`")
    try:
        names = runpy.run_path(path)
    except (Exception, SystemExit) as error:  # a recipe is the user's code and may raise anything
        if (keyword := _UNEXPECTED_KEYWORD.search(str(error))) and (message := _renamed_keyword(keyword[1])):
            raise InputError(f"{_location(error, path)}: {message}") from None
        message = error.msg if isinstance(error, SyntaxError) else str(error)
        raise InputError(f"{_location(error, path)}: {type(error).__name__}: {message}") from None
    config = names.get("config")
    if not isinstance(config, Config):
        problem = f"`config` is of type {type(config).__name__}" if "config" in names else "`config` is not defined"
        raise InputError(f"{path}: {problem}, expected `config = Config(...)` of make_jax.config")
    return config


def _renamed_keyword(name: str) -> str | None:
    """Returns the message for an old keyword argument of a section; None if there never was such a setting."""
    old = next((path for path in (*RENAMED, *REMOVED) if path.rpartition(".")[2] == name), None)
    return None if old is None else renamed(old)


def _location(error: BaseException, path: str) -> str:
    """Returns file and line of the recipe where `error` was raised: the innermost frame of that file."""
    if isinstance(error, SyntaxError):
        return f"{error.filename}, line {error.lineno}"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
    return f"{path}, line {lines[-1]}" if lines else path
