"""Selection rules for folders, titles and keywords, and the text of PROVENANCE.md [ours].

`TEXT` is part of the packaged zip and must not change: the bytes of the zip would.
"""

import re
from collections import Counter

# Folders of images that are not objects: ornaments, maps, symbols, icon themes, playing cards (one series of 226),
# flags other than national ones. An image that is also in another folder is kept from there.
NOT_OBJECTS = re.compile(
    r"(shapes|special|logos|buttons|decorations|unsorted/duplicates"
    r"|computer/(buttons|diagrams|icons/[^/]*-theme)|transportation/aiga-symbols"
    r"|signs_and_symbols/(led|map_symbols|disability)|signs_and_symbols/[^/]*$"
    r"|signs_and_symbols/flags/(?!(africa|america|asia|europe|oceania(/[a-z]*nesia)?)/[^/]*$)"
    r"|geography/[^/]*$|recreation/games/cards|people/clothing/pantyhose)(/|$)?"
)
UNSUITABLE = re.compile(
    r"nazi|swastik|hitler|sunwheel|black sun|fascis|ku klux|confederat|nud[ei]|naked|erotic|sex|porn|breast|boob|penis"
    r"|vagin|pantyhose|lingerie|bikini|stripper|marijuana|cannabis|hemp|bong|cocaine|heroin|drug|cigar|non smoking"
    r"|tobacco|fuck|shit|piss|murder|suicid|bloody|gunshot|terror|satan|gallows|atomic|fanart|disney|mickey|pokemon"
    r"|domo kun|pac ?man|packman|chomper|quake|lightsaber|gundam|microsoft|bill gates|xbill|nigger|golliwog|negro"
    r"|eris\b|discordia|spaghetti monst|luther king|coltrane|lauburu",
    re.IGNORECASE,
)
# Selected by hand on contact sheets: nudity, slurs, photographs of private persons, a game character, blank frames,
# screens of text, a regional flag.
BY_HAND = {
    *("stripper-jarno-vasamaa-01r", "portrait-of-a-woman-guid", "female-rollandin-frances", "mermaid-kurt-cagle"),
    *("human-humain-umano-sed-r", "silhouette-female-1", "silhouette-female-2", "silhouette-female-3"),
    *("silhouette-male-1", "silhouette-male-2", "silhouette-male-3", "pregnancy-silhouet-mo-01", "elfish-girl-mo1"),
    *("pregnancy-silhouet-mo-02", "bad-guy-fr-1-01", "chav-01", "pimp-hat-james-birkett-01", "media-as-wmd-saint"),
    *("a-happy-boy-01", "a-youngster-01", "grandpa-01", "self-portrait-hardi1", "a-man-singing-01", "silvia-01"),
    *("a-boy-plays-soccer-01", "jazz-enrique-meza-c-01", "mascot-enrique-meza-c-01", "fireman-enrique-meza-c-01"),
    *("future-beckham-utrescu", "hotel-icon-collection-b-01", "hotel-icon-collection-i-01", "corsica-patricia-fidi-01"),
    *("hotel-icon-collection-i-02", "bluepane-01", "container-for-other-ico-01", "pastas-s-rgio-luiz-ara-j-01"),
    *("preenchimento-inkscape-s-01", "logic-functions-digital-01", "logaritmic-diagram-01", "mygraph-john-rariden-01"),
    *("blots-jesper-zedlitz-01", "lam-arn-01", "svg-buttons-lumen-design1", "splatter-linda-kim-r"),
    *("elfish-girl-mo", "chav-02", "jazz-enrique-meza-c-02", "enthusiast"),
}
# Titles that name a set instead of an image: images of icon sets are dropped, others are titled by their file name.
ICON_SET = re.compile(r"flat icon collection|lemon svg|etiquette icons|iconset|gold-theme|plastik", re.IGNORECASE)
SET_TITLE = re.compile(
    r"^clipart by|various cliparts|sibmission|^sallite|homes clipart|^advertising|road signs|map symbols|balloons-aj"
    r"|australian maps|aiga_symbol|untitled|no ?name|^image\b|^drawing\b|@|^svg\b|^test\b",
    re.IGNORECASE,
)
# Words of the library's organization, not descriptions of an image.
FILING = {
    *("hash", "unsorted", "icon", "app icon", "appicon", "mimeicon", "symbol", "sign", "signs and symbols", "shape"),
    *("special", "theme", "action", "application", "device", "mime types", "mimetypes", "filesystem", "stock", "logo"),
    *("mapsym", "map symbol", "networksym", "weathersym", "musicsym", "button", "openclipart", "open clip art", "svg"),
    *("png", "clipart", "clip art", "public domain", "inkscape", "sodipodi", "vector", "unchecked", "color", "colour"),
    *("activities", "activity", "place", "work", "misc", "other", "miscellany", "image", "picture", "drawing", "draw"),
    *("signs and symbols/weather", "desktop", "geometry", "magick", "art", "stuff", "equipment", "thing", "object"),
    *("blueberry", "iconset", "imformation", "tools/weapons", "none", "paper symbol", "usholiday", "religholiday"),
    *("day", "architetto francesco rollandin", "nicu", "graphic", "design", "unzsnu", "go", "in", "of", "the", "and"),
}
SPELLED = {
    "icecream": "ice cream",
    "bodypart": "body part",
    "roadtravel": "road travel",
    "airtravel": "air travel",
    "musicstuff": "music",
    "vegitable": "vegetable",
    "froggies": "frog",
    "foodfruits": "fruit",
    "foul": "fowl",
    "wilflife": "wildlife",
    "electronic": "electronics",
    "cdplayer": "cd player",
    "northamerica": "north america",
    "noze": "nose",
    "leafs": "leaf",
    "mice": "mouse",
    "moon space": "moon",
}
NOT_PLURAL = {"news", "glasses", "gas", "lens", "christmas", "billiards", "physics", "clothes", "bass", "moons"}

