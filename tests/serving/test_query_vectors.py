"""The picture of a search: large ones are decoded one at a time."""

import io
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from make_jax.catalog.images import pixel_count
from make_jax.serving import query_vectors
from make_jax.serving.query_encoder import QueryEncoder
from make_jax.serving.query_vectors import encode_image
from make_jax.serving.search_service import RequestError
from tests.retrieval.fake_encoder import FakeEncoder


def red_png() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (32, 32), (255, 0, 0)).save(file, "PNG")
    return file.getvalue()


def test_large_pictures_are_decoded_one_at_a_time_and_small_ones_beside_them(monkeypatch):
    encoder, picture = QueryEncoder(FakeEncoder()), red_png()
    alone = encode_image(encoder, picture)
    decode, running, largest, lock = query_vectors.decode, [0], [0], threading.Lock()

    def slow_decode(data: bytes, where: str) -> object:
        with lock:
            running[0] += 1
            largest[0] = max(largest[0], running[0])
        time.sleep(0.05)
        with lock:
            running[0] -= 1
        return decode(data, where)

    monkeypatch.setattr(query_vectors, "decode", slow_decode)
    for limit, expected in ((pixel_count(picture) - 1, 1), (pixel_count(picture), 4)):
        monkeypatch.setattr(query_vectors, "_LARGE", limit)
        largest[0] = 0
        with ThreadPoolExecutor(4) as threads:
            vectors = list(threads.map(lambda _: encode_image(encoder, picture), range(4)))
        assert largest == [expected]
        assert all(np.array_equal(vector, alone) for vector in vectors)


def test_a_damaged_picture_is_an_error_that_names_it():
    encoder, picture = QueryEncoder(FakeEncoder()), red_png()
    assert pixel_count(b"") == pixel_count(b"RIFF") == 0
    with pytest.raises(RequestError, match="the query's image: "):
        encode_image(encoder, picture[:40])
