"""Normal forms of texts."""

from make_jax.catalog.text import normalize_query


def test_normalize_query_makes_equal_queries_equal() -> None:
    assert normalize_query("  ＲＥＤ  Shirt\n") == normalize_query("red shirt") == "red shirt"
    assert normalize_query("red shirts") != normalize_query("red shirt")
