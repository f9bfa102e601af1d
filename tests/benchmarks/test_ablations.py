"""The studies: rows, statistics, tables."""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.study import ablations, claims, measures, table
from benchmarks.study.batch_rows import BATCH_ROWS


@pytest.mark.parametrize("name", ["parts", "batch"])
def test_rows_are_valid_and_distinct_configs(tmp_path, name):
    rows = ablations.STUDIES[name].rows
    configs = {row.name: ablations.config_of(row, 0, "some.zip", tmp_path) for row in rows}
    assert len(set(map(repr, configs.values()))) == len(rows)
    assert all(config.data.catalog == "some.zip" and config.train.seed == 0 for config in configs.values())
    steps = {config.train.steps * config.train.batch_size for config in configs.values()}
    assert len(steps) == 1  # equal examples


def test_claims_name_rows_that_exist():
    names = {row.name for row in ablations.ROWS}
    assert all({claim.better, claim.worse} <= names for claim in claims.CLAIMS)


def test_interval_of_paired_differences_is_narrower_than_of_means():
    rng = np.random.default_rng(0)
    hard = rng.random((1, 300))  # shared by both models
    better = hard + 0.02 + 0.01 * rng.normal(size=(3, 300))
    mean, low, high = table.interval(better - hard)
    assert low < mean < high and 0.015 < low < 0.02 < high < 0.025
    assert np.diff(table.interval(better)[1:])[0] > 5 * (high - low)


@pytest.mark.parametrize(
    ("low", "high", "at_least", "expected"),
    [(0.1, 0.2, False, "held"), (-0.1, 0.2, False, "undecided"), (-0.2, -0.1, False, "failed"),
     (-0.1, 0.2, True, "held"), (-0.2, -0.1, True, "failed")],
)  # fmt: skip
def test_verdict_follows_the_interval(low, high, at_least, expected):
    assert claims.verdict(low, high, claims.Claim("", "a", "b", at_least)) == expected


def test_table_compares_shared_seeds(tmp_path, capsys):
    folder = tmp_path / "tiny"
    folder.mkdir()
    for name, seed, value in (("full", 0, 0.5), ("full", 1, 0.7), ("no-ke", 0, 0.4), ("cls", 0, 0.5)):
        one = {"values": [value] * 4, "members": {key: [0, 1, 2] for key in measures.SLICES.values()}}
        about = {"run": {"steps": 3, "training_seconds": 60.0}, "device": "cpu"}
        about["catalog"] = {"name": "tiny", "queries_from": "templates"}
        made = {"val": one, "test": one, "about": about}
        (folder / f"{name}-{seed}.json").write_text(json.dumps(made))
    table.write_table(folder)
    text = Path(tmp_path / "tiny.md").read_text()
    assert text in capsys.readouterr().out
    line = next(line for line in text.splitlines() if line.startswith("| no Keyword Enhancement"))
    assert "-0.100 [-0.100, -0.100]" in line and "0.400 [0.400, 0.400]" in line
    assert "held: +0.100" in next(line for line in text.splitlines() if line.startswith("| Keyword Enhancement > none"))


def test_batch_table_has_the_rate_that_is_best_on_validation(tmp_path, capsys):
    folder = tmp_path / "tiny"
    folder.mkdir()
    for row, val, test in zip(BATCH_ROWS, (0.5, 0.7, 0.6), (0.9, 0.2, 0.8), strict=False):
        members = {key: [0, 1] for key in measures.SLICES.values()}
        made = {name: {"values": [value] * 3, "members": members} for name, value in (("val", val), ("test", test))}
        made |= {"changes": row.changes, "about": {"run": {"steps": 640, "training_seconds": 60.0}}}
        (folder / f"{row.name}-0.json").write_text(json.dumps(made))
    ablations.STUDIES["batch"].table(folder)
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("| 256"))
    assert "| 0.002 |" in line and "0.200 [0.200, 0.200]" in line and "0.9" not in line
