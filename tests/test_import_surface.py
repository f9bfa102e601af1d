import subprocess
import sys

import pytest

import make_jax
from make_jax.config import Config


def loaded_after(code: str) -> set[str]:
    """The top-level modules that a fresh Python has loaded after `code`."""
    program = f"{code}\nimport sys\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "module",
    ["make_jax", "make_jax.config", "make_jax.catalog", "make_jax.catalog.reader", "make_jax.inputs.batch"],
)
def test_the_data_side_never_imports_jax(module: str) -> None:
    assert not {"jax", "jaxlib", "flax", "tensorflow_datasets", "tensorflow", "transformers", "torch"} & loaded_after(
        f"import {module}"
    )


def test_config_and_catalog_are_public_without_jax() -> None:
    assert "jax" not in loaded_after("from make_jax import Catalog, Config\nConfig(); Catalog.load")


def test_the_public_surface_is_these_four_names_and_nothing_else() -> None:
    assert make_jax.__all__ == ["Catalog", "Config", "Make", "Retriever"]
    assert set(make_jax.__all__) <= set(dir(make_jax))
    assert make_jax.Config is Config
    with pytest.raises(AttributeError, match="no attribute 'Trainer'"):
        make_jax.Trainer  # noqa: B018


@pytest.mark.parametrize("name", make_jax.__all__)
def test_every_public_name_is_imported_when_asked_for(name: str) -> None:
    assert getattr(make_jax, name).__name__ == name
