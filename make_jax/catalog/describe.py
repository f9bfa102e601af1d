"""Describes a catalog: a text with counts and lengths, and a contact sheet of images with titles."""

import io
import statistics
from collections import Counter
from collections.abc import Sequence
from operator import attrgetter
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from make_jax.catalog import images
from make_jax.catalog.attributes import value_kind
from make_jax.catalog.check import summary
from make_jax.catalog.plausibility import excluded_by_pool, limits
from make_jax.catalog.reader import Catalog
from make_jax.catalog.reporting import MAX_LISTED, Problems
from make_jax.catalog.schema import SPLITS, Product, Query
from make_jax.errors import InputError
from make_jax.files import write_atomically

_CELL, _LINE, _MARGIN = 144, 15, 8  # pixels: side of an image cell, height of a text line, margin
_TITLE_LINES = 2


def describe(catalog: Catalog, problems: Problems, warnings: Problems) -> str:
    """A text with counts, splits, text lengths, attribute coverage, query positives and unreadable images.

    The arguments come from `check`, which returns the valid part of a catalog with problems.
    """
    info = catalog.info
    bad = problems.of_images()
    queries = _query_rows(catalog)
    others = sum(not text.startswith("image: ") for _, text in problems.kept)
    blocks = [
        [summary(catalog), f"  title: {info.title or '-'}", f"  licence: {info.licence or '-'}"],
        ["products         count   no title   no image   groups", *_split_rows(catalog)],
        ["lengths                       min   median      95%      max", *_length_rows(catalog)],
        ["attributes                coverage distinct   values", *_attribute_rows(catalog)],
        [
            "positives of a judged query (grade >= relevant), and queries without one",
            "                                  count      min   median      95%      max   none",
            *queries,
        ]
        if queries
        else [],
        [f"left out of evaluation: {text}" for text in excluded_by_pool(catalog)],
        [f"missing or unreadable images: {len(bad)}", *(f"  {text}" for text in bad[:MAX_LISTED])],
    ]
    if info.hide_title:
        blocks.append(["titles are labels and hidden (hide_title): the encoders get images only"])
    if len(bad) > MAX_LISTED or others:
        blocks.append([f"other problems: {others}; `check --all` lists all {problems.count}"])
    elif notes := limits(catalog):
        blocks.append(notes)
    if warnings.count:
        blocks.append([f"warnings: {warnings.count}; `check` lists them"])
    return "\n\n".join("\n".join(block) for block in blocks if block)


