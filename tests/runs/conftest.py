import pytest

from make_jax.runs.checkpoints import Checkpoints


@pytest.fixture
def checkpoints(tmp_path):
    made = Checkpoints(tmp_path / "checkpoints")
    yield made
    made.close()
