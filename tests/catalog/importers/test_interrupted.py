"""An interrupted import resumes, and its result is byte-equal to that of an uninterrupted one."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from make_jax.catalog.importers import import_state, tables
from make_jax.catalog.importers.command import READERS
from make_jax.errors import InputError
from tests.catalog.importers import published, samples, shop_exports
from tests.catalog.importers.contents import contents
from tests.catalog.importers.imports import imported

ROOT = Path(__file__).resolve().parents[3]


def esci_with_images(folder: Path) -> list[str]:
    images = published.img2dataset_output(folder / "sqid", "webdataset", [f"B{number:03d}" for number in range(8)])
    return ["esci", str(published.esci(folder / "esci-data")), "--images", str(images)]


def fashion_with_clicks(folder: Path) -> list[str]:
    return ["fashion", str(published.kaggle_fashion(folder / "kaggle", products=9)), "--sparse", "--clicks"]


def muge(folder: Path) -> list[str]:
    return ["muge", str(published.muge(folder / "MUGE", images=6))]


def marqo_gs(folder: Path) -> list[str]:
    source, images = published.marqo_gs_files(folder / "gs")
    return ["marqo-gs", str(source), "--images", str(images)]


def shards(folder: Path) -> list[str]:
    return ["webdataset", str(samples.webdataset_shards(folder / "shards", samples=2))]


def shopify_export(folder: Path) -> list[str]:
    source, images = shop_exports.shopify(folder / "shop", products=4)
    return ["shopify", str(source), "--images", str(images)]


@pytest.mark.parametrize("publish", [esci_with_images, fashion_with_clicks, muge, marqo_gs, shards, shopify_export])
def test_an_import_killed_at_any_line_ends_byte_equal(tmp_path: Path, publish: Callable[[Path], list[str]]) -> None:
    command = [sys.executable, "-m", "tests.catalog.importers.killed_imports", str(tmp_path / "killed"), "8"]
    done = subprocess.run([*command, *publish(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    counts = json.loads(done.stdout)
    assert counts["killed"] >= 20, counts
    assert (counts["partial"], counts["different"], counts["left"]) == (0, 0, 0), counts


def test_committed_rows_are_not_handled_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_state, "BATCH", 4)
    source = published.muge(tmp_path / "MUGE", images=12)
    text = (source / "train_imgs.tsv").read_text(encoding="utf-8")
    lines = text.splitlines()
    lines[9] = "1009\t%%%%"
    (source / "train_imgs.tsv").write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(InputError, match=r"train_imgs\.tsv:10: product 1009: invalid base64"):
        imported(tmp_path / "out", "muge", source)
    starts: list[int] = []
    rows = tables.TextLines.rows
    monkeypatch.setattr(tables.TextLines, "rows", lambda self, start: starts.append(start) or rows(self, start))
    with pytest.raises(InputError, match="invalid base64"):
        imported(tmp_path / "out", "muge", source)
    assert starts == [8]
    imported(tmp_path / "out", "muge", source, "--bad-rows", "9")  # a resumed import may allow more
    assert starts[1] == 8
    imported(tmp_path / "again/out", "muge", source, "--bad-rows", "9")
    assert contents(tmp_path / "out") == contents(tmp_path / "again/out")


def test_a_changed_source_is_imported_from_the_start(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(import_state, "BATCH", 1)
    source = published.wands(tmp_path / "WANDS")
    label = source / "dataset/label.csv"
    text = label.read_text(encoding="utf-8")
    label.write_text(text.replace("0\tExact", "0\texact"), encoding="utf-8")
    with pytest.raises(InputError, match='label: found "exact", expected one of Exact, Partial, Irrelevant'):
        imported(tmp_path / "out", "wands", source)
    assert not (tmp_path / "out").exists()
    label.write_text(text, encoding="utf-8")
    imported(tmp_path / "out", "wands", source)
    assert "starting over" in capsys.readouterr().err
    imported(tmp_path / "again/out", "wands", source)
    assert contents(tmp_path / "out") == contents(tmp_path / "again/out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["WANDS", "again", "out"]


def test_other_options_start_over(tmp_path: Path) -> None:
    source = published.kaggle_fashion(tmp_path / "kaggle")
    (source / "images/1007.jpg").write_bytes(b"no image")
    with pytest.raises(InputError, match="not a JPEG"):
        imported(tmp_path / "out", "fashion", source)
    imported(tmp_path / "out", "fashion", source, "--bad-rows", "1")
    imported(tmp_path / "again/out", "fashion", source, "--bad-rows", "1")
    assert contents(tmp_path / "out") == contents(tmp_path / "again/out")


def test_an_existing_target_is_not_modified(tmp_path: Path) -> None:
    source = published.wands(tmp_path / "WANDS")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine").write_text("mine", encoding="utf-8")
    with pytest.raises(InputError, match=r"out: exists already, expected a new folder; remove it or name another"):
        imported(tmp_path / "out", "wands", source)
    assert contents(tmp_path / "out") == {"mine": b"mine"}


def test_a_concurrent_second_import_is_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = published.wands(tmp_path / "WANDS")

    def import_concurrently(*_: object) -> None:
        with pytest.raises(InputError, match=r"database is locked.*end the other import"):
            imported(tmp_path / "out", "wands", source)
        raise InputError("done")

    def read(*_: object) -> None:
        monkeypatch.undo()
        import_concurrently()

    monkeypatch.setitem(READERS, "wands", read)
    with pytest.raises(InputError, match=r"^done$"):
        imported(tmp_path / "out", "wands", source)


def test_images_given_by_another_path_are_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, source, _, images = esci_with_images(tmp_path)
    monkeypatch.setattr(import_state.ImportState, "finish", lambda *_: (_ for _ in ()).throw(InputError("interrupted")))
    with pytest.raises(InputError, match="interrupted"):
        imported(tmp_path / "out", "esci", Path(source), "--images", images)
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    catalog = imported(tmp_path / "out", "esci", Path(source), "--images", "sqid")
    assert sum(product.image is not None for product in catalog.products) == 7


def test_a_damaged_database_is_reported(tmp_path: Path) -> None:
    source = published.wands(tmp_path / "WANDS")
    (tmp_path / ".importing-out").mkdir()
    (tmp_path / ".importing-out/work.db").write_bytes(b"no database " * 400)
    with pytest.raises(InputError, match=r"\.importing-out: its database is damaged .*delete the folder to start over"):
        imported(tmp_path / "out", "wands", source)
