"""Guesses what the columns of a table mean, from their names and first values, and shows the guess.

The names in SYNONYMS come from exports of shop systems and from public product data sets [ours].
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from make_jax.catalog.importers import cells
from make_jax.catalog.importers.rows import Row
from make_jax.catalog.jsonl import NEVER_ATTRIBUTES
from make_jax.catalog.text import shortened, strip_text
from make_jax.errors import InputError

# Role -> names of columns, the most specific first; letters and digits only, in lower case.
SYNONYMS: dict[str, str] = {
    "id": "id productid productsid itemid articleid sku asin uniqid uid handle code productcode itemcode articlenumber "
    "商品id 商品编号 产品编号 产品id 编号 货号 款号 商品编码",
    "title": "title producttitle producttitles productname productdisplayname name itemname itemtitle displayname "
    "标题 商品标题 产品标题 商品名称 产品名称 商品名 名称 品名",
    "image": "image images imagepath imagefile imageurl imageurls imagelink imagesrc mainimage picture pictures "
    "picturepath pictureurl photo photos photourl img imgurl imgpath thumbnail filename "
    "图片 商品图片 产品图片 主图 图片链接 图片地址 图片路径 图像",
    "category": "category categories productcategory categorypath maincategory producttype department taxonomy "
    "类目 商品类目 产品类目 分类 商品分类 产品分类 类别 品类",
    "group": "group groupid itemgroupid parentid parentsku parentasin parent variantgroup styleid modelid "
    "款式编号 父编号 spu",
    "split": "split subset partition 划分",
    "price": "price saleprice currentprice regularprice amount cost msrp rrp 价格 售价 单价 现价",
    "currency": "currency currencycode pricecurrency 货币 币种",
    "description": "description productdescription longdescription body bodyhtml details desc "
    "描述 商品描述 产品描述 详情",
    # not "keyword": shops call their own words for search engines so, and no one has searched for them
    "query": "query searchquery searchterm searchphrase searchkeyword querytext userquery searchtext "
    "搜索词 搜索关键词 查询 查询词",
}
LISTS = frozenset(["tags", "tag", "keywords", "labels", "标签", "关键词"])  # columns with several values in one cell
KINDS = ("text", "number", "boolean", "list")  # of attributes
ROLES = (*SYNONYMS, "attributes", *KINDS, "ignored")
MAX_QUERY = 200  # characters; a column with longer texts is not guessed to be queries
MAX_ATTRIBUTE = 80  # characters; longer texts are no attribute
_UNIQUE = 0.9  # share of distinct values from which a text identifies products instead of describing them
_SPLIT_WORDS = frozenset(("train", "val", "valid", "validation", "dev", "test", "训练", "验证", "测试"))
_URL = re.compile(r"(?:https?|ftp|gs|s3)://", re.IGNORECASE)


@dataclass(frozen=True)
class Column:
    """What one column is taken as, why, and its first value."""

    name: str
    role: str  # of ROLES, an attribute by its kind
    reason: str
    sample: str = ""
    decimal: str = "."  # of numbers

    @property
    def key(self) -> str:
        """The key of an attribute in products.jsonl."""
        return attribute_key(self.name)


def attribute_key(name: str) -> str:
    """A column's name as a key of products.jsonl: lower case, "_" between words, no key with another meaning."""
    key = re.sub(r"[\s\-/]+", "_", name.strip().casefold()).strip("_") or "value"
    return f"{key}_value" if key in (*NEVER_ATTRIBUTES, "category", "description", "variants") else key


def parse_choices(words: Iterable[str], columns: Sequence[str]) -> dict[str, list[str]]:
    """Role -> columns of the option `--columns`, ["title=Name", "text=Colour,Material"].

    Raises InputError for an unknown role or column, with the known ones.
    """
    chosen: dict[str, list[str]] = {}
    for word in words:
        role, equals, names = word.partition("=")
        if not equals or role not in ROLES:
            expected = f"ROLE=COLUMN, a role being one of {', '.join(ROLES)}"
            raise InputError(f"option --columns: found {word!r}, expected {expected}")
        split = [names] if names in columns else names.split(",") if names else []
        for name in split:
            if name not in columns:
                listed = shortened(", ".join(columns), 200)
                raise InputError(f"option --columns: no column {name!r}, expected one of {listed}")
        if role in SYNONYMS and len(split) > 1:
            raise InputError(f"option --columns: {role} has {len(split)} columns, expected one")
        chosen.setdefault(role, []).extend(split)
    taken = [name for names in chosen.values() for name in names]
    if twice := next((name for name in taken if taken.count(name) > 1), None):
        raise InputError(f"option --columns: the column {twice!r} has two roles, expected one")
    return chosen


