"""Records of a catalog. docs/catalog.md describes the file format; jsonl.py reads it."""

from dataclasses import dataclass, field
from typing import Literal

from make_jax.catalog.attributes import AttributeValue

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")
NO_SPLIT = -1  # instead of the position in SPLITS, of products in a catalog without splits
Pool = Literal["split", "all", "judged"]  # products that a query searches: its split, the catalog, those it judges
POOLS: tuple[Pool, ...] = ("split", "all", "judged")


def split_name(code: int) -> Split | None:
    """The split at a position in SPLITS; None for NO_SPLIT."""
    return None if code == NO_SPLIT else SPLITS[code]


@dataclass(frozen=True, slots=True)
class Product:
    """A searchable item with a title, an image, or both.

    The encoders read `title` and `image` only. Search results carry `attributes`; keywords are mined from those of
    training products. `dropped` names what was removed from the title, for slices of an evaluation only.
    """

    id: str
    title: str  # "" if absent, or if the catalog hides titles
    image: str | None  # path inside the catalog
    split: Split | None  # None: no product of the catalog has one; it can be searched only
    category: tuple[str, ...] = ()  # from general to specific
    group: str | None = None  # variants of one item share it
    attributes: dict[str, AttributeValue] = field(default_factory=dict)  # keys of catalog.json; "category": last level
    dropped: tuple[str, ...] = ()
    sensitive: bool = False  # excluded from galleries and contact sheets


@dataclass(frozen=True, slots=True)
class Query:
    """A judged query. `rel` maps product ids to grades; absent products have grade 0."""

    id: str
    text: str
    split: Split
    rel: dict[str, int]
    kind: str = ""  # free text; evaluation slices by it
    lang: str = ""  # "en", "zh", ...; "" if unknown
    heldout: bool = False  # combines labels that occur together in no click (`heldout_combo` in the file)


@dataclass(frozen=True, slots=True)
class Click:
    """A training pair: a query and the id of its clicked product."""

    query: str
    product: str
    lang: str = ""


@dataclass(frozen=True, slots=True)
class CatalogInfo:
    """The content of catalog.json, with defaults."""

    name: str
    title: str = ""
    licence: str = ""
    attributes: tuple[str, ...] = ()  # keys of products.jsonl that are attributes; may include "category"
    gains: dict[int, float] = field(default_factory=dict)  # nDCG gain of a grade; default: the grade
    relevant: int = 3  # lowest grade that counts as relevant
    hide_title: bool = False  # titles are labels: the encoders get images only
    pool: Pool = "split"  # default search pool of an evaluation
