"""How many threads decode images."""

import os

import pytest

from make_jax.inputs.threads import decode_threads


@pytest.mark.parametrize(("cores", "expected"), [(1, 1), (6, 6), (96, 8)])
def test_threads_are_as_set_or_one_per_available_core_up_to_8(
    monkeypatch: pytest.MonkeyPatch, cores: int, expected: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)), raising=False)
    assert decode_threads() == expected
    assert decode_threads(13) == 13
