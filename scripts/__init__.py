"""Programs for maintainers, in folders by subject: result tables, leaderboard, weights, docs, the packaged catalog."""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "docs" / "results"
