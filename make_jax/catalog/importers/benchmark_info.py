"""Metadata of an imported catalog, and the files that state it: catalog.json and PROVENANCE.md."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field

from make_jax import __version__
from make_jax.catalog.schema import Pool

MAX_LISTED = 20  # skipped rows that PROVENANCE.md lists


@dataclass(frozen=True)
class BenchmarkInfo:
    """Metadata of a benchmark or a shop's catalog, for catalog.json and PROVENANCE.md."""

    name: str
    title: str
    licence: str
    provenance: str  # paragraphs: source, kind of queries, what was omitted
    citation: str = ""
    attributes: tuple[str, ...] = ()
    gains: dict[int, float] = field(default_factory=dict)
    relevant: int = 1
    hide_title: bool = False
    pool: Pool = "split"
    next_steps: tuple[str, ...] = ()  # lines printed at the end; {out} is the catalog's folder

    def catalog_json(self) -> str:
        """The content of catalog.json."""
        values = {
            "name": self.name,
            "title": self.title,
            "licence": self.licence,
            "attributes": list(self.attributes),
            "gains": {str(grade): gain for grade, gain in self.gains.items()},
            "relevant": self.relevant,
            "hide_title": self.hide_title,
            "pool": self.pool,
        }
        return json.dumps(values, indent=1, ensure_ascii=False) + "\n"

    def provenance_text(
        self, command: str, files: Sequence[tuple[str, int]], report: Sequence[str], bad: Sequence[str]
    ) -> str:
        """The content of PROVENANCE.md: `files` are names and sizes of the source, `report` the lines of notes.py,
        `bad` the messages of skipped rows."""
        parts = [f"# {self.title}", self.provenance, f"Licence: {self.licence}."]
        parts += [f"Cite: {self.citation}"] if self.citation else []
        listed = "\n".join(f"- {name}, {size:,} bytes" for name, size in files)
        parts.append(f"Imported with `{command}` of make_jax {__version__}" + (f" from\n\n{listed}" if files else "."))
        if report:
            lines = "\n".join(f"- {line}" for line in report)
            parts.append(f"What was taken, joined, changed and dropped:\n\n{lines}")
        if bad:
            listed = "\n".join(f"- {text}" for text in bad[:MAX_LISTED])
            parts.append(f"{len(bad):,} rows were invalid and are skipped; the first of them:\n\n{listed}")
        return "\n\n".join(parts) + "\n"
