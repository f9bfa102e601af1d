"""Mirrors of folders in an object store, against local servers with the API of S3 and of Google Cloud Storage."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from make_jax.catalog.build import build
from make_jax.catalog.reader import Catalog
from make_jax.errors import InputError
from make_jax.files import folder_digest
from make_jax.object_stores import RUN, Mirror, local_path
from tests.conftest import ROOT
from tests.object_store_servers import scheme, use_machine
from tests.tiny_catalog import write_catalog


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def stored(store, url: str) -> dict[str, str]:
    """Name -> content of all objects below a URL."""
    root = url.partition("://")[2]
    return {key.removeprefix(root + "/"): store.cat_file(key).decode() for key in store.find(root)}


def stored_times(store, key: str) -> list[str]:
    """When an object was written; S3 and Google name it differently."""
    info = store.info(key)
    return [str(info[name]) for name in ("LastModified", "updated") if name in info]


def checkpoint(step: int, *, marker: bool = True) -> dict[str, str]:
    folder = f"checkpoints/last/{step:06d}"
    files = {f"{folder}/state/a": f"a{step}", f"{folder}/meta.json": "{}"}
    return files | ({f"{folder}/manifest.json": str(step)} if marker else {})


# --- paths ---


def test_a_local_path_needs_no_library_and_is_unchanged(tmp_path):
    program = "import sys, make_jax.object_stores as o; print(o.local_path('a/b'), {'fsspec', 's3fs'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == "a/b set()\n"
    assert local_path(tmp_path) == tmp_path


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://shop/run", "unknown scheme http://, expected a local path, s3:// or gs://"),
        ("s3://bucket", "expected s3://BUCKET/NAME"),
        ("s3:///run", "expected s3://BUCKET/NAME"),
        ("s3://bucket/../other/run", "expected s3://BUCKET/NAME"),
    ],
)
def test_what_is_no_url_of_a_folder_is_an_input_error(url, expected):
    with pytest.raises(InputError, match=expected):
        local_path(url)


def test_a_missing_extra_is_named_with_its_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(InputError, match=r"gs://shop/run needs gcsfs .*pip install .*\[gcs\]"):
        Mirror("gs://shop/run").pull()


# --- push and pull ---


def test_a_push_uploads_what_changed_and_deletes_what_was_deleted(store, bucket):
    mirror = Mirror(f"{bucket}/run", RUN)
    write(mirror.path, {"config.json": "1", **checkpoint(1), ".partial-x/a": "no", "eval/t/report.json": "r"})
    mirror.push()
    assert stored(store, mirror.url) == {"config.json": "1", **checkpoint(1), "eval/t/report.json": "r"}
    before = stored_times(store, f"{mirror.root}/config.json")
    shutil.rmtree(mirror.path / "checkpoints/last/000001")
    write(mirror.path, checkpoint(2))
    mirror.push(delete=True)
    assert stored(store, mirror.url) == {"config.json": "1", **checkpoint(2), "eval/t/report.json": "r"}
    assert stored_times(store, f"{mirror.root}/config.json") == before


def test_another_machine_gets_complete_folders_only(store, bucket, tmp_path, monkeypatch):
    for name, text in {"config.json": "1", **checkpoint(1), **checkpoint(2, marker=False)}.items():
        store.pipe_file(f"{bucket}/run/{name}", text.encode())
    mirror = Mirror(f"{bucket}/run", RUN)
    mirror.pull()
    assert {p.relative_to(mirror.path).as_posix() for p in mirror.path.rglob("*") if p.is_file()} == {
        "config.json",
        *checkpoint(1),
    }
    mirror.delete_incomplete()
    assert stored(store, mirror.url) == {"config.json": "1", **checkpoint(1)}
    use_machine(monkeypatch, tmp_path / "other")
    other = Mirror(f"{bucket}/run", RUN)
    other.pull()
    write(other.path, {"config.json": "two"})
    other.push()
    use_machine(monkeypatch, tmp_path / "machine")
    write(mirror.path, {"notes.txt": "mine"})
    mirror.pull()  # the other machine's change is newer, and the file that only exists here is kept
    assert (mirror.path / "config.json").read_text() == "two"
    assert (mirror.path / "notes.txt").read_text() == "mine"


def test_a_local_change_that_was_not_uploaded_is_kept_and_uploaded_later(store, bucket):
    mirror = Mirror(f"{bucket}/run", RUN)
    write(mirror.path, {"metrics.jsonl": "1"})
    mirror.push()
    write(mirror.path, {"metrics.jsonl": "1, 2"})
    mirror.pull()
    assert (mirror.path / "metrics.jsonl").read_text() == "1, 2"
    mirror.push()
    assert stored(store, mirror.url) == {"metrics.jsonl": "1, 2"}


def test_the_marker_of_a_replaced_folder_is_deleted_first_and_uploaded_last(store, bucket, monkeypatch):
    mirror = Mirror(f"{bucket}/run", RUN)
    write(mirror.path, {"eval/t/report.json": "old", "eval/t/a": "old", "eval/t/b": "old"})
    mirror.push()
    shutil.rmtree(mirror.path / "eval/t")
    write(mirror.path, {"eval/t/report.json": "newer", "eval/t/a": "newer"})
    calls = record(monkeypatch)
    mirror.push(delete=True)
    assert calls == [
        ("_delete", ["eval/t/report.json"]),
        ("_upload", ["eval/t/a"]),
        ("_delete", ["eval/t/b"]),
        ("_upload", ["eval/t/report.json"]),
    ]
    assert stored(store, mirror.url) == {"eval/t/report.json": "newer", "eval/t/a": "newer"}


def record(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, list[str]]]:
    """The uploads and deletions from now on, in order."""
    calls: list[tuple[str, list[str]]] = []
    for method in ("_delete", "_upload"):
        original = getattr(Mirror, method)

        def recorded(self, names, original=original, method=method):
            calls.extend([(method, list(names))] if names else [])
            original(self, names)

        monkeypatch.setattr(Mirror, method, recorded)
    return calls


def test_an_older_checkpoint_is_deleted_after_the_newer_one_is_complete(store, bucket, monkeypatch):
    mirror = Mirror(f"{bucket}/run", RUN)
    write(mirror.path, checkpoint(1))
    mirror.push()
    shutil.rmtree(mirror.path / "checkpoints/last/000001")
    write(mirror.path, checkpoint(2))
    calls = record(monkeypatch)
    mirror.push(delete=True)
    marker, meta, state = sorted(checkpoint(2))
    old_marker, old_meta, old_state = sorted(checkpoint(1))
    assert calls == [
        ("_upload", [meta, state]),
        ("_upload", [marker]),
        ("_delete", [old_marker]),
        ("_delete", [old_meta, old_state]),
    ]
    assert stored(store, mirror.url) == checkpoint(2)


def test_a_complete_upload_that_was_not_noted_is_not_replaced(store, bucket, monkeypatch):
    mirror = Mirror(f"{bucket}/run", RUN)
    write(mirror.path, checkpoint(1))
    with monkeypatch.context() as patch:
        patch.setattr(
            Mirror,
            "_write_index",
            lambda self, index, write=Mirror._write_index: write(
                self, {name: known._replace(etag="") for name, known in index.items()}
            ),
        )  # as if killed before the index was written
        mirror.push()
    calls = record(monkeypatch)
    mirror.push(delete=True)
    assert calls == []
    assert stored(store, mirror.url) == checkpoint(1)


_PUSHES = """
import shutil, sys
from make_jax.object_stores import RUN, Mirror
mirror = Mirror(sys.argv[1], RUN)
mirror.pull()
mirror.delete_incomplete()
folder = mirror.path / "checkpoints/last"
shutil.rmtree(folder / ".partial-old", ignore_errors=True)
shutil.rmtree(folder / ".partial-new", ignore_errors=True)
done = max((int(path.name) for path in folder.glob("*")), default=0)
print("start", done, flush=True)
for step in range(done + 1, done + 1000):
    for name, size in (("state/a", 3000), ("state/b", 300_000), ("meta.json", 10), ("manifest.json", 20)):
        path = folder / ".partial-new" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(str(step % 10).encode() * size)
    path.parent.rename(folder / f"{step:06d}")
    if step > 1:
        old = folder / f"{step - 1:06d}"
        shutil.rmtree(old.rename(folder / ".partial-old"))
    mirror.push(delete=True)
    print(step, flush=True)
