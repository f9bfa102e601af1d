"""`FakeEncoder` as a model in a Python file, for programs that open models by path."""

from tests.retrieval.fake_encoder import FakeEncoder

encoder = FakeEncoder()
