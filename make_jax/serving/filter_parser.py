"""Filter expressions as Meilisearch has them: `gender = Women AND (price < 50 OR NOT brand IN [Nike, "H&M"])`.

    attribute = value, !=, >, >=, <, <=       attribute 10 TO 20          attribute IN [value, value], NOT IN
    attribute EXISTS, NOT EXISTS              IS NULL, IS EMPTY, IS NOT   NOT, AND, OR (in this order), parentheses

Keywords are in any case. Names and values with spaces, brackets or operators, and names that are keywords, need quotes,
double or single; `\\` escapes a quote in them. An empty value of a product is no value, so IS NULL and IS EMPTY are
NOT EXISTS. Not available: CONTAINS, STARTS WITH and _geo conditions.
"""

import functools
import math
import re
from collections.abc import Sequence
from typing import Any, NoReturn

from lark import Lark, Token, Transformer, UnexpectedInput
from lark.exceptions import UnexpectedCharacters, UnexpectedToken

from make_jax.errors import InputError
from make_jax.serving.filters import And, Compare, Exists, Filter, In, Not, Operator, Or, Value

MAX_LENGTH = 20_000  # characters of an expression
MAX_DEPTH = 32  # of NOT, AND and OR in each other: engines evaluate filters recursively
MAX_CONDITIONS = 1_000  # of all expressions of a filter
MAX_VALUES = 5_000  # of all IN lists of an expression

_GRAMMAR = r"""
    start: _or
    _or: any_of | _and
    any_of: _and (_OR _and)+
    _and: all_of | _not
    all_of: _not (_AND _not)+
    _not: negation | _primary
    negation: _NOT _not
    _primary: "(" _or ")" | compare | between | in_list | not_in_list | exists | not_exists
    compare: name OPERATOR value
    between: name value _TO value
    in_list: name _IN "[" [value ("," value)* [","]] "]"
    not_in_list: name _NOT _IN "[" [value ("," value)* [","]] "]"
    exists: name (_EXISTS | _IS _NOT (_NULL | _EMPTY))
    not_exists: name (_NOT _EXISTS | _IS (_NULL | _EMPTY))
    name: WORD | QUOTED
    value: WORD | QUOTED
    OPERATOR: "!=" | ">=" | "<=" | "=" | ">" | "<"
    WORD: /[^\s"'()\[\],=<>!]+/
    QUOTED: /"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'/s
    %ignore /\s+/
"""
_KEYWORDS = ("AND", "OR", "NOT", "IN", "TO", "EXISTS", "IS", "NULL", "EMPTY")
_NOT_AVAILABLE = re.compile(r"\b(?:CONTAINS|STARTS\s+WITH|_geo\w+)\b", re.IGNORECASE)
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)


def parse_filter(expression: str | Sequence[str | Sequence[str]]) -> Filter | None:
    """The filter that an expression states; None for an empty one.

    A list of expressions is met if all are, and a list in it if one of its expressions is, as in Meilisearch. Raises
    InputError, with the position, for what is no expression, and for one beyond the limits of this module.
    """
    texts = [expression] if isinstance(expression, str) else list(expression)
    groups = [[item] if isinstance(item, str) else list(item) for item in texts]
    if sum(len(group) for group in groups) > MAX_CONDITIONS:
        raise InputError(f"filter has more than {MAX_CONDITIONS:,} expressions, expected fewer")
    parsed = [[found for text in group if (found := _parse(text)) is not None] for group in groups]
    if sum(_count(found) for group in parsed for found in group) > MAX_CONDITIONS:
        raise InputError(f"filter has more than {MAX_CONDITIONS:,} conditions, expected fewer; IN [...] takes a list")
    met = [_joined(Or, group) for group in parsed if group]
    return _joined(And, met) if met else None


def _joined(kind: type[And] | type[Or], parts: list[Filter]) -> Filter:
    return parts[0] if len(parts) == 1 else kind(tuple(parts))


def _parse(text: str) -> Filter | None:
    if len(text) > MAX_LENGTH:
        raise InputError(f"filter has {len(text):,} characters, expected at most {MAX_LENGTH:,}")
    if not text.strip():
        return None
    try:
        return _parser().parse(text)  # type: ignore[return-value]  # the transformer's result instead of a tree
    except UnexpectedInput as error:
        _raise_syntax_error(text, error)


@functools.lru_cache(maxsize=1)
def _parser() -> Lark:
    """Keywords are whole words; the lexer looks for them only where one may stand, so `brand = To` has none."""
    keywords = "\n".join(rf"    _{name}.2: /{name}(?![^\s\"'()\[\],=<>!])/i" for name in _KEYWORDS)
    return Lark(_GRAMMAR + keywords, parser="lalr", lexer="contextual", transformer=_Build())


