"""The sizes of Parquet pages, and huge cells of Parquet and Arrow files in bounded memory."""

import subprocess
import sys
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from make_jax.catalog.__main__ import main
from make_jax.catalog.importers import parquet_pages, tables
from make_jax.catalog.importers.parquet_pages import BATCH_ROWS, batch_rows
from make_jax.errors import InputError

TABLE = pyarrow.table(
    {
        "title": [f"title {number % 700}" for number in range(5000)],
        "tags": [["a", "b"][: number % 3] or None for number in range(5000)],
        "image": [{"bytes": bytes([number % 251]) * 40, "path": f"p{number}.jpg"} for number in range(5000)],
        "price": [number / 8 for number in range(5000)],
    }
)
BIG = 250 << 20

MEASURED = """
import resource, sys
from make_jax.catalog.__main__ import main
from make_jax.errors import InputError
from pyarrow import parquet
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    main(["import", "table", sys.argv[1], sys.argv[2]])
except InputError as error:
    print(error)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.parametrize("compression", ["none", "snappy", "zstd", "gzip"])
@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("dictionary", [True, False])
def test_the_pages_of_a_column_have_all_its_values(
    tmp_path: Path, compression: str, version: str, dictionary: bool
) -> None:
    path = tmp_path / "t.parquet"
    parquet.write_table(
        TABLE, path, compression=compression, data_page_version=version, use_dictionary=dictionary,
        data_page_size=1000, write_batch_size=100, row_group_size=3000, write_page_checksum=True,
    )  # fmt: skip
    with parquet.ParquetFile(path) as opened, path.open("rb") as file:
        assert batch_rows(path, opened.metadata, TABLE.column_names) == BATCH_ROWS
        counts = []
        for group in range(2):
            for number in range(opened.metadata.num_columns):
                column = opened.metadata.row_group(group).column(number)
                pages = list(parquet_pages._pages(path, file, column))
                data = [page for page in pages if page.kind != parquet_pages._DICTIONARY]
                assert sum(page.values for page in data) == column.num_values
                counts.append(len(data))
                assert sum(page.size for page in pages) <= column.total_uncompressed_size
        assert max(counts) > 1


def test_a_huge_cell_in_a_page_of_many_is_a_fault_of_its_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (parquet_pages, tables):
        monkeypatch.setattr(module, "MAX_CELL", 2000)
    source, out = tmp_path / "t.parquet", tmp_path / "out"
    parquet.write_table(pyarrow.table({"title": [*["one"] * 99, "x" * 2500]}), source)
    with pytest.raises(InputError, match=r"t\.parquet: row 100: column 'title': a cell of 2,5\d\d bytes, expected at"):
        main(["import", "table", str(source), str(out)])
    assert main(["import", "table", str(source), str(out), "--bad-rows", "1"]) == 0


def test_a_page_of_many_cells_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_pages, "MAX_PAGE", 2000)
    parquet.write_table(
        pyarrow.table({"title": ["one", *["x" * 100] * 99]}), tmp_path / "t.parquet", use_dictionary=False
    )
    expected = (
        r"t\.parquet: column 'title', rows 1 to 100: one page of [\d,]+ bytes, expected at most 2,000; write the file"
    )
    with pytest.raises(InputError, match=expected):
        main(["import", "table", str(tmp_path / "t.parquet"), str(tmp_path / "out")])


def test_fewer_rows_are_read_together_if_they_may_share_a_large_value(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet_pages, "MAX_PAGE", 4000)
    parquet.write_table(pyarrow.table({"title": ["x" * 1000] * 500}), tmp_path / "t.parquet")
    with parquet.ParquetFile(tmp_path / "t.parquet") as file:
        assert batch_rows(tmp_path / "t.parquet", file.metadata, ["title"]) == 3


def test_memory_is_bounded_for_a_cell_that_is_rejected(tmp_path: Path) -> None:
    source = tmp_path / "t.parquet"
    parquet.write_table(pyarrow.table({"title": ["one", "x" * BIG]}), source, compression="zstd")
    command = [sys.executable, "-c", MEASURED, str(source), str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    # The page shows it: its 2 cells have more than the bound on average, so that it is not read.
    assert "column 'title', rows 1 to 2: a cell of 131,07" in done[-2]
    kilobytes = int(done[-1]) // (1024 if sys.platform == "darwin" else 1)
    assert kilobytes < 40 << 10


def test_a_damaged_page_header_is_one_line(tmp_path: Path) -> None:
    source = tmp_path / "t.parquet"
    parquet.write_table(pyarrow.table({"title": ["one", "two"]}), source)
    data = bytearray(source.read_bytes())
    data[4:12] = b"\xff" * 8
    source.write_bytes(data)
    with pytest.raises(InputError, match=r"t\.parquet: cannot be read \(the page header of column 'title' at byte 4: "):
        main(["import", "table", str(source), str(tmp_path / "out")])
    assert [path.name for path in tmp_path.iterdir()] == ["t.parquet"]


def test_a_huge_cell_of_an_arrow_file_is_a_fault_of_its_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "MAX_CELL", 2000)
    batch = pyarrow.record_batch({"title": ["one", "x" * 2500, "three"]})
    found = list(tables.records(batch))
    assert [values.get("title") for values, _ in found] == ["one", None, "three"]
    assert "column 'title': a cell of 2,5" in found[1][1]
