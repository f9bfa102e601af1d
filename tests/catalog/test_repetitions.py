"""What `check` finds in columns is what a search over records finds."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from make_jax.catalog import check as checking
from make_jax.catalog.check import check, check_images
from make_jax.catalog.reader import Catalog
from make_jax.catalog.repetitions import NO_IMAGE, add_divided_groups, add_repeated_products
from make_jax.catalog.reporting import Problems
from tests.tiny_catalog import write_catalog, write_lines


def test_repetitions_of_many_products_are_those_of_a_search_over_records(tmp_path: Path) -> None:
    write_catalog(tmp_path / "tiny", products=10)
    rng = np.random.default_rng(0)
    rows = [
        {
            "id": f"i{number}",
            "title": f"title {rng.integers(3000)}",
            "group": f"g{rng.integers(2000)}",
            "split": "train" if rng.random() < 0.9 else "val",
            "image": f"images/p{rng.integers(6)}.png" if rng.random() < 0.01 else None,
        }
        for number in range(6000)  # more than are read together
    ]
    write_lines(tmp_path / "tiny/products.jsonl", rows)
    for name in ("clicks", "queries"):
        (tmp_path / f"tiny/{name}.jsonl").unlink()
    catalog = Catalog.load(tmp_path / "tiny")
    checksums = check_images(catalog, Problems(catalog.path))
    expected, content, pictures, groups = [], {}, {}, {}
    for number, (row, checksum) in enumerate(zip(rows, checksums.tolist(), strict=True)):
        assert (checksum == NO_IMAGE) == (row["image"] is None)
        first = content.setdefault((row["title"], checksum), number)
        picture = number if checksum == NO_IMAGE else pictures.setdefault(checksum, number)
        if first != number and rows[first]["group"] != row["group"]:
            expected.append((number + 1, first + 1))
        elif picture != number and rows[picture]["group"] != row["group"]:
            expected.append((number + 1, picture + 1))
    warnings = Problems(catalog.path, max_per_kind=None)
    add_repeated_products(catalog, checksums, warnings)
    found = [(int(place.split(":")[1]), int(text.split(" line ")[1].split()[0])) for place, text in warnings.kept]
    assert found == expected and len(expected) > 3000
    divided = [
        number + 1 for number, row in enumerate(rows) if groups.setdefault(row["group"], row["split"]) != row["split"]
    ]
    warnings = Problems(catalog.path, max_per_kind=None)
    add_divided_groups(catalog, warnings)
    assert [int(place.split(":")[1]) for place, _ in warnings.kept] == divided and divided


def test_a_large_catalog_is_checked_in_files_that_are_gone_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_catalog(tmp_path / "tiny")
    rows = [json.loads(line) for line in (path / "products.jsonl").read_text().splitlines()]
    write_lines(path / "products.jsonl", [*rows, rows[0] | {"id": "new"}])
    before = check(path)
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(checking.tempfile, "tempdir", str(tmp_path / "temporary"))
    monkeypatch.setattr(checking, "_MAX_IN_MEMORY", 0)
    read, folders = checking.read, []

    def listed(*given: Any) -> Any:
        result = read(*given)
        folders.append(sorted(file.name for file in given[3].iterdir()))
        return result

    monkeypatch.setattr(checking, "read", listed)
    checked = check(path)
    assert folders == [[f"{name}-00000.arrow" for name in ("clicks", "products", "queries")]]
    assert not list((tmp_path / "temporary").iterdir())
    assert checked.warnings.messages == before.warnings.messages and checked.warnings.count
    assert list(checked.catalog.products) == list(before.catalog.products)
    assert list(checked.catalog.clicks) == list(before.catalog.clicks)
