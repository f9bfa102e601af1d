"""docs/architecture.md: its map is current, and the functions that it names exist."""

import ast
import re
import subprocess
import sys

import pytest

from tests.conftest import ROOT

PAGE = ROOT / "docs" / "architecture.md"
REFERENCES = sorted(set(re.findall(r"`([\w/]+\.py)(?::([\w.]+))?`", PAGE.read_text(encoding="utf-8"))))


def test_the_package_map_is_current() -> None:
    command = [sys.executable, "scripts/docs/package_map.py", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("file", "name"), REFERENCES)
def test_every_reference_exists(file: str, name: str) -> None:
    path = ROOT / ("make_jax" if (ROOT / "make_jax" / file).exists() else "") / file
    body = ast.parse(path.read_text(encoding="utf-8")).body
    for part in filter(None, name.split(".")):
        found = [node for node in body if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == part]
        assert found, f"{file} has no {name}"
        body = found[0].body


def test_the_page_has_references() -> None:
    assert len(REFERENCES) > 20
