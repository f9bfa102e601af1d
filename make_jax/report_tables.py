"""Markdown tables and system names, shared by evaluation reports, model cards, scripts and benchmarks."""

from collections.abc import Mapping

_SYSTEM_NAMES = {
    "random": "random",
    "bm25": "BM25 over titles",
    "title": "title only",
    "image": "image only",
    "joint": "joint",
}
_SUFFIXES = {"bm25": " + BM25", "rerank": ", re-ranked"}


def system_name(system: str) -> str:
    """Returns the display name of a system of a report: "joint+bm25" is "joint + BM25"."""
    base, _, suffix = system.partition("+")
    return _SYSTEM_NAMES.get(base, base) + _SUFFIXES.get(suffix, "")


def markdown_table(header: list[str], rows: list[list[str]]) -> str:
    """Returns a Markdown table; the first column is left-aligned, the others right. "|" in a cell is escaped."""
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines) + "\n"


def format_interval(numbers: Mapping[str, float]) -> str:
    """Returns "mean [low, high]" with three decimals."""
    return f"{numbers['mean']:.3f} [{numbers['low']:.3f}, {numbers['high']:.3f}]"


def format_difference(numbers: Mapping[str, float]) -> str:
    """Returns "mean [low, high]" with three decimals and signs."""
    return f"{numbers['mean']:+.3f} [{numbers['low']:+.3f}, {numbers['high']:+.3f}]"