INFO = {
    "name": "openclipart",
    "title": "Open Clip Art Library 0.18, the object-like pictures",
    "licence": "public domain (CC0-like, see PROVENANCE.md)",
    "attributes": [],
    "gains": {"0": 0, "3": 3},
    "relevant": 3,
}


def is_unsuitable(path: str, text: str) -> bool:
    """Whether a file must not be packaged, by name, title, keywords, or selection by hand."""
    return identifier(path) in BY_HAND or UNSUITABLE.search(f"{path} {text}".replace("_", " ")) is not None


def identifier(path: str) -> str:
    """A product id: the file name in lower-case letters, digits and hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", path.rsplit("/", 1)[-1].lower()).strip("-")


def title(written: str, author: str, file: str) -> str:
    """The contributor's title in words, else the file name in words, else ""."""
    if ICON_SET.search(written):
        return ""
    if written and not SET_TITLE.search(written) and written.lower() not in author.lower():
        return words_of(written)
    from_file = words_of(without_author(file, author))
    return "" if SET_TITLE.search(from_file) else from_file


def without_author(file: str, author: str) -> str:
    """A file name without its number and the (often truncated) author's name that the library appended."""
    name = re.sub(r"[_-]([0-9]*[a-z]?|ganson|aj)$", "", file.lower())
    slug = re.sub(r"[^a-z]+", "_", author.lower()).strip("_")
    for length in range(len(slug), 2, -1):
        if name.endswith("_" + slug[:length]):
            return name[: -length - 1]
    return "" if slug and name.startswith(slug[:8]) else name