class _Build(Transformer[Token, Any]):
    """Builds the syntax tree while lark parses, so that no recursion depends on the input."""

    def start(self, parts: list[Any]) -> Filter:
        found: Filter = parts[0]
        return found

    def any_of(self, parts: list[Filter]) -> Filter:
        return _checked(Or(tuple(parts)))

    def all_of(self, parts: list[Filter]) -> Filter:
        return _checked(And(tuple(parts)))

    def negation(self, parts: list[Filter]) -> Filter:
        return _checked(Not(parts[0]))

    def compare(self, parts: list[Any]) -> Filter:
        name, operator, value = parts
        if operator == "!=":
            return Not(Compare(name, "=", _value(value)))
        kind: Operator = operator.value
        return Compare(name, kind, _value(value) if kind == "=" else _number(value, f"{operator}"))

    def between(self, parts: list[Any]) -> Filter:
        name, low, high = parts
        return And((Compare(name, ">=", _number(low, "TO")), Compare(name, "<=", _number(high, "TO"))))

    def in_list(self, parts: list[Any]) -> Filter:
        name, *values = (part for part in parts if part is not None)
        if len(values) > MAX_VALUES:
            raise InputError(f"filter has {len(values):,} values in a list, expected at most {MAX_VALUES:,}")
        return In(name, tuple(_value(value) for value in values))

    def not_in_list(self, parts: list[Any]) -> Filter:
        return Not(self.in_list(parts))

    def exists(self, parts: list[str]) -> Filter:
        return Exists(parts[0])

    def not_exists(self, parts: list[str]) -> Filter:
        return Not(Exists(parts[0]))

    def name(self, parts: list[Token]) -> str:
        return _text(parts[0])

    def value(self, parts: list[Token]) -> Token:
        return parts[0]


def _text(token: Token) -> str:
    """A word as it stands; a quoted text without quotes and escapes."""
    return str(token) if token.type == "WORD" else re.sub(r"\\([\"'\\])", r"\1", token[1:-1])


def _value(token: Token) -> Value:
    """A number, true or false if it is one without quotes, otherwise a text."""
    text = _text(token)
    if token.type == "WORD":
        if text.lower() in ("true", "false"):
            return text.lower() == "true"
        if _NUMBER.fullmatch(text) and math.isfinite(float(text)):
            return float(text)
    return text


def _number(token: Token, operator: str) -> float:
    text = _text(token)
    if not _NUMBER.fullmatch(text) or not math.isfinite(float(text)):
        _raise_error(token.start_pos or 0, f"{_shown(text)}, expected a number behind or before {operator}")
    return float(text)


def _checked(condition: Filter) -> Filter:
    """Raises InputError for a condition that is nested too deeply; its parts were checked before."""
    if _depth(condition) > MAX_DEPTH:
        raise InputError(f"filter has more than {MAX_DEPTH} levels of NOT, AND and OR in each other, expected fewer")
    return condition


def _depth(condition: Filter) -> int:
    if isinstance(condition, Not):
        return 1 + _depth(condition.condition)
    if isinstance(condition, And | Or):
        return 1 + max(_depth(part) for part in condition.conditions)
    return 0


def _count(condition: Filter) -> int:
    if isinstance(condition, Not):
        return _count(condition.condition)
    return sum(_count(part) for part in condition.conditions) if isinstance(condition, And | Or) else 1


def _raise_syntax_error(text: str, error: UnexpectedInput) -> NoReturn:
    if isinstance(error, UnexpectedCharacters):
        expected, position = error.allowed, error.pos_in_stream
    elif isinstance(error, UnexpectedToken):
        expected, position = error.accepts or error.expected, error.token.start_pos
    else:
        expected, position = set(), len(text)
    if position is None or position >= len(text) or (isinstance(error, UnexpectedToken) and error.token.type == "$END"):
        position, found = len(text), "the end"
    else:
        rest = text[position:]
        found = _shown((re.match(r"[^\s\"'()\[\],=<>!]+", rest) or re.match(r".", rest, re.DOTALL) or [rest])[0])
    names = sorted({_NAMES.get(name, name.strip("_")) for name in expected or ()})
    if names == ["TO"]:  # a name and a value
        names = ["TO", "an operator between the two before it"]
    hint = "; texts with spaces need quotes" if "AND" in names else ""
    if text[position : position + 1] in ("'", '"') and isinstance(error, UnexpectedCharacters):
        hint = "; a closing quote may be missing"
    if _NOT_AVAILABLE.search(text):
        hint = "; CONTAINS, STARTS WITH and _geo conditions are not available"
    _raise_error(position, f"{found}, expected {_listed(names)}{hint}")


_NAMES = {
    "WORD": "a name or value",
    "QUOTED": "a name or value",
    "OPERATOR": "an operator",
    "LPAR": "(",
    "RPAR": ")",
    "LSQB": "[",
    "RSQB": "]",
    "COMMA": ",",
    "$END": "the end",
    "_NOT": "NOT",
}


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"


def _shown(text: str) -> str:
    return repr(text if len(text) <= 40 else f"{text[:40]}...")


def _raise_error(position: int, message: str) -> NoReturn:
    raise InputError(f"filter: character {position + 1}: found {message}")
