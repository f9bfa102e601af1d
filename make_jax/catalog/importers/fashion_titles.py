"""Sparse titles: words that state colour, type, gender or brand are dropped, as sellers leave them out [ours]."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from make_jax.catalog.importers.chance import share

RATES = {"colour": 0.50, "type": 0.35, "gender": 0.35, "brand": 0.20}  # of the products
# As `stem` leaves them.
GENDERS = frozenset({"men", "man", "women", "woman", "boy", "girl", "unisex", "kid", "lady", "ladie", "gent"})

PROVENANCE = (
    "SPARSE TITLES: from each title the words that state the colour (50 % of the products), type (35 %), gender (35 %) "
    "and brand (20 %) are dropped, chosen independently: product ID loses its colour if the first 8 bytes of "
    'SHA-256 of "sparse colour:ID", as a share of 2^64, are below 0.5, and so on. Words are compared in lower case, '
    "without punctuation and plural s. Colour: words of the product's colour label and of colour labels of one word; "
    "type: words of its articleType and the last word of any articleType; gender: men, women, boys, girls, unisex, "
    "kids, ladies, gents, in singular and plural; brand: the brand where the title begins with it. `dropped` names "
    "what was dropped; it is for slices only. A product without a picture keeps its title if nothing else would remain."
)


def stem(word: str) -> str:
    """A word in lower case without punctuation and without the s of a plural or a genitive."""
    plain = re.sub(r"[^\w]", "", re.sub(r"['’]s$", "", word.lower()))
    if re.search(r"(s|x|ch|sh)es$", plain) and len(plain) > 4:
        return plain[:-2]
    return plain[:-1] if plain.endswith("s") and not plain.endswith("ss") and len(plain) > 3 else plain


def before_gender(title: str) -> str:
    """The words of a title before its first word for a gender; "" when it has none."""
    words = title.split()
    places = [place for place, word in enumerate(words) if stem(word) in GENDERS]
    return " ".join(words[: places[0]]) if places else ""


@dataclass(frozen=True)
class Vocabulary:
    """What the labels of a whole catalog say of words in titles."""

    brands: frozenset[str]
    types: frozenset[str]  # stems of the last words of type labels
    colours: frozenset[str]  # stems of colour labels of one word

    @classmethod
    def of(cls, brands: frozenset[str], types: Iterable[str], colours: Iterable[str]) -> "Vocabulary":
        """From the labels that occur."""
        heads = frozenset(stem(label.split()[-1]) for label in types if label)
        return cls(brands, heads, frozenset(stem(label) for label in colours if label and " " not in label))

    def brand(self, title: str) -> str:
        """The brand that a title begins with; "" when none is known."""
        brand = before_gender(title)
        return brand if brand in self.brands else ""

    def shorten(self, title: str, identity: str, labels: dict[str, str]) -> tuple[str, list[str]]:
        """The title without the words that chance picks for this product, and what they stated."""
        words = title.split()
        dropped = []
        for key, rate in RATES.items():
            if share(f"sparse {key}", identity) < rate:
                left = self._without(words, key, labels)
                dropped += [key] if left != words else []
                words = left
        return " ".join(words), sorted(dropped)

    def _without(self, words: list[str], key: str, labels: dict[str, str]) -> list[str]:
        label = labels[key]
        if key == "brand":
            size = len(label.split())
            begins = label and " ".join(words[:size]).lower() == " ".join(label.split()).lower()
            return words[size:] if begins else words
        own = {stem(word) for word in label.split()}
        stated = {"colour": self.colours | own, "type": self.types | own, "gender": GENDERS}[key]
        return [word for word in words if stem(word) not in stated]
