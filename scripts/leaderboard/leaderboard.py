"""Keeps results for the leaderboard, and writes it.

    python scripts/leaderboard/leaderboard.py keep REPORT NAME --label TEXT [--system SYSTEM] [--ours]
    python scripts/leaderboard/leaderboard.py write

`keep` writes docs/results/baselines/NAME.json from a folder that eval.py wrote. `write` makes
docs/results/leaderboard.md from all of these, docs/results/published.json and docs/results/remarks.json, which says, by
benchmark and slice, why MAKE does not lead there; of other slices the page says how many of those queries they have.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the repository root

from make_jax.errors import exit_cleanly
from make_jax.files import write_atomically
from scripts import RESULTS
from scripts.leaderboard.kept_results import keep, load
from scripts.leaderboard.tables import page, read_json

BASELINES = RESULTS / "baselines"
PAGE = RESULTS / "leaderboard.md"


def write() -> None:
    """Writes the leaderboard anew."""
    published, remarks = read_json(RESULTS / "published.json", {"rows": []}), read_json(RESULTS / "remarks.json", {})
    write_atomically(PAGE, page(load(BASELINES), published, remarks))
    print(PAGE)


def main() -> None:
    """Parses the command and does it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    keeping = commands.add_parser("keep", help="keep a report's numbers")
    keeping.add_argument("report", type=Path, help="a folder that eval.py wrote")
    keeping.add_argument("name", help="of the file, such as fashion-full-bm25")
    keeping.add_argument("--label", required=True, help="what tables call the model")
    keeping.add_argument("--system", default="", help="a system of the report; its main one without this")
    keeping.add_argument("--ours", action="store_true", help="it is MAKE: the others are tested against it")
    commands.add_parser("write", help="write docs/results/leaderboard.md")
    asked = parser.parse_args()
    if asked.command == "keep":
        keep(asked.report, BASELINES / f"{asked.name}.json", asked.label, system=asked.system, ours=asked.ours)
    else:
        write()


if __name__ == "__main__":
    exit_cleanly(main)
