"""Titles in units: words, names, words of scripts without spaces, and the head noun."""

import itertools

import pytest

from make_jax.catalog.title_units import TitleStatistics, Unit, join, unit_of

CATEGORIES = ["Ankle Boots", "Dresses", "Tshirts"]
TITLES = [f"{color} Leather Boots, size {size}" for color in ("Red", "Black", "Navy Blue") for size in (40, 41, 42)]
TITLES += [f"Zenda {color} summer dress with belt" for color in ("red", "white", "navy blue", "green")]
STATISTICS = TitleStatistics.from_texts(TITLES, ["Navy Blue", "red", *CATEGORIES])


def texts(title: str, statistics: TitleStatistics = STATISTICS) -> list[str]:
    return [unit.text for unit in statistics.units(title)]


def units(*names: str) -> list[Unit]:
    return [unit for name in names if (unit := unit_of(name))]


def test_known_names_stay_together_and_hyphens_inside_words_are_kept() -> None:
    assert texts("Navy Blue T-Shirt - Men's (2 Pack)") == ["navy blue", "t-shirt", "men's", "2", "pack"]
    assert texts("Black/White Shoes") == ["black", "white", "shoes"]


def test_codes_and_function_words_are_no_queries_by_themselves() -> None:
    found = {unit.text: unit.is_word for unit in STATISTICS.units("Casio MTP-1303D watch for men 42 x iphone 15")}
    assert {text for text, word in found.items() if not word} == {"mtp-1303d", "for", "42", "x", "15"}


@pytest.mark.parametrize(
    ("title", "head"),
    [
        ("Brown Leather Boots, size 39", "boots"),
        ("Boots in red leather", "boots"),
        ("Zenda dress with white belt", "dress"),
        ("Red T-shirt Original", "t-shirt"),  # the category names it
        ("Ferrari", "ferrari"),  # the only word
        ("Zenda Red", None),
    ],
)
def test_head_noun_ends_phrases_or_is_named_by_the_category(title: str, head: str | None) -> None:
    found = STATISTICS.head(STATISTICS.units(title), units("Tshirts"), {"red", "white"})
    assert (found.text if found else None) == head


def test_words_of_chinese_titles_are_found_from_the_titles_alone() -> None:
    colors, kinds = ("红色", "黑色", "白色", "蓝色"), ("连衣裙", "运动鞋", "牛仔裤", "衬衫")
    titles = [f"{a}{b}" for a in colors for b in kinds] + [f"{b} {a}" for a in colors for b in kinds]
    statistics = TitleStatistics.from_texts(titles, [])
    assert texts("黑色运动鞋", statistics) == ["黑色", "运动鞋"]
    assert texts("Nike黑色牛仔裤", statistics) == ["nike", "黑色", "牛仔裤"]


def test_words_of_long_chinese_titles_of_one_order_are_found() -> None:
    """No word but the last ends a title and none but the first starts one, as sellers write them."""
    parts = (
        ("李宁", "回力", "优衣库"),
        ("夏季", "秋冬"),
        ("女士", "儿童"),
        ("修身", "宽松", "复古"),
        ("红色", "藏青", "米白"),
    )
    titles = ["".join(words) + kind for words in itertools.product(*parts) for kind in ("连衣裙", "牛仔裤", "T恤")]
    statistics = TitleStatistics.from_texts(titles, [])
    found = statistics.units("优衣库秋冬女士修身藏青连衣裙")
    assert [unit.text for unit in found] == ["优衣库", "秋冬", "女士", "修身", "藏青", "连衣裙"]
    head = statistics.head(found, [], set())
    assert head is not None and head.text == "连衣裙"


@pytest.mark.parametrize(
    ("titles", "title", "head"),
    [
        (
            ["Vestido rojo de verano", "Zapatos negros para hombre", "Vestido largo", "Camisa azul"],
            "Vestido azul",
            "vestido",
        ),
        (["Robe rouge pour femme", "Sac noir en cuir", "Robe longue"], "Robe bleue", "robe"),
        (["Rotes Kleid für Damen", "Schwarzes Kleid", "Blaues Kleid"], "Grünes Kleid", "kleid"),
        (["قميص أحمر", "قميص أزرق", "حذاء أسود"], "قميص أسود", "قميص"),
    ],
)
def test_the_noun_stands_where_the_language_puts_it(titles: list[str], title: str, head: str) -> None:
    statistics = TitleStatistics.from_texts(titles * 5, [])
    found = statistics.head(statistics.units(title), [], set())
    assert found is not None and found.text == head


def test_attribute_values_are_words_of_a_single_chinese_title() -> None:
    statistics = TitleStatistics.from_texts(["红色连衣裙"], ["红色", "连衣裙"])
    assert texts("红色连衣裙", statistics) == ["红色", "连衣裙"]


def test_unknown_characters_are_kept_in_short_parts_and_marked() -> None:
    statistics = TitleStatistics.from_texts([], ["连衣裙"])
    found = statistics.units("夏季新款女士连衣裙")
    assert [unit.text for unit in found] == ["夏季新款", "女士", "连衣裙"]
    assert [unit.is_word for unit in found] == [False, False, True]


@pytest.mark.parametrize(
    "title", ["", " - ", "★★★", "👟👟", "\u200b", "กางเกงยีนส์ ขายาว", "हरी शर्ट", "फ़ैशन", "שמלה אדומה", "قميص أحمر"]
)
def test_other_scripts_lose_no_mark_and_nothing_is_empty(title: str) -> None:
    statistics = TitleStatistics.from_texts([title], [title])
    found = statistics.units(title)
    assert all(unit.text and unit.key and unit.words for unit in found)
    assert join(found).replace(" ", "") == "".join(c for c in title if c.isalnum() or "\u0900" <= c <= "\u0eff")


def test_units_of_a_huge_title_are_bounded() -> None:
    assert len(STATISTICS.units("boots " * 100_000)) == 64


def test_join_puts_no_space_between_chinese_words_only() -> None:
    assert join(units("红色", "连衣裙", "nike", "T恤")) == "红色连衣裙 nike t恤"
