"""Stores results for the leaderboard and writes the page.

    python scripts/leaderboard/leaderboard.py keep REPORT NAME --label TEXT [--system SYSTEM] [--ours]
    python scripts/leaderboard/leaderboard.py write

`keep` writes docs/results/baselines/NAME.json from a report of eval.py. `write` generates docs/results/leaderboard.md
from all of these, docs/results/published.json and docs/results/remarks.json. The remarks explain, by benchmark and
slice, why MAKE does not lead; other slices refer to the remark that most of their queries are in.
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
    """Regenerates the leaderboard."""
    published, remarks = read_json(RESULTS / "published.json", {"rows": []}), read_json(RESULTS / "remarks.json", {})
    write_atomically(PAGE, page(load(BASELINES), published, remarks))
    print(PAGE)


def main() -> None:
    """Runs the command of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    keeping = commands.add_parser("keep", help="store the numbers of a report")
    keeping.add_argument("report", type=Path, help="a folder that eval.py wrote")
    keeping.add_argument("name", help="name of the file, such as fashion-full-bm25")
    keeping.add_argument("--label", required=True, help="name of the model in tables")
    keeping.add_argument("--system", default="", help="a system of the report; default: the main one")
    keeping.add_argument("--ours", action="store_true", help="the model is MAKE, which the others are tested against")
    commands.add_parser("write", help="write docs/results/leaderboard.md")
    args = parser.parse_args()
    if args.command == "keep":
        keep(args.report, BASELINES / f"{args.name}.json", args.label, system=args.system, ours=args.ours)
    else:
        write()


if __name__ == "__main__":
    exit_cleanly(main)
