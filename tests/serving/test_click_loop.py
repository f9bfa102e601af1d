"""The loop of a shop: train, index, search, click, train on the clicks, index again, without stopping the server."""

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from starlette.testclient import TestClient

from make_jax.catalog.reader import Catalog
from make_jax.cli.search import main
from make_jax.serving.http.app import create_app
from make_jax.serving.http.settings import HttpSettings
from make_jax.serving.opened import OpenOptions
from make_jax.serving.service import IndexService
from make_jax.training.loop import train
from tests.training.tiny_run import tiny_config

pytestmark = pytest.mark.usefixtures("few_fit_steps")


def mean_rank(client: TestClient, query: str, wanted: set[str]) -> float:
    """The mean rank of the products `wanted` in the results of `query`."""
    hits = client.get("/v1/search", params={"q": query, "limit": 1000}).json()["hits"]
    ranks = [rank for rank, hit in enumerate(hits, 1) if hit["id"] in wanted]
    assert len(ranks) == len(wanted)
    return float(np.mean(ranks))


def wait_for_version(client: TestClient, version: str) -> None:
    end = time.monotonic() + 60
    while client.get("/v1/index").json()["version"] != version:
        assert time.monotonic() < end, f"the server does not use {version}"
        time.sleep(0.05)


def test_clicks_of_the_server_train_the_next_version(tmp_path: Path) -> None:
    first = tiny_config(tmp_path)
    shop, index, clicks = Path(first.data.catalog), str(tmp_path / "index"), tmp_path / "clicks.jsonl"
    red = [p for p in Catalog.load(shop).products if p.split == "train" and p.title.startswith("red ")]
    train(first)
    assert main(["index", first.run, "", index, "--lexical-weight", "0"]) is None
    with IndexService.open(Path(index), OpenOptions(warm_up=False)) as service:
        service.watch(0.05)
        client = TestClient(create_app({"test": service}, HttpSettings(clicks=clicks)), base_url="http://localhost")
        before = mean_rank(client, "ruby", {p.id for p in red})  # a word that the catalog lacks
        for product in red * 4:
            assert client.post("/v1/click", json={"query": "ruby", "product": product.id}).status_code == 204
        with (shop / "clicks.jsonl").open("a", encoding="utf-8") as file:
            file.write(clicks.read_text("utf-8"))
        longer = replace(first.train, init_from=first.run, steps=60, eval_every=60, save_every=60)
        again = replace(first, run=str(tmp_path / "again"), train=longer)
        train(again)
        assert main(["index", again.run, "", index, "--lexical-weight", "0"]) is None
        wait_for_version(client, "v2")
        after = mean_rank(client, "ruby", {p.id for p in red})
    assert after < before and after <= len(red)