def guess(
    source: Path,
    columns: Sequence[str],
    rows: Sequence[Row],
    chosen: Mapping[str, Sequence[str]],
    known: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> list[Column]:
    """What each column is taken as. `chosen` roles are as `parse_choices` returns them, `known` ones are those that
    the format defines, unless chosen otherwise; the others are guessed. `source` has them.

    Raises InputError if no column is a title or an image.
    """
    roles = {name: (role, "option --columns") for role, names in chosen.items() for name in names}
    for role, names in known.items():
        if role not in chosen or role not in SYNONYMS:
            roles |= {name: (role, "the format") for name in names if name in columns and name not in roles}
    values = {name: [value for row in rows if not _empty(value := row.values.get(name))] for name in columns}
    for role, synonyms in SYNONYMS.items():
        if role in chosen or any(role == taken for taken, _ in roles.values()):
            continue
        found = [
            (synonyms.split().index(plain), name) for name in columns if (plain := _plain(name)) in synonyms.split()
        ]
        for _, name in sorted((rank, name) for rank, name in found if name not in roles):
            if not (fault := _unfit(role, values[name])):
                roles[name] = (role, f'name "{name}"')
                break
            roles.setdefault(f"\0{name}", ("", fault))
    result = [_column(name, values[name], roles, "attributes" in chosen) for name in columns]
    if not any(column.role in ("title", "image") for column in result):
        listed = shortened(", ".join(columns), 200)
        expected = "expected one; name it: --columns title=COLUMN image=COLUMN"
        raise InputError(f"{source}: no column for title or image among {listed}, {expected}")
    return result


def _column(name: str, values: list[Any], roles: Mapping[str, tuple[str, str]], only_chosen: bool) -> Column:
    role, reason = roles.get(name, ("", ""))
    decimal = cells.decimal_mark(value for value in values if isinstance(value, str))
    sample = shortened(_shown(values[0]), 40) if values else ""
    if not role or role == "attributes":
        kind, why = _attribute_kind(name, values)
        if role == "attributes":
            role = "text" if kind == "ignored" else kind
        elif only_chosen:
            role, reason = "ignored", "not among --columns attributes"
        else:
            role, reason = kind, why
        note = roles.get(f"\0{name}", ("", ""))[1]
        reason = f"{reason}; {note}" if note else reason
    return Column(name, role, reason, sample, decimal)


def _attribute_kind(name: str, values: list[Any]) -> tuple[str, str]:
    """The kind of attribute that fits all values, or "ignored", and the reason."""
    if not name:
        return "ignored", "no name"
    if not values:
        return "ignored", "empty"
    items = [item for value in values for item in (value if isinstance(value, list | tuple) else (value,))]
    if any(isinstance(item, dict | bytes | list | tuple) for item in items):
        return "ignored", "objects or bytes"
    if any(isinstance(value, list | tuple) for value in values):
        return "list", "lists"
    if all(isinstance(value, bool) for value in values):
        return "boolean", "true or false"
    texts = [_shown(value) for value in values]
    answers = {cells.boolean(text) for text in texts}
    if None not in answers and (len(answers) == 2 or {text.casefold() for text in texts} <= {"true", "false"}):
        return "boolean", "yes or no in all rows"  # one word alone may be another one: NO is a country
    if _are_numbers(texts):
        return "number", "numbers in all rows"
    if any(_URL.match(text) for text in texts):
        return "ignored", "URLs"
    if _plain(name) in LISTS:
        return "list", f'name "{name}"'
    longest = max(map(len, texts))
    if longest > MAX_ATTRIBUTE:
        return "ignored", f"long text, up to {longest:,} characters"
    distinct = len(set(texts))
    if len(texts) > 20 and distinct > _UNIQUE * len(texts):
        return "ignored", f"{distinct:,} different values in {len(texts):,} rows"
    return "text", f"{distinct:,} value{'' if distinct == 1 else 's'} in {len(texts):,} rows"


def _are_numbers(texts: Sequence[str]) -> bool:
    """Whether all are numbers, and none is a code such as "007" or a bar code."""
    if any(re.fullmatch(r"0\d+|\d{12,}", text) for text in texts):
        return False
    return all(cells.number(text) is not None for text in texts)


def _unfit(role: str, values: Sequence[Any]) -> str:
    """Why the values of a column do not fit the role of its name; "" if they do."""
    texts = [_shown(value) for value in values]
    if role == "split" and not all(text.casefold() in _SPLIT_WORDS for text in texts):
        return "no names of splits"
    distinct = len(set(texts))
    if role == "group" and len(texts) >= 20 and 20 * distinct <= len(texts):
        return f"no variants: {distinct:,} values in {len(texts):,} rows"
    if role in ("price", "description", "query") and not values:
        return "empty"
    if role == "query" and (fault := _unlike_queries(values, texts)):
        return fault
    return ""


def _unlike_queries(values: Sequence[Any], texts: Sequence[str]) -> str:
    """Why values are no search queries; "" if they may be."""
    items = [item for value in values for item in (value if isinstance(value, list | tuple) else (value,))]
    if not all(isinstance(item, str) for item in items):
        return "no texts"
    if any(len(item) > MAX_QUERY for item in items if isinstance(item, str)):
        return f"longer than {MAX_QUERY} characters"
    return "URLs" if any(_URL.match(text) for text in texts) else ""


def _plain(name: str) -> str:
    """The letters and digits of a name, in lower case."""
    return "".join(letter for letter in name.casefold() if letter.isalnum())


def _empty(value: Any) -> bool:
    if isinstance(value, str):
        return not strip_text(value)
    return value is None or value != value or (isinstance(value, list | tuple | dict) and not value)


def _shown(value: Any) -> str:
    """A value as text for the guess and its sample."""
    if isinstance(value, bytes) or (isinstance(value, dict) and isinstance(value.get("bytes"), bytes)):
        return "(bytes)"
    if isinstance(value, list | tuple):
        return ", ".join(map(_shown, value))
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return strip_text(str(value))
