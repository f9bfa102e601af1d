"""Embeds the shards of a vector folder on a Ray cluster: one actor a device, in a pool of Ray Data."""

import dataclasses
import logging
import socket
import warnings
from collections.abc import Callable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from make_jax import ray_cluster
from make_jax.catalog.reader import Catalog
from make_jax.catalog.schema import Product
from make_jax.errors import InputError
from make_jax.extras import import_optional
from make_jax.retrieval.embed import EmbeddingModel, Modality
from make_jax.retrieval.vectors.shards import Header, read_header

if TYPE_CHECKING:
    from make_jax.retrieval.embed_to_disk import ShardWriter

# Of an actor. A shard that kills it each time must end; retries of its task are not bounded, because a lost node uses
# up some until Ray notices that it is lost.
_RESTARTS = 5
_ONE_DEVICE: dict[str, dict[str, Any]] = {  # what an actor reserves
    "gpu": {"num_gpus": 1},
    "tpu": {"resources": {"TPU": 1}},
    "cpu": {"num_cpus": 1},  # a node is one device, since JAX uses all of its cores; Ray Data spreads actors over nodes
}


class _Devices(NamedTuple):
    kind: Literal["gpu", "tpu", "cpu"]
    number: int


@dataclass(frozen=True)
class RayDevices:
    """The devices of a Ray cluster, on which `embed_to_disk` embeds: its GPUs, else its TPU chips, else its nodes.

    Each actor opens the model and writes shards that the driver assigns to it. A killed one is restarted, on another
    node if its own is lost, and repeats its shard only.
    """

    ray: Any  # the connected module, see `ray_cluster.connected`
    load_model: Callable[
        [], EmbeddingModel
    ]  # picklable; opens the model of the driver from a path that all nodes share

    def embed(
        self,
        catalog: Catalog,
        products: Sequence[Product],
        folder: Path,
        header: Header,
        modality: Modality,
        shards: Sequence[int],
    ) -> Iterator[int]:
        """Embeds and writes these shards of a prepared folder; yields the number of each when it is written.

        Raises InputError for what an actor cannot read or write, and when actors are killed again and again.
        """
        data = import_optional("ray.data", "ray", "--ray")
        devices = _devices(self.ray)
        job = _Job(self.load_model, _for_embedding(catalog), products, folder.resolve(), header, modality, devices.kind)
        reference = self.ray.put(job)  # kept for actors that are restarted
        _silence(data)
        rows = data.from_items([{"shard": shard} for shard in shards], override_num_blocks=len(shards))
        actors = min(devices.number, len(shards))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of `max_restarts`: deprecated, and still the only bound
            written = rows.map_batches(
                _Actor,
                fn_constructor_args=(reference,),
                batch_size=1,
                compute=data.ActorPoolStrategy(
                    min_size=1, max_size=actors, initial_size=actors, max_tasks_in_flight_per_actor=1
                ),
                max_restarts=_RESTARTS,
                **_ONE_DEVICE[devices.kind],
            )
        try:
            for row in written.iter_rows():
                if row["error"]:
                    raise InputError(row["error"])
                yield int(row["shard"])
        except self.ray.exceptions.RayError as error:
            raise ray_cluster.input_error(error) from None


def _devices(ray: Any) -> _Devices:
    """The devices of one kind, because vectors of different kinds differ in their last bits."""
    resources = ray.cluster_resources()
    for kind, name in (("gpu", "GPU"), ("tpu", "TPU")):
        if count := int(resources.get(name, 0)):
            return _Devices(kind, count)  # type: ignore[arg-type]
    nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) >= 1]
    return _Devices("cpu", max(1, len(nodes)))


def _for_embedding(catalog: Catalog) -> Catalog:
    """The catalog with an absolute path, and without queries and clicks, which actors do not read."""
    from make_jax.catalog.columns import CLICK_SCHEMA, QUERY_SCHEMA, click_records, query_records

    source = copy(catalog.source)
    source.path = source.path.resolve()
    return dataclasses.replace(
        catalog,
        path=source.path,
        queries=query_records(QUERY_SCHEMA.empty_table()),
        clicks=click_records(CLICK_SCHEMA.empty_table()),
        clicked=np.zeros(0, np.int32),
        source=source,
    )


def _silence(data: Any) -> None:
    """Suppresses the plan, the warnings and the bars that Ray Data prints."""
    data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)


@dataclass(frozen=True)
class _Job:
    """What all actors share: put once into the object store, from which the actors of a node map the products."""

    load_model: Callable[[], EmbeddingModel]
    catalog: Catalog
    products: Sequence[Product]
    folder: Path
    header: Header
    modality: Modality
    kind: str  # of the devices

    def open(self) -> "ShardWriter":
        """A writer of shards on this node. Raises InputError when the node is not like the driver's."""
        from make_jax.retrieval.embed_to_disk import ShardWriter

        ray_cluster.check_paths([self.catalog.path, self.folder])
        if read_header(self.folder) != self.header:
            raise InputError(f"{self.folder}: another vectors.json than that of the driver, expected a shared folder")
        model = self.load_model()
        if (digest := getattr(model, "digest", None)) != self.header.model:
            raise InputError(f"the model has digest {digest}, expected {self.header.model} as the driver's; copy it")
        _check_backend(model, self.kind)
        return ShardWriter(model, self.catalog, self.products, self.folder, self.header, self.modality)


def _check_backend(model: EmbeddingModel, kind: str) -> None:
    """Raises InputError where JAX would embed on the CPU of a node whose accelerator was reserved."""
    import jax

    from make_jax.retrieval.retriever import Retriever

    if isinstance(model, Retriever) and jax.default_backend() != kind:
        raise InputError(
            f"JAX uses its {jax.default_backend()} backend, expected {kind}, of which Ray reserved a device; install "
            f"the extra [{'cuda' if kind == 'gpu' else kind}] on this node"
        )


class _Actor:
    """Writes shards in a separate process. Errors of input are values, because Ray Data would print their stack."""

    def __init__(self, job: Any) -> None:
        """`job` is a reference to a _Job."""
        self._reference = job
        self._writer: ShardWriter | None = None

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        """Writes the shard of a batch of one row."""
        import ray

        shard = int(batch["shard"][0])
        try:
            if self._writer is None:
                job: _Job = ray.get(self._reference)
                self._writer = job.open()
            self._writer.write_unless_written(shard)
        except InputError as error:
            return {"shard": [shard], "error": [f"Ray node {socket.gethostname()}: {error}"]}
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            return {"shard": [shard], "error": [f"Ray node {socket.gethostname()}: {where}{error.strerror or error}"]}
        return {"shard": [shard], "error": [""]}
