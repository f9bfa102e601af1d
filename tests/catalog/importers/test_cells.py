"""Cells of tables: numbers, prices, booleans, lists, HTML."""

from itertools import starmap

import pytest

from make_jax.catalog.importers import cells


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1,299.00", (1299.0, "")),
        ("1,299", (1299, "")),
        ("1.299", (1.299, "")),
        ("1.299,00", (1299.0, "")),
        ("12,50", (12.5, "")),
        ("1 299,00", (1299.0, "")),
        ("1\u202f299,00 €", (1299.0, "EUR")),
        ("12,99,000.50", (1299000.5, "")),
        ("1'299.00 CHF", (1299.0, "CHF")),
        ("CHF 12.-", (12, "CHF")),
        ("-5", (-5, "")),
        ("$1.234.567", (1234567, "$")),
        ("US$ 7", (7, "USD")),
        ("￥１，２９９", (1299, "¥")),
        ("99元", (99, "CNY")),
        ("Rs. 1,200", (1200, "Rs")),
        ("12.99 USD", (12.99, "USD")),
        ("US $12", (12, "USD")),
        ("$12 USD", (12, "USD")),
        ("USD $1,299.00", (1299.0, "USD")),
        ("£12.50 GBP", (12.5, "GBP")),
        ("12,-", (12, "")),
        ("£5 EUR", None),
        ("$ 5 €", None),
        ("free", None),
        ("3 pcs", None),
        ("USD 5 EUR", None),
        ("1,2,3", None),
        ("1.234.56", None),
        ("2011-05-01", None),
        ("", None),
        ("9" * 50, None),
    ],
)
def test_prices(text: str, expected: tuple[float, str] | None) -> None:
    assert cells.price(text) == expected


def test_a_single_mark_before_three_digits_depends_on_the_column() -> None:
    assert cells.decimal_mark(["1,299", "12,50", "3,5"]) == ","
    assert cells.decimal_mark(["1,299", "12.50"]) == "." == cells.decimal_mark(["1,299", "2,300", "1.299"])
    assert list(starmap(cells.number, [("1,299", "."), ("1,299", ","), ("1.299", ",")])) == [1299, 1.299, 1299]
    assert cells.number("$5") is None  # a price, not a number


def test_booleans_and_lists() -> None:
    assert [cells.boolean(text) for text in ("Yes", "FALSE", "是", "否", "1", "maybe")] == [
        *(True, False, True, False),
        *(None, None),
    ]
    assert cells.texts("red, blue；green,, red") == ["red", "blue", "green"] == cells.texts('["red", "blue", "green"]')
    assert cells.texts("[1, 2]") == ["[1", "2]"]  # no list of strings
    assert cells.category_levels("Home &amp; Garden > Beds|Cots / Small") == ["Home & Garden", "Beds", "Cots", "Small"]
    assert cells.category_levels("Shirts/Tops") == ["Shirts/Tops"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a,b.jpg,c.png", ["a,b.jpg", "c.png"]),
        ("https://x.example/w_10,h_20/a.jpg, https://x.example/b", ["https://x.example/w_10,h_20/a.jpg", "https://x.example/b"]),
        ("a.jpg|b.jpg\nc.jpg;d.jpg", ["a.jpg", "b.jpg", "c.jpg", "d.jpg"]),
        ('["a.jpg", "b.jpg"]', ["a.jpg", "b.jpg"]),
    ],
)  # fmt: skip
def test_several_images_in_a_cell(text: str, expected: list[str]) -> None:
    assert cells.image_names(text) == expected


@pytest.mark.parametrize(
    ("html", "expected"),
    [
        ("<p>Soft &amp; <b>war</b>m</p><script>x()</script><ul><li>a<li>b</ul>", "Soft & warm a b"),
        ("'90s jacket", "'90s jacket"),
        ("Shirt < 5 kg > 3", "Shirt < 5 kg > 3"),
        ("Caf&amp;eacute; R&D", "Café R&D"),
        ("one<br/>two <style>p {}</style>", "one two"),
        ("<script/>shown", "shown"),
    ],
)
def test_html_becomes_text(html: str, expected: str) -> None:
    assert cells.plain_text(html) == expected