def contact_sheet(catalog: Catalog, out: Path, columns: int = 8, rows: int = 6) -> int:
    """Writes a PNG of images with titles, sampled evenly, and returns their number; writes no file if it is 0.

    Skips products that are `sensitive` or have no readable image. The font draws boxes for Chinese, Japanese and
    Korean characters.
    """
    candidates = [product for product in catalog.products if product.image is not None and not product.sensitive]
    capacity = columns * rows
    step = max(1, len(candidates) // capacity)
    cells: list[tuple[Product, Image.Image]] = []
    for product in [*candidates[::step], *candidates]:
        if len(cells) == capacity:
            break
        if all(product is not other for other, _ in cells) and (image := _decoded(catalog, product)):
            cells.append((product, image))
    if cells:
        file = io.BytesIO()
        _sheet(cells, columns).save(file, "PNG")
        write_atomically(out, file.getvalue())
    return len(cells)


def _sheet(cells: Sequence[tuple[Product, Image.Image]], columns: int) -> Image.Image:
    width, height = _CELL + 2 * _MARGIN, _CELL + _TITLE_LINES * _LINE + 2 * _MARGIN
    lines = -(-len(cells) // columns)
    sheet = Image.new("RGB", (width * min(columns, len(cells)), height * lines), "white")
    draw = ImageDraw.Draw(sheet)
    font = _font()
    for number, (product, image) in enumerate(cells):
        left = number % columns * width + _MARGIN
        top = number // columns * height + _MARGIN
        scale = min(_CELL / image.width, _CELL / image.height, 2.0)
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        resized = image.resize(size, Image.Resampling.LANCZOS)
        sheet.paste(resized, (left + (_CELL - size[0]) // 2, top + (_CELL - size[1]) // 2))
        for line, text in enumerate(_wrapped(product.title or "(no title)", font)):
            draw.text((left, top + _CELL + 3 + line * _LINE), text, fill="black", font=font)
    return sheet


def _wrapped(text: str, font: ImageFont.FreeTypeFont) -> list[str]:
    """The text in at most _TITLE_LINES lines of the width of a cell, cut with an ellipsis."""
    lines: list[str] = []
    rest = " ".join(text[:300].split())
    while rest and len(lines) < _TITLE_LINES:
        fits = next((end for end in range(len(rest), 0, -1) if font.getlength(rest[:end]) <= _CELL), 1)
        if fits < len(rest) and len(lines) == _TITLE_LINES - 1:
            lines.append(rest[: max(1, fits - 1)].rstrip() + "…")
            break
        if fits < len(rest) and " " in rest[: fits + 1]:
            fits = rest.rindex(" ", 0, fits + 1)
        lines.append(rest[:fits].rstrip())
        rest = rest[fits:].lstrip()
    return lines


def _font() -> ImageFont.FreeTypeFont:
    import matplotlib  # its font covers more than Latin

    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", 11)


def _decoded(catalog: Catalog, product: Product) -> Image.Image | None:
    try:
        data = catalog.image_bytes(product)
        return images.decode(data, product.id) if data else None
    except InputError:
        return None


def _split_rows(catalog: Catalog) -> list[str]:
    rows = []
    for split in SPLITS:
        products = catalog.split_products(split)
        without_title = sum(not product.title for product in products)
        without_image = sum(product.image is None for product in products)
        groups = len({product.group for product in products if product.group is not None})
        rows.append(f"  {split:11}{len(products):>9,}{without_title:>11,}{without_image:>11,}{groups:>9,}")
    return rows


def _length_rows(catalog: Catalog) -> list[str]:
    texts = {
        "titles": [product.title for product in catalog.products if product.title],
        "queries": [query.text for query in catalog.queries],
        "clicks": [click.query for click in catalog.clicks],
    }
    rows = []
    for name, values in texts.items():
        if values:
            rows.append(f"  {name + ', characters':22}{_distribution([len(value) for value in values])}")
            rows.append(f"  {name + ', words':22}{_distribution([len(value.split()) for value in values])}")
    return rows


def _attribute_rows(catalog: Catalog) -> list[str]:
    """One row an attribute: share of the products that have it, number of values, and what they are."""
    rows = []
    for key in catalog.info.attributes:
        values = [product.attributes[key] for product in catalog.products if key in product.attributes]
        kinds = Counter(value_kind(value) for value in values)
        share = len(values) / max(1, len(catalog.products))
        what = ", ".join(f"{kind} {count:,}" if len(kinds) > 1 else kind for kind, count in kinds.most_common())
        rows.append(f"  {key:22}{share:>10.1%}{len(set(values)):>9,}   {what}".rstrip())
    return rows or ["  catalog.json names none"]


def _query_rows(catalog: Catalog) -> list[str]:
    """One row a split, followed by one row a kind and a language if the split has several."""
    rows = []
    for split in SPLITS:
        queries = list(catalog.split_queries(split))
        parts: list[tuple[str, list[Query]]] = [(split, queries)] if queries else []
        for key in ("kind", "lang"):
            values = [value for value, _ in Counter(map(attrgetter(key), queries)).most_common()]
            for value in values if len(values) > 1 else ():
                parts.append((f"  {key} {value or '-'}", [query for query in queries if getattr(query, key) == value]))
        for name, part in parts:
            positives = [sum(grade >= catalog.info.relevant for grade in query.rel.values()) for query in part]
            rows.append(f"  {name:30.30}{len(part):>7,}{_distribution(positives)}{positives.count(0):>7,}")
    return rows


def _distribution(values: Sequence[int]) -> str:
    ordered = sorted(values)
    numbers = (ordered[0], statistics.median(ordered), ordered[int(0.95 * (len(ordered) - 1))], ordered[-1])
    return "".join(f"{number:>9,g}" for number in numbers)
