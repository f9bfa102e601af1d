"""`search.py index`, `switch` and `check` from the command line."""

from pathlib import Path

import pytest

from make_jax.catalog.reader import Catalog
from make_jax.cli.search import main
from make_jax.errors import InputError
from make_jax.serving.index.reader import open_index
from tests.conftest import ROOT
from tests.tiny_catalog import write_catalog

MODEL = str(ROOT / "tests" / "serving" / "index" / "encoder_file.py")


def test_an_index_is_built_checked_and_switched(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    catalog, index = str(write_catalog(tmp_path / "tiny", products=60, queries=16)), str(tmp_path / "index")
    assert main(["index", MODEL, catalog, index]) is None
    said = capsys.readouterr().out
    assert "BM25 weight " in said and "8 validation queries" in said and f"{index}: v1 is the current version" in said
    assert len(open_index(index).products) == len(Catalog.load(catalog).products)
    assert main(["index", MODEL, catalog, index, "--lexical-weight", "0.5", "--no-switch"]) is None
    assert f"v2 is complete: search.py switch {index} v2" in capsys.readouterr().out
    assert open_index(index).version == "v1"
    assert main(["switch", index, "v2"]) is None
    assert open_index(index).manifest.lexical_weight == 0.5
    assert main(["update", index, catalog, "--model", MODEL]) is None
    assert "v2 has all of it already, nothing was changed" in capsys.readouterr().out
    assert main(["update", index, "--delete", "p1", "p2"]) is None
    assert "v2, update 1: 0 added, 0 replaced, 2 deleted, 0 unchanged" in capsys.readouterr().out
    assert main(["check", index]) == 0
    said = capsys.readouterr().out
    assert "v2 (current): 58 products of tiny" in said and f"{index}: no problems" in said
    products = tmp_path / "index" / "versions" / "v1" / "products-00000.arrow"
    products.write_bytes(products.read_bytes()[:-1])
    assert main(["check", index]) == 2
    assert f"error: {products}: " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["find"], "unknown command 'find', expected one of index, update, "),
        (["index", MODEL, "", "s3://bucket/index"], "s3://bucket/index: a URL, expected a local folder"),
        (["index", MODEL, "", "x", "--lexical-weight", "-1"], "--lexical-weight is -1.0, expected 0 to 100"),
        (["index", MODEL, "", "x", "--keep", "0"], "--keep is 0, expected at least 1 version"),
        (["index", MODEL, "", "x", "--splits", "test"], "unknown option --splits; did you mean --split"),
        (["update", "nowhere"], "nothing to do: name a CATALOG with new and changed products, or ids with --delete"),
        (
            ["update", "nowhere", "--delete-missing", "--delete", "p1"],
            "--delete-missing without a CATALOG would delete",
        ),
        (["update", "nowhere", "", "--delete", "p1"], "nowhere: not an index"),
        (["switch", "nowhere", "v1"], "nowhere: not an index, expected a folder that `search.py index` wrote"),
    ],
)
def test_a_wrong_command_line_is_one_error(
    words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as error:
        main(words)
    assert str(error.value).startswith(message)
    assert list(tmp_path.iterdir()) == []


def test_without_a_command_the_commands_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    said = capsys.readouterr().out
    assert "usage: make-jax search COMMAND" in said and "verify the checksums of an index" in said
