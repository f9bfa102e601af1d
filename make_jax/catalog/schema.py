"""What a catalog holds, as plain records. The file format is in docs/catalog.md."""

from dataclasses import dataclass, field
from typing import Literal

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")
Pool = Literal["split", "all", "judged"]  # what a query searches: its split, the whole catalog, what it judges
POOLS: tuple[Pool, ...] = ("split", "all", "judged")


@dataclass(frozen=True, slots=True)
class Product:
    """Something that can be found: a title, an image, or both.

    The encoders see `title` and `image` only. `attributes` holds the keys that the catalog names as attributes, of
    training products only; they serve keywords. "category" there is the most specific of the levels. `dropped` says
    what was removed from the title; it serves slices of an evaluation and nothing else.
    """

    id: str
    title: str  # "" when it has none, or when the catalog hides titles
    image: str | None  # path inside the catalog, None when it has none
    split: Split
    category: tuple[str, ...] = ()
    group: str | None = None
    attributes: dict[str, str] = field(default_factory=dict)
    dropped: tuple[str, ...] = ()
    sensitive: bool = False  # left out of galleries and contact sheets


@dataclass(frozen=True, slots=True)
class Query:
    """A judged query. `rel` maps a product id to its grade; a product that is absent is judged 0."""

    id: str
    text: str
    split: Split
    rel: dict[str, int]
    kind: str = ""  # free text; evaluation slices by it
    lang: str = ""  # "en", "zh", ...; "" when unknown
    heldout: bool = False  # asks for a combination that no click shows (`heldout_combo` in the file)


@dataclass(frozen=True, slots=True)
class Click:
    """A training pair: someone asked `query` and took `product`."""

    query: str
    product: str
    lang: str = ""


@dataclass(frozen=True, slots=True)
class CatalogInfo:
    """What catalog.json says, or its defaults."""

    name: str
    title: str = ""
    licence: str = ""
    attributes: tuple[str, ...] = ()  # keys of products.jsonl that are attributes; "category" may be one of them
    gains: dict[int, float] = field(default_factory=dict)  # of a grade, in nDCG; a grade that is absent gains itself
    relevant: int = 3  # least grade that counts as relevant
    hide_title: bool = False  # titles are labels: the encoders see images only
    pool: Pool = "split"  # which products a query searches, unless evaluation is told otherwise
