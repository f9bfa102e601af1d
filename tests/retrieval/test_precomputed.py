import json
from pathlib import Path

import numpy as np
import pyarrow
import pytest
from pyarrow import parquet

from make_jax.catalog.reader import Catalog
from make_jax.errors import InputError
from make_jax.evaluation.evaluate import evaluate
from make_jax.retrieval.embed_to_disk import embed_to_disk
from make_jax.retrieval.vectors.precomputed import PrecomputedFolder, load
from tests.tiny_catalog import write_catalog

VECTORS = np.array([[1, 0, 0.5], [0, 1, 0.25]], np.float16)


def folder(path: Path, reads: str = "both") -> Path:
    """A folder of precomputed vectors: two queries in NumPy, two products in one Parquet file."""
    (path / "embeddings.json").write_text(json.dumps({"reads": reads}), encoding="utf-8")
    np.save(path / "queries.npy", VECTORS)
    (path / "queries.ids.txt").write_text("q1\nq2\n", encoding="utf-8")
    write(path / "products.parquet", ["a", "b"], VECTORS)
    return path


def write(path: Path, ids: list[str], vectors: np.ndarray, fixed: bool = False) -> None:
    path.parent.mkdir(exist_ok=True)
    kind = pyarrow.from_numpy_dtype(vectors.dtype)
    kind = pyarrow.list_(kind, vectors.shape[1]) if fixed else pyarrow.list_(kind)
    parquet.write_table(pyarrow.table({"id": ids, "vector": pyarrow.array(list(vectors), kind)}), path)


def test_vectors_are_found_by_id_and_absent_products_are_zeros(tmp_path: Path) -> None:
    stored = load(folder(tmp_path))
    assert stored.modalities == "both"
    np.testing.assert_array_equal(stored.query_vectors(["q2", "q1"]), VECTORS[::-1].astype(np.float32))
    np.testing.assert_array_equal(stored.product_vectors(["b", "?", "a"]), [VECTORS[1], [0, 0, 0], VECTORS[0]])
    np.testing.assert_array_equal(stored.product_vectors(["b"]), VECTORS[1:])  # what was cleared was a copy


def test_a_byte_order_mark_is_no_part_of_the_first_id(tmp_path: Path) -> None:
    folder(tmp_path)
    for name in ("queries.ids.txt", "embeddings.json"):
        (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + (tmp_path / name).read_bytes())
    np.testing.assert_array_equal(load(tmp_path).query_vectors(["q1", "q2"]), VECTORS)


@pytest.mark.parametrize("fixed", [False, True])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_a_folder_of_parquet_files_is_read_in_the_order_of_names(tmp_path: Path, fixed: bool, dtype: type) -> None:
    folder(tmp_path)
    (tmp_path / "products.parquet").unlink()
    write(tmp_path / "products" / "b-2.parquet", ["y"], VECTORS[1:].astype(dtype), fixed)
    write(tmp_path / "products" / "b-1.parquet", ["x"], VECTORS[:1].astype(dtype), fixed)
    np.testing.assert_array_equal(load(tmp_path).product_vectors(["x", "y"]), VECTORS)


def test_an_empty_parquet_file_is_skipped(tmp_path: Path) -> None:
    folder(tmp_path)
    (tmp_path / "products.parquet").unlink()
    write(tmp_path / "products" / "1.parquet", [], np.zeros((0, 3), np.float16))
    write(tmp_path / "products" / "2.parquet", ["a", "b"], VECTORS)
    np.testing.assert_array_equal(load(tmp_path).product_vectors(["a", "b"]), VECTORS)


def test_queries_without_a_vector_are_counted_in_the_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"queries\.npy: no vector of query 'q3' and 1 more of 3"):
        load(folder(tmp_path)).query_vectors(["q1", "q3", "q4"])


def precomputed(path: Path, catalog: Catalog, lacking: int) -> PrecomputedFolder:
    """Precomputed vectors in NumPy arrays, of every query and of all products but the first `lacking`."""
    path.mkdir()
    rng = np.random.default_rng(0)
    (path / "embeddings.json").write_text('{"reads": "both"}')
    for name, ids in (("queries", [q.id for q in catalog.queries]), ("products", [p.id for p in catalog.products])):
        ids = ids[lacking:] if name == "products" else ids
        np.save(path / f"{name}.npy", rng.standard_normal((len(ids), 8)).astype(np.float16))
        (path / f"{name}.ids.txt").write_text("\n".join(ids))
    return load(path)


def test_numpy_vectors_are_memory_mapped(tmp_path: Path) -> None:
    stored = precomputed(tmp_path / "ready", Catalog.load(write_catalog(tmp_path / "tiny", products=20)), 0)
    assert isinstance(stored._products.vectors, np.memmap)
    assert not isinstance(stored.product_vectors(["?"]), np.memmap)