def words_of(text: str) -> str:
    """Text with file-name separators as spaces and without running numbers; "" if fewer than three letters remain."""
    text = re.sub(r"\.(svg|png)$", "", text)
    text = re.sub(r"(?<=[a-z])(?=[A-Z][a-z])", " ", text)
    text = re.sub(r"#\d+|[_|:;*#\"]+", " ", text)
    if " " not in text.strip():
        text = text.replace("-", " ")
    text = re.sub(r"\s*-\s+|\s+-\s*", " ", text)
    text = re.sub(r"\bb ?w\b|\(b and w\)", "black and white", text, flags=re.IGNORECASE)
    text = re.sub(r"(?<=[A-Za-z]{3})\d+\b|(?<!\S)0\d+(?!\S)|\s\d$|\bopenclipart\b", " ", text)
    text = " ".join(text.split()).strip(" .,-!")
    return text[:80] if len(re.findall(r"[^\W_]", text)) >= 3 and re.search(r"[^\W\d_]", text) else ""


def keywords(written: list[str], author: str) -> set[str]:
    """The keywords that describe the image: lower case, separators as spaces, without words of FILING."""
    kept = set()
    for keyword in written:
        text = " ".join(re.sub(r"[_\-/,.]+", " ", keyword.lower()).split())
        text = SPELLED.get(text, text)
        letters = len(re.findall(r"[^\W\d_]", text))
        named = text == author.lower() or (" " in text and text in author.lower())
        if letters < 2 or letters < len(text.replace(" ", "")) / 2 or len(text) > 24 or text.count(" ") > 1:
            continue
        if text in FILING or f"{text}s" in FILING or text.removesuffix("s") in FILING or named:
            continue
        if "hash(" in text or "@" in keyword or "openclipart" in text:
            continue
        kept.add(text)
    return kept


def singular(word: str, known: set[str]) -> str:
    """The singular of an English plural if it is in `known`, otherwise the word."""
    if word in NOT_PLURAL or word.endswith(("ss", "us", "is")):
        return word
    for ending, instead in (("ies", "y"), ("ves", "f"), ("es", ""), ("s", "")):
        if word.endswith(ending) and (shorter := word.removesuffix(ending) + instead) in known and len(shorter) > 2:
            return shorter
    return word


def stem(text: str) -> str:
    """A title without numbers, brackets and colors: equal for the images of one series."""
    text = re.sub(r"\(.*?\)|\d+|black and white", " ", text.lower())
    text = re.sub(r"\b(black|white|red|green|blue|yellow|orange|purple|pink|gr[ae]y|brown|colou?r)\b", " ", text)
    return " ".join(re.findall(r"[^\W_]+", text)) or text


def occurs_in(keyword: str, text: str) -> bool:
    """Whether a word of a keyword occurs in a text, in any case, singular or plural, also inside a longer word."""
    letters = re.sub(r"[\W_]+", "", text.lower())
    for word in keyword.split():
        roots = {word, re.sub(r"e?s$", "", word), re.sub(r"(ies|y)$", "", word)}
        roots |= {re.sub(r"f$", "v", word), re.sub(r"ves$", "f", word)}
        if word in letters or any(len(root) > 2 and root in letters for root in roots):
            return True
    return False


def provenance(products: list[dict], queries: list[dict], clicks: list[dict], dropped: Counter) -> str:
    """The PROVENANCE.md of a catalog, with its counts."""
    rows = ["| split | products | groups | queries | clicks |", "|---|---|---|---|---|"]
    for split in ("train", "val", "test"):
        inside = [product for product in products if product["split"] == split]
        judged = sum(query["split"] == split for query in queries)
        groups = len({product["group"] for product in inside})
        rows.append(f"| {split} | {len(inside)} | {groups} | {judged} | {len(clicks) if split == 'train' else 0} |")
    rows += ["", "| query kind | val | test |", "|---|---|---|"]
    kinds = Counter((query["kind"], query["split"]) for query in queries)
    rows += [f"| {kind} | {kinds[kind, 'val']} | {kinds[kind, 'test']} |" for kind in sorted({k for k, _ in kinds})]
    omitted = [f"* {count} {reason}" for reason, count in sorted(dropped.items())]
    return "\n".join([TEXT.strip(), "", "Left out, files:", "", *omitted, "", "## Counts", "", *rows, ""])


