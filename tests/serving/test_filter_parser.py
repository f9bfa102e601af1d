"""Filter expressions mean what Meilisearch's do; any other text is an InputError that names the position."""

import time
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from make_jax.errors import InputError
from make_jax.serving.filter_parser import MAX_DEPTH, MAX_LENGTH, parse_filter
from make_jax.serving.filters import And, Compare, Exists, Filter, In, Not, Or

A, B, C = Compare("a", "=", 1.0), Compare("b", "=", 2.0), Compare("c", "=", 3.0)


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("a = 1", A),
        ("a=1", A),
        ("  (\na = 1)", A),
        ("a = 1 OR b = 2 AND c = 3", Or((A, And((B, C))))),
        ("(a = 1 OR b = 2) AND c = 3", And((Or((A, B)), C))),
        ("NOT a = 1 AND b = 2", And((Not(A), B))),
        ("NOT (a = 1 AND b = 2)", Not(And((A, B)))),
        ("not not a = 1", Not(Not(A))),
        ("a = 1 and b = 2 And c = 3", And((A, B, C))),
        ("a != 1", Not(A)),
        ("price >= -1.5e1", Compare("price", ">=", -15.0)),
        ("price < '20'", Compare("price", "<", 20.0)),
        ("price 10 TO 20.5", And((Compare("price", ">=", 10.0), Compare("price", "<=", 20.5)))),
        ("brand IN [Nike, 'H&M', \"it's\", 10, true,]", In("brand", ("Nike", "H&M", "it's", 10.0, True))),
        ("brand in []", In("brand", ())),
        ("brand NOT IN [Nike]", Not(In("brand", ("Nike",)))),
        ("brand EXISTS", Exists("brand")),
        ("brand NOT EXISTS", Not(Exists("brand"))),
        ("NOT brand EXISTS", Not(Exists("brand"))),
        ("brand IS NULL", Not(Exists("brand"))),
        ("brand IS EMPTY", Not(Exists("brand"))),
        ("brand IS NOT NULL", Exists("brand")),
        ("brand is not empty", Exists("brand")),
        ("on = true", Compare("on", "=", True)),
        ("on = FALSE", Compare("on", "=", False)),
        ("on = 'true'", Compare("on", "=", "true")),
        ("size = '10'", Compare("size", "=", "10")),
        ("'in stock' = Yes", Compare("in stock", "=", "Yes")),
        ('brand = "a \\" b \\\\ c \\n"', Compare("brand", "=", 'a " b \\ c \\n')),
        ("brand = ''", Compare("brand", "=", "")),
        ("brand = To", Compare("brand", "=", "To")),
        ("brand = AND", Compare("brand", "=", "AND")),
        ("android = 1 AND orange = 2", And((Compare("android", "=", 1.0), Compare("orange", "=", 2.0)))),
        ("颜色 = 红色", Compare("颜色", "=", "红色")),
        ("t-shirt/size.eu = 1e999", Compare("t-shirt/size.eu", "=", "1e999")),
        ("a = ١٢", Compare("a", "=", "١٢")),
        ("", None),
        (" \t\n", None),
        ([], None),
        ([[], [""]], None),
        (["a = 1", ["b = 2", "c = 3"]], And((A, Or((B, C))))),
        ([["a = 1 AND b = 2"]], And((A, B))),
    ],
)
def test_expressions(expression: str | Sequence[str | Sequence[str]], expected: Filter | None) -> None:
    assert parse_filter(expression) == expected


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("brand = Foo Bar", "character 13: found 'Bar', expected AND, OR or the end; texts with spaces need quotes"),
        ("price > cheap", "character 9: found 'cheap', expected a number behind or before >"),
        ("price 1 TO ten", "character 12: found 'ten', expected a number"),
        ("price > 1e999", "character 9: found '1e999', expected a number"),
        ("a =", "character 4: found the end, expected a name or value"),
        ("a", "character 2: found the end, expected EXISTS, IN, IS, NOT, a name or value or an operator"),
        ("gender Women", "character 13: found the end, expected TO or an operator between the two before it"),
        ("= 3", "character 1: found '='"),
        ("a = 'x", 'character 5: found "\'", expected a name or value; a closing quote may be missing'),
        ("not = 3", "character 5: found '='"),
        ("(a = 1", r"character 7: found the end, expected \)"),
        ("a = 1)", r"character 6: found '\)', expected"),
        ("a IN [1, 2", "character 11: found the end"),
        ("a CONTAINS x", "CONTAINS, STARTS WITH and _geo conditions are not available"),
        ("_geoRadius(1, 2, 3)", "_geo conditions are not available"),
        ("a == 1", "character 4: found '='"),
        ("a = 1; DROP TABLE products", "character 8: found 'DROP'"),
        ("a = \x00'\x07", 'character 6: found "\'"'),
    ],
)
def test_errors_name_the_position_and_what_is_expected(expression: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        parse_filter(expression)
    assert str(error.value).isprintable()


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("a" * (MAX_LENGTH + 1), "20,001 characters, expected at most 20,000"),
        ("NOT " * (MAX_DEPTH + 1) + "a = 1", "32 levels"),
        ("NOT (b = 2 AND " * MAX_DEPTH + "a = 1" + ")" * MAX_DEPTH, "32 levels"),
        (" OR ".join(["a=1"] * 1001), "1,000 conditions"),
        (["a=1"] * 1001, "1,000 expressions"),
        ([" OR ".join(["a=1"] * 600)] * 2, "1,000 conditions"),
        ("a IN [" + "1," * 5001 + "]", "5,001 values"),
        ("(" * MAX_LENGTH, "found the end"),
        ("'" * (MAX_LENGTH - 1), "found"),
        ("'" + "\\'" * 9999, "closing quote"),
    ],
)
def test_length_and_nesting_are_bounded(expression: Any, message: str) -> None:
    start = time.monotonic()
    with pytest.raises(InputError, match=message):
        parse_filter(expression)
    assert time.monotonic() - start < 5


def test_the_bounds_are_reached_without_an_error() -> None:
    assert parse_filter("NOT " * MAX_DEPTH + "a = 1") is not None
    assert parse_filter("(" * 9000 + "a = 1" + ")" * 9000) == A


ODD = ("'x y'", "\\", "\x00", "\u202e", "😀", "_geoRadius")


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    st.one_of(
        st.text(max_size=60),
        st.lists(
            st.sampled_from(
                [
                    *[
                        "a",
                        "=",
                        "!=",
                        ">",
                        "<",
                        "10",
                        '"',
                        "'",
                        "(",
                        ")",
                        "[",
                        "]",
                        ",",
                        "AND",
                        "or",
                        "NOT",
                        "IN",
                        "TO",
                        "EXISTS",
                        "IS",
                        "NULL",
                        "EMPTY",
                        ".",
                        "NaN",
                    ],
                    *ODD,
                ]
            ),
            max_size=14,
        ).map(" ".join),
    )
)
def test_any_text_is_a_filter_or_an_input_error(text: str) -> None:
    try:
        parse_filter(text)
    except InputError as error:
        assert "\n" not in str(error)


names = st.text(st.characters(codec="utf-8"), max_size=8)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(names, names, st.sampled_from(["'", '"']))
def test_quoted_texts_are_read_as_they_are(name: str, value: str, quote: str) -> None:
    def quoted(text: str) -> str:
        return quote + text.replace("\\", "\\\\").replace(quote, "\\" + quote) + quote

    assert parse_filter(f"{quoted(name)} = {quoted(value)}") == Compare(name, "=", value)
