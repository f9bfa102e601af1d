"""Optional extras: the error for a missing library, and the command that installs it."""

import importlib.metadata
import importlib.util
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from make_jax import extras
from make_jax.errors import InputError
from tests.conftest import ROOT


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function that simulates an installation in site-packages with this content of direct_url.json."""

    def install(origin: dict[str, Any] | None) -> None:
        monkeypatch.setattr(extras, "__file__", str(tmp_path / "site-packages" / "make_jax" / "extras.py"))
        text = None if origin is None else json.dumps(origin)
        distribution = type("Distribution", (), {"read_text": lambda self, name: text})()
        monkeypatch.setattr(importlib.metadata, "distribution", lambda name: distribution)

    return install


def test_in_a_clone_the_command_installs_the_clone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(ROOT)
    assert extras.install_command("wandb") == "pip install -e '.[wandb]'"
    monkeypatch.chdir(tmp_path)
    assert extras.install_command("wandb") == f"pip install -e '{ROOT}[wandb]'"


@pytest.mark.parametrize(
    ("origin", "expected"),
    [
        (None, "pip install 'make_jax[onnx]'"),
        (
            {"url": "file:///a/make_jax-1-py3-none-any.whl", "archive_info": {}},
            "pip install 'make_jax[onnx] @ file:///a/make_jax-1-py3-none-any.whl'",
        ),
        (
            {"url": "https://host/make_jax.git", "vcs_info": {"vcs": "git", "commit_id": "12ab"}},
            "pip install 'make_jax[onnx] @ git+https://host/make_jax.git@12ab'",
        ),
    ],
)
def test_an_installed_package_is_installed_again_from_where_it_came(
    installed: Any, origin: dict[str, Any] | None, expected: str
) -> None:
    installed(origin)
    assert extras.install_command("onnx") == expected


def test_a_package_that_pip_does_not_know_gets_the_plain_command(
    installed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed(None)

    def missing(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", missing)
    assert extras.install_command("torch") == "pip install 'make_jax[torch]'"


def test_pytorch_for_cpus_is_installed_first_where_pip_would_fetch_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(extras.sys, "platform", "linux")  # type: ignore[attr-defined]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    first = "pip install torch torchvision --index-url https://download.pytorch.org/whl/cpu"
    for extra in ("torch", "models", "onnx"):
        assert f"pip install -e '.[{extra}]' (without a GPU, first {first}, or" in extras.install_advice(extra)
    assert extras.install_advice("wandb") == "pip install -e '.[wandb]'"
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())  # PyTorch is installed
    assert extras.install_advice("models") == "pip install -e '.[models]'"


def test_a_missing_library_is_an_input_error_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    with pytest.raises(InputError, match=r"a folder needs no_such_library \(.*\); install it: pip install -e '\.\["):
        extras.import_optional("no_such_library.part", "onnx", "a folder")
    assert extras.import_optional("json.decoder", "onnx") is json.decoder


def test_every_named_extra_exists_and_no_text_has_a_command_of_its_own() -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    section = project.partition("[project.optional-dependencies]")[2].partition("\n[")[0]
    known = set(re.findall(r"^(\w+) = \[", section, re.MULTILINE))
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    for name in tracked:
        if not name.endswith((".py", ".md")) or name in ("make_jax/extras.py", "tests/test_extras.py"):
            continue
        text = (ROOT / name).read_text(encoding="utf-8")
        assert "make_jax[" not in text, name
        named = re.findall(r"-e '?\.\[([\w,]+)\]", text) + re.findall(r'import_optional\([^)]*?, "(\w+)"', text)
        assert {extra for names in named for extra in names.split(",")} <= known, name
