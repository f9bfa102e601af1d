"""JSON in which an object may have a key once."""

import pytest

from make_jax.unique_json import DuplicateKeyError, loads


def test_equal_keys_of_one_object_are_an_error() -> None:
    assert loads('{"a": [{"b": 1}, {"b": 2}], "b": 3}') == {"a": [{"b": 1}, {"b": 2}], "b": 3}
    for text, key in (('{"a": 1, "a": 1}', "a"), ('[{"x": {"é": 1, "b": 2, "\\u00e9": 3}}]', "é")):
        with pytest.raises(DuplicateKeyError, match="occurs twice in one object, expected each key once") as caught:
            loads(text)
        assert caught.value.key == key


def test_the_message_of_a_long_or_damaged_key_can_be_printed() -> None:
    for key in ("x" * 10_000, "\\ud83d"):
        with pytest.raises(DuplicateKeyError) as caught:
            loads(f'{{"{key}": 1, "{key}": 2}}')
        assert len(str(caught.value).encode()) < 200


def test_a_duplicate_after_many_keys_is_found_fast() -> None:
    keys = ", ".join(f'"{i}": 0' for i in range(200_000))
    with pytest.raises(DuplicateKeyError, match=r'^"199999" occurs'):
        loads(f'{{{keys}, "199999": 1}}')
