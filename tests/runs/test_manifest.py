"""The manifest of a folder that several processes wrote."""

from pathlib import Path

import pytest

from make_jax.errors import InputError
from make_jax.runs import manifest


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Files of two processes and a common one."""
    for name in ("own_0/a", "own_1/a", "own_1/deep/b", "common"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"content of {name}")
    return tmp_path


def test_files_of_a_part_are_not_read_again_and_the_manifest_is_the_same(folder, monkeypatch):
    manifest.write(folder)
    expected = (folder / manifest.NAME).read_bytes()
    (folder / manifest.NAME).unlink()
    for process in (0, 1):
        manifest.write_part(folder, folder / f"own_{process}", process)
    read: list[Path] = []
    digest = manifest._digest
    monkeypatch.setattr(manifest, "_digest", lambda path, sync: read.append(path) or digest(path, sync))
    manifest.write(folder)
    assert read == [folder / "common"]
    assert (folder / manifest.NAME).read_bytes() == expected
    assert sorted(manifest.verify(folder)) == ["common", "own_0/a", "own_1/a", "own_1/deep/b"]
    (folder / "own_1/deep/b").write_text("Content of own_1/deep/b")
    with pytest.raises(InputError, match=r"own_1/deep/b: damaged, its SHA-256 differs"):
        manifest.verify(folder)


def test_a_process_that_wrote_nothing_has_an_empty_part(folder):
    manifest.write_part(folder, folder / "own_2", 2)
    manifest.write(folder)
    assert len(manifest.verify(folder)) == 4


@pytest.mark.parametrize("change", ["grown", "deleted"])
def test_a_file_that_changed_since_its_process_digested_it_fails_the_save(folder, change):
    manifest.write_part(folder, folder / "own_1", 1)
    if change == "grown":
        (folder / "own_1/a").write_text("more than that was the content of this file")
    else:
        (folder / "own_1/a").unlink()
    with pytest.raises(OSError, match=r"own_1/a: (43 bytes, its process wrote|missing)"):
        manifest.write(folder)
    assert not (folder / manifest.NAME).exists()
