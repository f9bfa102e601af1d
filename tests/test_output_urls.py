"""New folders in an object store: an imported catalog, an export, and where a new run is initialized from."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from make_jax.catalog.reader import Catalog
from make_jax.cli.convert import main as convert
from make_jax.errors import InputError
from make_jax.object_stores import Mirror
from make_jax.output_urls import output_folder
from make_jax.retrieval.retriever import Retriever
from make_jax.training.initialization import find_init_from
from tests.conftest import ROOT
from tests.interop.exports import random_run
from tests.object_store_servers import use_machine


def import_table(folder: Path, out: str) -> "subprocess.CompletedProcess[str]":
    (folder / "t.csv").write_text("id,title,colour\na,Red boots,red\nb,Blue coat,blue\nc,Green hat,green\n")
    command = [sys.executable, "-m", "make_jax.catalog", "import", "table", str(folder / "t.csv"), out]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)


def test_an_imported_catalog_is_uploaded_and_read_by_its_url(bucket, tmp_path, monkeypatch):
    done = import_table(tmp_path, f"{bucket}/shop")
    assert done.returncode == 0, done.stderr
    assert f"{bucket}/shop: " in done.stdout and "mirrors" not in done.stdout
    use_machine(monkeypatch, tmp_path / "other")
    assert [product.title for product in Catalog.load(f"{bucket}/shop").products] == [
        "Red boots",
        "Blue coat",
        "Green hat",
    ]
    again = import_table(tmp_path, f"{bucket}/shop")
    assert (again.returncode, again.stderr.splitlines()) == (
        2,
        [f"error: {bucket}/shop: exists already, expected a new name; remove it or choose another"],
    )


def test_a_failed_block_uploads_nothing_and_an_interrupted_upload_is_completed(store, bucket, monkeypatch):
    with pytest.raises(InputError, match="no such row"), output_folder(f"{bucket}/new", "last") as folder:
        folder.mkdir(parents=True)
        raise InputError("no such row")
    assert store.find(f"{bucket}/new") == []
    upload = Mirror._upload

    def interrupted(self, names):
        if "last" in names:
            raise KeyboardInterrupt
        upload(self, names)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Mirror, "_upload", interrupted)
        with output_folder(f"{bucket}/new", "last") as folder:
            for name in ("a", "last", "z"):
                (folder / name).write_text(name)
    names = [key.rpartition("/")[2] for key in store.find(f"{bucket}/new")]
    assert sorted(names) == ["a", "z"]  # without the last file
    with (
        pytest.raises(InputError, match="whose upload was interrupted, is complete there now"),
        output_folder(f"{bucket}/new", "last"),
    ):
        raise AssertionError("nothing is left to write")
    assert store.cat_file(f"{bucket}/new/last") == b"last"


def test_an_export_is_uploaded_and_a_run_is_initialized_from_a_url(store, bucket, tmp_path, monkeypatch):
    run = random_run(tmp_path)
    for path in run.rglob("*"):
        if path.is_file():
            store.put_file(str(path), f"{bucket}/run/{path.relative_to(run).as_posix()}")
    convert(["export", f"{bucket}/run", f"{bucket}/exported", "--to", "torch"])
    assert store.exists(f"{bucket}/exported/README.md") and store.exists(f"{bucket}/exported/model.safetensors")
    use_machine(monkeypatch, tmp_path / "other")
    source = find_init_from(f"{bucket}/run")
    assert source.meta == find_init_from(str(run)).meta
    texts = ["red boots", "a blue coat"]
    np.testing.assert_array_equal(
        Retriever.load(f"{bucket}/run").encode_queries(texts), Retriever.load(run).encode_queries(texts)
    )
