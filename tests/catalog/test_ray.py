"""A build on a Ray cluster of two nodes: the bytes of one process."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from make_jax.catalog import line_chunks, shards
from make_jax.catalog.build import build
from make_jax.files import folder_digest
from tests.tiny_catalog import write_catalog

ray = pytest.importorskip("ray", reason="needs the extra [ray]")
pytestmark = pytest.mark.filterwarnings("default")  # of Ray's own files


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    cluster.add_node(num_cpus=1)
    yield cluster.address
    cluster.shutdown()


def test_a_ray_cluster_builds_the_bytes_of_one_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    path = write_catalog(tmp_path / "tiny", products=60)
    monkeypatch.setattr(line_chunks, "CHUNK_BYTES", 2000)
    monkeypatch.setattr(shards, "SHARD_BYTES", 2000)
    one = build(path, str(tmp_path / "one"), workers=1)
    two = build(path, str(tmp_path / "two"), ray=address)
    assert len(list((one.folder / "products").glob("*array_record*"))) > 3
    assert folder_digest(one.folder) == folder_digest(two.folder)
