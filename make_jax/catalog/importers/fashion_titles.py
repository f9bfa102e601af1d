"""Sparse titles: words for color, type, gender or brand are dropped, as sellers often omit them [ours]."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from make_jax.catalog.importers.rows import hash_fraction

RATES = {"colour": 0.50, "type": 0.35, "gender": 0.35, "brand": 0.20}  # share of the products
# Stems, as `stem` returns them.
GENDERS = frozenset({"men", "man", "women", "woman", "boy", "girl", "unisex", "kid", "lady", "ladie", "gent"})

PROVENANCE = (
    "SPARSE TITLES: from each title the words that state the colour (50 % of the products), type (35 %), gender (35 %) "
    "and brand (20 %) are dropped, chosen independently: product ID loses its colour if the first 8 bytes of "
    'SHA-256 of "sparse colour:ID", as a share of 2^64, are below 0.5, and so on. Words are compared in lower case, '
    "without punctuation and plural s. Colour: words of the product's colour label and of colour labels of one word; "
    "type: words of its articleType and the last word of any articleType; gender: men, women, boys, girls, unisex, "
    "kids, ladies, gents, in singular and plural; brand: the brand where the title begins with it, and "
    "those words for no other reason. `dropped` names what was dropped; it is for slices only. A "
    "product without an image keeps its title if nothing else would remain."
)


def stem(word: str) -> str:
    """A word in lower case, without punctuation and without a plural or genitive s."""
    plain = re.sub(r"[^\w]", "", re.sub(r"['’]s$", "", word.lower()))
    if re.search(r"(s|x|ch|sh)es$", plain) and len(plain) > 4:
        return plain[:-2]
    return plain[:-1] if plain.endswith("s") and not plain.endswith("ss") and len(plain) > 3 else plain


def words_before_gender(title: str) -> str:
    """The words of a title before its first gender word; "" without one."""
    words = title.split()
    first = next((position for position, word in enumerate(words) if stem(word) in GENDERS), 0)
    return " ".join(words[:first])


@dataclass(frozen=True)
class TitleVocabulary:
    """The brands, type words and color words of a catalog's labels."""

    brands: frozenset[str]
    types: frozenset[str]  # stems of the last words of type labels
    colours: frozenset[str]  # stems of colour labels of one word

    @classmethod
    def from_labels(cls, brands: frozenset[str], types: Iterable[str], colours: Iterable[str]) -> "TitleVocabulary":
        """The vocabulary of all labels of a catalog."""
        heads = frozenset(stem(label.split()[-1]) for label in types if label)
        return cls(brands, heads, frozenset(stem(label) for label in colours if label and " " not in label))

    def brand(self, title: str) -> str:
        """The known brand at the start of a title; "" if there is none."""
        brand = words_before_gender(title)
        return brand if brand in self.brands else ""

    def shorten(self, title: str, id: str, labels: dict[str, str]) -> tuple[str, list[str]]:
        """The title without the words that a hash of the id selects, and the labels that were dropped."""
        words = title.split()
        brand = labels["brand"].split()
        starts_with_brand = [word.lower() for word in words[: len(brand)]] == [word.lower() for word in brand]
        brand_words = len(brand) if starts_with_brand else 0
        parts = {"brand": words[:brand_words], "rest": words[brand_words:]}  # "Red" in "Red Tape" is not a color
        dropped = []
        for key, rate in RATES.items():
            if hash_fraction(f"sparse {key}", id) < rate:
                part = "brand" if key == "brand" else "rest"
                kept = [] if key == "brand" else self._without(parts[part], key, labels[key])
                dropped += [key] if kept != parts[part] else []
                parts[part] = kept
        return " ".join(parts["brand"] + parts["rest"]), sorted(dropped)

    def _without(self, words: list[str], key: str, label: str) -> list[str]:
        own = {stem(word) for word in label.split()}
        removed = {"colour": self.colours | own, "type": self.types | own, "gender": GENDERS}[key]
        return [word for word in words if stem(word) not in removed]
