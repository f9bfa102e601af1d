"""An import's memory does not grow with the benchmark."""

import json
import subprocess
import sys
from pathlib import Path

LARGE = 60_000  # products

MEASURED = """
import resource, sys
from make_jax.catalog.__main__ import main
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert main(["import", "wands", sys.argv[1], sys.argv[2]]) == 0
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_memory_is_bounded_by_a_batch_of_rows(tmp_path: Path) -> None:
    source = tmp_path / "dataset"
    source.mkdir()
    text = "many words " * 10
    with (source / "product.csv").open("w", encoding="utf-8") as file:
        file.write("product_id\tproduct_name\tcategory hierarchy\n")
        file.writelines(f"{number}\tbed no. {number} {text}\tFurniture / Beds\n" for number in range(LARGE))
    (source / "query.csv").write_text("query_id\tquery\tquery_class\n0\tbed\tBeds\n", encoding="utf-8")
    (source / "label.csv").write_text("id\tquery_id\tproduct_id\tlabel\n0\t0\t0\tExact\n", encoding="utf-8")
    command = [sys.executable, "-c", MEASURED, str(tmp_path), str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    kilobytes = int(done.stdout.splitlines()[-1]) // (1024 if sys.platform == "darwin" else 1)
    with (tmp_path / "out/products.jsonl").open(encoding="utf-8") as file:
        assert sum(json.loads(line)["split"] == "test" for line in file) == LARGE
    assert (tmp_path / "out/products.jsonl").stat().st_size > 10 << 20
    assert kilobytes < 12 << 10  # of which SQLite's page cache is 2 MiB