def test_precomputed_vectors_on_disk_and_in_memory_rank_alike(tmp_path: Path) -> None:
    catalog = Catalog.load(write_catalog(tmp_path / "tiny", products=60, queries=16))
    stored = precomputed(tmp_path / "ready", catalog, lacking=9)
    memory, disk = (evaluate(stored, catalog, pool="all", vectors_folder=where) for where in (None, tmp_path / "kept"))
    assert memory.embeddings is not None and disk.embeddings is not None
    np.testing.assert_array_equal(disk.rankings["joint"].indices, memory.rankings["joint"].indices)
    np.testing.assert_array_equal(disk.embeddings.weights, memory.embeddings.weights)
    assert memory.embeddings.absent.sum() == 9
    shards = embed_to_disk(stored, catalog, catalog.products, tmp_path / "small", "all", per_shard=4)  # one has none
    kept = np.concatenate([block.vectors for block in shards.vectors.blocks(dtype=np.float32)])
    np.testing.assert_array_equal(kept, memory.embeddings.vectors)


@pytest.mark.parametrize("where", [None, "kept"])
def test_vectors_of_another_catalog_are_an_input_error(tmp_path: Path, where: str | None) -> None:
    catalog = Catalog.load(write_catalog(tmp_path / "tiny", products=60, queries=16))
    stored = precomputed(tmp_path / "ready", catalog, lacking=59)
    with pytest.raises(InputError, match="the precomputed vectors have none of its 12 products; compare the ids"):
        evaluate(stored, catalog, vectors_folder=where and tmp_path / where)


def broken(path: Path, case: str) -> None:
    """Makes one thing wrong in the folder."""
    if case == "reads":
        (path / "embeddings.json").write_text('{"reads": "audio"}')
    elif case == "json":
        (path / "embeddings.json").write_text("{")
    elif case == "key":
        (path / "embeddings.json").write_text('{"reads": "title", "reads": "both"}')
    elif case == "ids":
        (path / "queries.ids.txt").write_text("q1\n")
    elif case == "twice":
        (path / "queries.ids.txt").write_text("q1\nq1\n")
    elif case == "finite":
        np.save(path / "queries.npy", np.array([[1, 0, 0], [0, np.nan, 0]], np.float32))
    elif case == "archive":
        np.savez(path / "queries.npz", VECTORS)
        (path / "queries.npz").rename(path / "queries.npy")
    elif case == "encoding":
        (path / "queries.ids.txt").write_bytes(b"q1\nq\xe4\n")
    elif case == "no ids":
        (path / "queries.ids.txt").unlink()
    elif case == "no width":
        write(path / "products.parquet", ["a", "b"], VECTORS[:, :0])
    elif case == "null id":
        table = pyarrow.table({"id": ["a", None], "vector": [[1.0, 2.0, 3.0]] * 2})
        parquet.write_table(table, path / "products.parquet")
    elif case == "integers":
        np.save(path / "queries.npy", np.ones((2, 3), np.int8))
    elif case == "pickle":
        np.save(path / "queries.npy", np.array([{}, {}], object), allow_pickle=True)
    elif case == "width":
        write(path / "products.parquet", ["a"], np.ones((1, 4), np.float32))
    elif case == "columns":
        parquet.write_table(pyarrow.table({"id": ["a"], "embedding": [[1.0]]}), path / "products.parquet")
    elif case == "ragged":
        table = pyarrow.table({"id": ["a", "b"], "vector": [[1.0, 2.0, 3.0, 4.0], [1.0, 2.0]]})
        parquet.write_table(table, path / "products.parquet")
    elif case == "null":
        table = pyarrow.table({"id": ["a", "b"], "vector": [[1.0, 2.0, 3.0], None]})
        parquet.write_table(table, path / "products.parquet")
    elif case == "text":
        parquet.write_table(pyarrow.table({"id": ["a"], "vector": ["1 2 3"]}), path / "products.parquet")
    elif case == "empty":
        (path / "products.parquet").write_bytes(b"")


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("reads", 'expected {"reads"'),
        ("json", 'expected {"reads"'),
        ("key", '"reads" occurs twice in one object'),
        ("ids", "1 ids for 2 vectors"),
        ("twice", "duplicate id 'q1' in rows 1 and 2"),
        ("finite", "row 2, id 'q2': a number that is not finite"),
        ("archive", "queries.npy: not a NumPy array (an archive of arrays)"),
        ("encoding", "queries.ids.txt: not UTF-8 at byte 5"),
        ("no ids", "queries.ids.txt: not found"),
        ("no width", "lists that are empty"),
        ("null id", "an id that is null"),
        ("integers", "int8 of shape"),
        ("pickle", "not a NumPy array"),
        ("width", "queries have 3 dimensions and products 4"),
        ("columns", "columns id and vector"),
        ("ragged", "differing lengths"),
        ("null", "nulls"),
        ("text", "vector is of type string"),
        ("empty", "products.parquet"),
    ],
)
def test_a_malformed_folder_is_a_one_line_error(tmp_path: Path, case: str, message: str) -> None:
    broken(folder(tmp_path), case)
    with pytest.raises(InputError) as caught:
        load(tmp_path)
    assert message in str(caught.value) and "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)
