"""An index of the tiny catalog by an encoder without parameters."""

from make_jax.serving.index.manifest import ModelEntry
from make_jax.serving.index.model import IndexModel
from tests.retrieval.fake_encoder import FakeEncoder


def fake_model(encoder: FakeEncoder | None = None) -> IndexModel:
    """`FakeEncoder` as the model of an index."""
    encoder = encoder or FakeEncoder()
    entry = ModelEntry("fake.py", "fake", "python_file", "best", encoder.digest, encoder.modalities)
    return IndexModel(encoder, entry)
