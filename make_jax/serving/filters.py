"""Conditions on the attributes of products: the syntax tree that `filter_parser.py` returns and engines evaluate.

An attribute with a list as its value meets a condition if one of the list's elements does, as in Meilisearch.
"""

from dataclasses import dataclass
from typing import Literal, TypeAlias

Value: TypeAlias = str | int | float | bool
Operator: TypeAlias = Literal["=", ">", ">=", "<", "<="]


@dataclass(frozen=True)
class Compare:
    """The attribute has a value that equals, exceeds or falls below `value`; texts equal in any case."""

    attribute: str
    operator: Operator
    value: Value


@dataclass(frozen=True)
class In:
    """The attribute equals one of the values."""

    attribute: str
    values: tuple[Value, ...]


@dataclass(frozen=True)
class Exists:
    """The product has the attribute."""

    attribute: str


@dataclass(frozen=True)
class Not:
    """The condition is not met."""

    condition: "Filter"


@dataclass(frozen=True)
class And:
    """All conditions are met."""

    conditions: "tuple[Filter, ...]"


@dataclass(frozen=True)
class Or:
    """A condition is met."""

    conditions: "tuple[Filter, ...]"


Filter: TypeAlias = Compare | In | Exists | Not | And | Or
