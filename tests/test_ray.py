"""A Ray cluster of two nodes: the bytes of one process, killed workers, and errors as one line."""

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from make_jax import ray_cluster
from make_jax.catalog import line_chunks, shards
from make_jax.catalog.build import build
from make_jax.catalog.executors import open_executor
from make_jax.catalog.reader import Catalog
from make_jax.errors import InputError
from make_jax.files import folder_digest
from make_jax.retrieval import ray_devices
from make_jax.retrieval.embed_to_disk import embed_to_disk
from make_jax.retrieval.ray_devices import RayDevices
from make_jax.retrieval.vector_index import ProductEmbeddings
from tests.conftest import ROOT
from tests.retrieval.fake_encoder import FakeEncoder
from tests.retrieval.killed_embeddings import contents
from tests.tiny_catalog import write_catalog

pytestmark = pytest.mark.filterwarnings("default")  # of Ray's own files


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Two nodes of one CPU, and this process connected to them."""
    ray = pytest.importorskip("ray", reason="needs the extra [ray]")
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    cluster.add_node(num_cpus=1)
    with ray_cluster.connected(cluster.address):
        assert len(ray.nodes()) == 2
        yield cluster.address
    cluster.shutdown()


def test_a_cluster_builds_the_bytes_of_one_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    path = write_catalog(tmp_path / "tiny", products=60)
    monkeypatch.setattr(line_chunks, "CHUNK_BYTES", 2000)
    monkeypatch.setattr(shards, "SHARD_BYTES", 2000)
    one = build(path, str(tmp_path / "one"), workers=1)
    monkeypatch.chdir(tmp_path)
    two = build("tiny", "two", ray=address)  # workers have another working directory
    assert len(list((one.folder / "products").glob("*array_record*"))) > 3
    assert len(list((one.folder / "columns").glob("products-*.arrow"))) > 3
    assert folder_digest(one.folder) == folder_digest(two.folder)


def test_a_killed_worker_costs_its_job_only(tmp_path: Path, address: str) -> None:
    def job(number: int) -> int:
        with (tmp_path / "runs").open("a") as file:
            file.write(f"{number}\n")
        if number == 2 and not (tmp_path / "killed").exists():
            (tmp_path / "killed").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return 10 * number

    with open_executor(ray=address, paths=[tmp_path]) as executor:
        assert list(executor.map(job, [(number,) for number in range(6)])) == [0, 10, 20, 30, 40, 50]
    runs = sorted((tmp_path / "runs").read_text().split())
    assert runs == ["0", "1", "2", "2", "3", "4", "5"]


def test_a_cluster_embeds_the_bytes_of_one_process_and_a_killed_actor_costs_its_shard_only(
    tmp_path: Path, address: str
) -> None:
    catalog = Catalog.load(write_catalog(tmp_path / "tiny", products=60))

    class Encoder(FakeEncoder):
        def encode_products(self, titles: Sequence[str], images: Sequence[bytes | None]) -> ProductEmbeddings:
            with (tmp_path / "embedded").open("a") as file:
                file.write(f"{titles[0]}\n")
            if any(title.endswith("number 29") for title in titles) and not (tmp_path / "killed").exists():
                (tmp_path / "killed").touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return super().encode_products(titles, images)

    progress: list[tuple[str, int, int]] = []
    embed_to_disk(FakeEncoder(), catalog, catalog.products, tmp_path / "one", "all", per_shard=7)
    with ray_cluster.connected(address) as ray:
        devices = RayDevices(ray, Encoder)
        embed_to_disk(
            FakeEncoder(),
            catalog,
            catalog.products,
            tmp_path / "two",
            "all",
            progress=lambda *step: progress.append(step),
            per_shard=7,
            devices=devices,
        )
    assert contents(tmp_path / "two") == contents(tmp_path / "one")
    assert progress[-1] == ("products (both)", 60, 60) and len(progress) == 9
    embedded = Counter((tmp_path / "embedded").read_text().splitlines())
    assert sorted(embedded.values()) == [1] * 8 + [2]


def test_a_node_with_another_model_is_named(tmp_path: Path, address: str) -> None:
    catalog = Catalog.load(write_catalog(tmp_path / "tiny", products=8))
    other = FakeEncoder()
    other.digest = "another"
    with (
        ray_cluster.connected(address) as ray,
        pytest.raises(InputError, match=r"^Ray node .*: the model has digest fake, expected another as the driver's"),
    ):
        embed_to_disk(other, catalog, catalog.products, tmp_path / "f", "all", devices=RayDevices(ray, FakeEncoder))


def test_a_shard_that_kills_every_actor_ends_with_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.setattr(ray_devices, "_RESTARTS", 1)
    catalog = Catalog.load(write_catalog(tmp_path / "tiny", products=8))

    class Encoder(FakeEncoder):
        def encode_products(self, titles: Sequence[str], images: Sequence[bytes | None]) -> ProductEmbeddings:
            os.kill(os.getpid(), signal.SIGKILL)
            return super().encode_products(titles, images)

    with (
        ray_cluster.connected(address) as ray,
        pytest.raises(InputError, match=r"^--ray: \w+: .*; run the same command again, which does what is missing$"),
    ):
        embed_to_disk(FakeEncoder(), catalog, catalog.products, tmp_path / "f", "all", devices=RayDevices(ray, Encoder))


def test_errors_of_jobs_are_those_of_the_local_processes(tmp_path: Path, address: str) -> None:
    def invalid() -> None:
        raise InputError("line 3: wrong")

    def full() -> None:
        raise OSError(28, "No space left on device", "file")

    with open_executor(ray=address, paths=[tmp_path]) as executor:
        with pytest.raises(InputError, match=r"^line 3: wrong$"):
            executor.submit(invalid)()
        with pytest.raises(OSError, match="No space left") as error:
            executor.submit(full)()
    assert (error.value.errno, error.value.filename) == (28, "file")


def test_a_node_without_the_folder_is_named(tmp_path: Path, address: str) -> None:
    missing = tmp_path / "not shared"
    with (
        open_executor(ray=address, paths=[missing]) as executor,
        pytest.raises(InputError, match=rf"^{missing}: not found on the Ray node .*, expected a path on a file system"),
    ):
        executor.submit(len, "")()


CONNECTED = """
import sys, time
from make_jax.ray_cluster import connected
from make_jax.signals import exit_on_signals
exit_on_signals()
with connected(sys.argv[1]):
    print("ready", flush=True)
    time.sleep(60)
"""


def test_sigterm_ends_a_connected_process_with_one_line(address: str) -> None:
    command = [sys.executable, "-c", CONNECTED, address]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        while process.stdout.readline() not in ("ready\n", ""):
            pass
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=30)
    assert errors.splitlines()[-1:] == ["stopped by SIGTERM"] and "***" not in errors
    assert process.returncode == 128 + signal.SIGTERM


def test_without_ray_the_option_names_the_command_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"^--ray needs ray \(.*\); install it: pip install -e '.*\[ray\]'"):
        build(cache=str(tmp_path), ray="auto")


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("127.0.0.1:1", r"nothing answers there \(.*refused\), expected the address that `ray start --head` printed"),
        ("here", "expected host:port of the cluster's head node, or auto"),
        ("ray://127.0.0.1:10001", "expected host:port of the cluster's head node, or auto"),
    ],
)
def test_a_wrong_address_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str, reason: str
) -> None:
    class Ray:
        @staticmethod
        def is_initialized() -> bool:
            return False

    monkeypatch.setattr(ray_cluster, "import_optional", lambda *_: Ray)
    with pytest.raises(InputError, match=f"^--ray {address}: {reason}$"):
        build(cache=str(tmp_path), ray=address)
