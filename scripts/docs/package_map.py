"""Draws the packages of make_jax and their imports as a Mermaid diagram in docs/architecture.md.

    python scripts/docs/package_map.py          rewrites the block between the markers
    python scripts/docs/package_map.py --check  exits with 1 when the block is out of date

An arrow points from a package to one that it imports. Arrows that follow from two others are left out, so that the
layers can be read: everything imports leftwards only, which import-linter enforces.
"""

import argparse
import ast
import re
import sys
import textwrap
from pathlib import Path

import grimp

ROOT = Path(__file__).resolve().parent.parent.parent
PAGE = ROOT / "docs" / "architecture.md"
BEGIN, END = "<!-- package map: scripts/docs/package_map.py -->", "<!-- /package map -->"


def package_map() -> str:
    """Returns the Mermaid diagram of the packages and what each is."""
    graph = grimp.build_graph("make_jax", include_external_packages=False)
    packages = sorted(graph.find_children("make_jax") - {"make_jax.__main__"})
    imports = {
        package: {other for other in packages if other != package and _imports(graph, package, other)}
        for package in packages
    }
    lines = ["```mermaid", "flowchart RL"]
    lines += [f'    {_name(package)}["{_label(package)}"]' for package in packages]
    for package in packages:
        for other in sorted(imports[package]):
            if not any(other in _reachable(between, imports) for between in imports[package] - {other}):
                lines.append(f"    {_name(package)} --> {_name(other)}")
    return "\n".join([*lines, "```"])


def _imports(graph: grimp.ImportGraph, package: str, other: str) -> bool:
    """Whether a module of `package` imports a module of `other`."""
    sources = {package} | graph.find_descendants(package)
    targets = {other} | graph.find_descendants(other)
    return any(targets & graph.find_modules_directly_imported_by(source) for source in sources)


def _reachable(package: str, imports: dict[str, set[str]]) -> set[str]:
    found: set[str] = set()
    stack = [package]
    while stack:
        for other in imports[stack.pop()] - found:
            found.add(other)
            stack.append(other)
    return found


def _name(package: str) -> str:
    return package.rpartition(".")[2]


def _label(package: str) -> str:
    """The package's name and the first sentence of its docstring."""
    path = ROOT / package.replace(".", "/")
    module = ast.parse((path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_text(encoding="utf-8"))
    first = re.split(r"[.:](?:\s|$)", (ast.get_docstring(module) or "").replace('"', "'"), maxsplit=1)[0]
    return "<br/>".join([f"<b>{_name(package)}</b>", *textwrap.wrap(first.replace("`", ""), 34)])


def updated(page: str) -> str:
    """Returns the page with a new diagram between the markers."""
    before, _, rest = page.partition(BEGIN)
    after = rest.partition(END)[2]
    return f"{before}{BEGIN}\n\n{package_map()}\n\n{END}{after}"


def main() -> None:
    """Parses the options and rewrites or checks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    page = PAGE.read_text(encoding="utf-8")
    if options.check:
        if updated(page) != page:
            sys.exit(f"{PAGE.relative_to(ROOT)} is out of date: run python scripts/docs/package_map.py")
    else:
        PAGE.write_text(updated(page), encoding="utf-8")


if __name__ == "__main__":
    main()
