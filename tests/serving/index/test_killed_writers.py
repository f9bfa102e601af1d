"""SIGKILL at any instant of index, update and switch leaves the state before or after, and the command continues."""

import json
import subprocess
import sys
from pathlib import Path

from tests.conftest import ROOT
from tests.tiny_catalog import write_catalog, write_lines


def small_catalogs(folder: Path) -> tuple[Path, Path]:
    """A catalog of 10 products, and one of which some are other products; both without queries, so nothing is tuned."""
    catalog, changed = write_catalog(folder / "small", products=10), write_catalog(folder / "changed", products=12)
    for path in (catalog, changed):
        write_lines(path / "queries.jsonl", [])
    rows = [json.loads(line) for line in (changed / "products.jsonl").read_text().splitlines()]
    rows[0]["title"], rows[1]["colour"] = "black circle", "crimson"
    write_lines(changed / "products.jsonl", [row for row in rows if row["id"] != "p9"])
    write_lines(changed / "clicks.jsonl", [])
    return catalog, changed


def test_a_killed_writer_leaves_the_old_or_the_new_state_and_is_continued(tmp_path: Path) -> None:
    catalog, changed = small_catalogs(tmp_path)
    command = [sys.executable, "-m", "tests.serving.index.killed_writers", str(catalog), str(changed), str(tmp_path)]
    done = subprocess.run([*command, "6"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for name, found in json.loads(done.stdout).items():
        assert found["killed"] >= 6 and found["killed"] == found["old"] + found["new"], (name, found)
        assert found["old"] and not found["mixed"] and not found["not continued"], (name, found)
        before, after = (state.split(":")[0] for state in found["states"])
        expected = {"index": "v2, update 0", "update": "v1, update 1", "switch": "v2, update 0"}
        assert (before, after) == ("v1, update 0", expected[name])