"""


def test_after_a_kill_at_any_instant_the_store_has_a_complete_checkpoint(store, bucket, tmp_path, monkeypatch):
    newest = 0
    for kill, machine in enumerate(("first", "first", "second", "first")):
        use_machine(monkeypatch, tmp_path / machine)
        command = [sys.executable, "-c", _PUSHES, f"{bucket}/run"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        assert process.stdout is not None
        start = int(process.stdout.readline().split()[1])
        uploaded = [int(process.stdout.readline()) for _ in range(2)]
        time.sleep(0.017 * kill)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        assert start >= newest  # no checkpoint that another start has seen was lost
        use_machine(monkeypatch, tmp_path / f"reader-{kill}")
        reader = Mirror(f"{bucket}/run", RUN)
        reader.pull()
        steps = sorted(path.name for path in (reader.path / "checkpoints/last").glob("*"))
        assert steps
        for step in steps:
            folder = reader.path / "checkpoints/last" / step
            sizes = {"state/a": 3000, "state/b": 300_000, "meta.json": 10, "manifest.json": 20}
            assert {name: (folder / name).read_bytes() for name in sizes} == {
                name: str(int(step) % 10).encode() * size for name, size in sizes.items()
            }
        newest = int(steps[-1])
        assert newest >= uploaded[-1]


# --- errors ---


def test_missing_buckets_and_files_in_place_of_folders_are_one_line(store, bucket):
    url = f"{scheme(store)}://no-such-bucket/run"
    with pytest.raises(InputError, match=rf"^{url}: cannot read it \(no bucket no-such-bucket\)"):
        Mirror(url).pull()
    missing = Mirror(url)
    write(missing.path, {"a": "a"})
    with pytest.raises(InputError, match=rf"^{url}: cannot write it \(no bucket no-such-bucket\)"):
        missing.push()
    store.pipe_file(f"{bucket}/file", b"x")
    with pytest.raises(InputError, match="is a file, expected a folder"):
        Mirror(f"{bucket}/file").pull()
    with pytest.raises(InputError, match="not found, expected a catalog folder"):
        Catalog.load(f"{bucket}/none")


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, "Could not connect to the endpoint URL"),
        ({"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", "AWS_EC2_METADATA_DISABLED": "1"}, "credentials"),
    ],
)
def test_without_endpoint_or_credentials_a_program_ends_with_one_line_and_code_2(store, bucket, changed, expected):
    if scheme(store) != "s3":
        pytest.skip("gcsfs repeats its requests for half a minute")
    command = [sys.executable, "-m", "make_jax.catalog", "build", f"{bucket}/catalog"]
    done = subprocess.run(command, env=os.environ | changed, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 2
    assert expected in done.stderr
    assert len(done.stderr.splitlines()) == 1


# --- catalogs and builds ---


def put(store, folder: Path, url: str) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            store.put_file(str(path), f"{url}/{path.relative_to(folder).as_posix()}")


def test_a_catalog_and_its_build_are_as_local_ones(store, bucket, tmp_path, monkeypatch):
    put(store, write_catalog(tmp_path / "tiny"), f"{bucket}/tiny")
    local = build(tmp_path / "tiny", str(tmp_path / "cache"), workers=1)
    built = build(f"{bucket}/tiny", f"{bucket}/cache", workers=1)
    assert folder_digest(built.folder / "products") == folder_digest(local.folder / "products")
    keys = store.find(f"{bucket}/cache/{built.folder.name}")
    assert {key.split("/", 3)[3] for key in keys} == {*built.manifest["files"], "manifest.json", "columns/columns.json"}
    use_machine(monkeypatch, tmp_path / "fresh")
    monkeypatch.setattr("make_jax.catalog.build._build_in", None)  # it is downloaded, not built again
    catalog = Catalog.load(f"{bucket}/tiny", f"{bucket}/cache")
    assert catalog.columns is not None
    assert catalog.digest == local.manifest["digest"]
    fresh = build(catalog, f"{bucket}/cache")
    assert fresh.folder != built.folder
    assert fresh.products("train")[0] == local.products("train")[0]


def test_a_changed_catalog_is_downloaded_again_and_an_unchanged_one_is_not(store, bucket, tmp_path):
    put(store, write_catalog(tmp_path / "tiny"), f"{bucket}/tiny")
    first = Catalog.load(f"{bucket}/tiny")
    times = {path: path.stat().st_ctime_ns for path in first.path.rglob("*") if path.is_file()}
    assert Catalog.load(f"{bucket}/tiny").source.stamp == first.source.stamp
    assert {path: path.stat().st_ctime_ns for path in times} == times
    text = (first.path / "products.jsonl").read_text()
    store.pipe_file(f"{bucket}/tiny/products.jsonl", text.replace("circle number 0", "circle number 00").encode())
    second = Catalog.load(f"{bucket}/tiny")
    assert second.source.stamp != first.source.stamp
    assert second.products[0].title.endswith("number 00")
    (second.path / "products.jsonl").write_text("damaged")  # by hand, in the mirror
    assert Catalog.load(f"{bucket}/tiny").products[0].title.endswith("number 00")


def test_a_zip_is_read_by_its_url(store, bucket, tmp_path):
    store.put_file(str(write_catalog(tmp_path / "tiny", zipped=True)), f"{bucket}/tiny.zip")
    assert Catalog.load(f"{bucket}/tiny.zip").digest == Catalog.load(tmp_path / "tiny").digest