TEXT = """
# openclipart - provenance and licence

**These are clip-art drawings, not products of a shop.** They stand in for products so that training, search and
evaluation can be tried with nothing to download.

## Where from

Debian source package openclipart 1:0.18+dfsg-19, binary packages `openclipart-png` (pictures) and `openclipart-svg`
(titles, keywords, authors, in the RDF of each file); upstream Open Clip Art Library 0.18, openclipart.org. Made by
`scripts/build_openclipart.py`, whose docstring has the commands.

## Licence

The copyright file of both packages gives "creative commons Public Domain Dedication, Copyright-Only Dedication (based
on United States law) or Public Domain Certification": contributors dedicate whatever copyright they hold to the public
domain and "once placed in the public domain, the Work may be freely reproduced, distributed, transmitted, used,
modified, built upon, or otherwise exploited by anyone for any purpose, commercial or non-commercial". Only files whose
own licence field says public domain too are taken. A dedication covers copyright only: some pictures show things whose
names or shapes are somebody's trade mark.

## What queries and clicks are

Queries: NOT from users. They are keywords that the contributors of the pictures wrote; so are the clicks.

* **No query and no click is the behaviour of a user.** Both are keywords that the contributors of the pictures wrote.
* Judged queries (validation, test): a keyword of the contributors; relevant (grade 3) are the pictures of that split
  whose contributor wrote it, all others are 0. Contributors left out keywords that would fit, so a picture judged 0
  may well be right: scores are lower bounds, to be compared with each other.
* `keyword:title`: the word stands in the title of at least one relevant picture. `keyword:picture`: no word of the
  query stands in any relevant title, in any case, singular or plural, alone or inside a longer word; only the picture
  (or a related title word) can answer. `keyword:pair`: two keywords that the same pictures carry, neither of which
  nearly always comes with the other; the title may or may not say them.
* Clicks: one for each keyword of each training picture, and up to three texts of two of its keywords. Titles are not
  queries. Clicks are from training pictures only.
* A query's keywords each stand on at least two training pictures, hence in the clicks; a keyword on more than
  15 % of all pictures is no query.
* All queries say `lang` en; a few keywords and many titles are Italian, French, German or Spanish words.

## What was done

* Folders: ornaments, shapes, gradients, maps, symbols, safety and map signs, flags other than national ones, buttons,
  logos, icon themes, playing cards and diagrams are left out; animals, food, plants, people, buildings, tools,
  vehicles, road signs, toys, instruments, national flags and other objects stay (a few maps and symbols that the
  library filed among them too). Files with words of hate, sex, drugs or well-known characters in name, title or
  keywords are left out, and some 50 more that were picked by eye on contact sheets of everything.
* Files that show an image which is not inside them ("linked image not found") are left out.
* The library files one picture in several folders: byte-equal pictures are one product with all their keywords.
* Title: the contributor's, with file-name joints opened and numbers dropped; where it names a set or the author, the
  file name in words. Keywords: lower case, joints opened, words of the library's filing (icon, symbol, unsorted, ...)
  and the author's name dropped, a plural written as its singular where somebody uses the singular, a dozen spellings
  mended.
* Picture: transparent parts white, white margins cut, longer side 96 pixels, WebP; almost empty and very elongated
  pictures (over 4:1) and files of over 40 megapixels are left out.
* Groups: pictures whose 256-bit difference hash differs in at most 24 bits and whose colours agree or whose author is
  one, and pictures of one author with the same title but for numbers, brackets and colours, joined by union-find. A
  group lies in one split: 60 / 8 / 32 % train / val / test by a hash of its name; a group over 20 pictures trains.
"""
