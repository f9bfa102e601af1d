"""`make-jax` and `python -m make_jax`: the list of commands, dispatch, exit codes."""

import subprocess
import sys

import pytest

import make_jax
from make_jax.cli.main import COMMANDS, main
from make_jax.errors import InputError


@pytest.mark.parametrize("argv", [[], ["--help"], ["-h"]])
def test_without_a_command_the_commands_are_listed(argv, capsys):
    assert main(argv) == 0
    text = capsys.readouterr().out
    assert all(f"  {name:<10}{line}" in text for name, (line, _) in COMMANDS.items())


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"make_jax {make_jax.__version__}\n"


def test_an_unknown_command_is_an_error_that_lists_the_commands():
    with pytest.raises(
        InputError, match=r"unknown command 'trian', expected one of train, eval, search, convert, catalog"
    ):
        main(["trian"])


@pytest.mark.parametrize(
    ("command", "usage"),
    [
        ("train", "usage: make-jax train "),
        ("eval", "usage: make-jax eval "),
        ("convert", "usage: make-jax convert "),
        ("catalog", "check"),
    ],
)
def test_each_command_has_help(command, usage, capsys):
    with pytest.raises(SystemExit) as leaving:
        main([command, "--help"])
    assert leaving.value.code == 0 and usage in capsys.readouterr().out


def test_python_m_runs_a_command_and_a_wrong_option_is_one_line():
    command = [sys.executable, "-m", "make_jax", "train", "--trian.steps", "3"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "error: unknown option --trian.steps; did you mean --train.steps? (--help lists the options)\n"
    )
