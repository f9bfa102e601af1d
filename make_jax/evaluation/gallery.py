"""The gallery of a report: a picture of example queries and their top results, with modal weights and attributes."""

import io
from pathlib import Path

import numpy as np
from jaxtyping import Float32
from PIL import Image, ImageDraw

from make_jax.catalog.attributes import format_attributes
from make_jax.catalog.images import decode
from make_jax.catalog.reader import Catalog
from make_jax.catalog.schema import Product, Query
from make_jax.evaluation.evaluate import Evaluation
from make_jax.evaluation.fonts import Fonts, wrap
from make_jax.evaluation.weights_plot import weight_groups
from make_jax.files import write_atomically
from make_jax.report_tables import system_name

_MARGIN, _QUERY, _CELL, _PICTURE, _TEXT = 16, 190, 172, 150, 112  # pixels
_LINE, _MAX_ATTRIBUTE_LINES = 15, 8  # pixels of a line of attributes; lines of a product
_INK, _GRAY, _PALE = "#1a1a1a", "#6b6b6b", "#d9d9d9"
_RELEVANT, _TITLE, _IMAGE = "#138a36", "#4477aa", "#ee9944"


def draw_gallery(
    evaluation: Evaluation, catalog: Catalog, path: Path, *, seed: int = 0, rows: int = 8, columns: int = 6
) -> str:
    """Writes a PNG with one row per query and returns its caption.

    Queries are sampled with `seed`, stratified by kind and language, regardless of their results. Sensitive products,
    queries with sensitive relevant products, and queries that no installed font can render are left out.
    """
    fonts = Fonts()
    products = {product.id: product for product in evaluation.products}
    not_sensitive = [
        i for i, query in enumerate(evaluation.judgements.queries) if not _has_sensitive_answer(query, products)
    ]
    renderable = [i for i in not_sensitive if fonts.covers(evaluation.judgements.queries[i].text)]
    sampled = sample_queries(evaluation.judgements.queries, renderable, rows, seed)
    caption = _caption(evaluation, len(sampled), seed, unrenderable=len(not_sensitive) - len(renderable))
    width = 2 * _MARGIN + _QUERY + columns * _CELL
    head = wrap(caption, fonts.for_text(caption, 14), width - 2 * _MARGIN, 6)
    top = _MARGIN + 30 + 19 * len(head) + 30
    results = [_top_results(evaluation, i, columns) for i in sampled]
    attributes = {index: _attribute_lines(fonts, evaluation.products[index]) for hits in results for index, _ in hits}
    height = _PICTURE + _TEXT + _LINE * max(map(len, attributes.values()), default=0)
    page = Image.new("RGB", (width, top + height * max(len(sampled), 1)), "white")
    draw = ImageDraw.Draw(page)
    title = f"{catalog.info.name}, {evaluation.split} split"
    draw.text((_MARGIN, _MARGIN), title, fill=_INK, font=fonts.for_text(title, 20, bold=True))
    for i, line in enumerate(head):
        draw.text((_MARGIN, _MARGIN + 30 + 19 * i), line, fill=_GRAY, font=fonts.for_text(line, 14))
    with_weights = bool(weight_groups(evaluation))
    _legend(draw, fonts, _MARGIN + 34 + 19 * len(head), with_weights)
    for row, i in enumerate(sampled):
        y = top + row * height
        draw.line((_MARGIN, y, width - _MARGIN, y), fill=_PALE)
        query = evaluation.judgements.queries[i]
        _draw_query(draw, fonts, query, y + 14)
        for column, (index, score) in enumerate(results[row]):
            top_left = (_MARGIN + _QUERY + column * _CELL, y + 10)
            _draw_product(page, fonts, evaluation, catalog, query, index, score, top_left, with_weights)
            for number, line in enumerate(attributes[index]):
                place = (top_left[0], y + _PICTURE + _TEXT - 4 + _LINE * number)
                draw.text(place, line, fill=_GRAY, font=fonts.for_text(line, 12))
    buffer = io.BytesIO()
    page.save(buffer, format="PNG")
    write_atomically(path, buffer.getvalue())
    return caption


def sample_queries(queries: tuple[Query, ...], candidates: list[int], count: int, seed: int) -> list[int]:
    """Returns positions of `count` queries, sampled with `seed` and stratified by kind and language."""
    rng = np.random.default_rng(seed)
    groups: dict[tuple[str, str], list[int]] = {}
    for i in rng.permutation(np.array(candidates, int)).tolist():
        groups.setdefault((queries[i].kind.partition(":")[0], queries[i].lang), []).append(i)
    strata = [members for _, members in sorted(groups.items())]
    longest = max(map(len, strata), default=0)
    round_robin = [members[rank] for rank in range(longest) for members in strata if rank < len(members)]
    return sorted(round_robin[:count], key=lambda i: (queries[i].kind, queries[i].lang, i))


def _has_sensitive_answer(query: Query, products: dict[str, Product]) -> bool:
    return any(grade > 0 and i in products and products[i].sensitive for i, grade in query.rel.items())


def _caption(evaluation: Evaluation, shown: int, seed: int, unrenderable: int) -> str:
    """Returns what is shown and how it was sampled."""
    total = len(evaluation.judgements.queries)
    parts = [
        f"{shown} of {total:,} queries, sampled with seed {seed}, stratified by kind and language, regardless of their "
        f"results. Top results among {len(evaluation.products):,} products, system: {system_name(evaluation.main)}."
    ]
    if any(product.sensitive for product in evaluation.products):
        parts.append("Sensitive products, and queries with sensitive relevant products, are not shown.")
    if unrenderable:
        parts.append(f"{unrenderable:,} queries are not shown: no installed font has their characters.")
    return " ".join(parts)


def _legend(draw: ImageDraw.ImageDraw, fonts: Fonts, y: int, with_weights: bool) -> None:
    """Draws the legend in one line."""
    x = _MARGIN
    entries = [(_RELEVANT, "relevant"), (_PALE, "not relevant")]
    if with_weights:
        entries += [(_TITLE, "w_title: share of the title in the product vector"), (_IMAGE, "w_image")]
    for color, text in entries:
        draw.rectangle((x, y + 2, x + 13, y + 13), fill=color)
        font = fonts.for_text(text, 13)
        draw.text((x + 19, y), text, fill=_GRAY, font=font)
        x += 19 + int(font.getlength(text)) + 22


def _draw_query(draw: ImageDraw.ImageDraw, fonts: Fonts, query: Query, y: int) -> None:
    """Draws text, kind and language of the query at the left of its row."""
    font = fonts.for_text(query.text, 17, bold=True)
    for line in wrap(query.text, font, _QUERY - 18, 5):
        draw.text((_MARGIN, y), line, fill=_INK, font=font)
        y += 23
    details = " · ".join(word for word in (query.kind, query.lang, "held-out" if query.heldout else "") if word)
    for line in wrap(details.replace("+", "+ ").replace(":", ": "), fonts.for_text(details, 12), _QUERY - 18, 4):
        draw.text((_MARGIN, y + 5), line, fill=_GRAY, font=fonts.for_text(line, 12))
        y += 16


def _top_results(evaluation: Evaluation, query: int, count: int) -> list[tuple[int, float]]:
    """Returns position and score of the top `count` products of a query that are not sensitive."""
    ranking = evaluation.rankings[evaluation.main]
    found = zip(ranking.indices[query].tolist(), ranking.scores[query].tolist(), strict=True)
    return [(i, score) for i, score in found if i >= 0 and not evaluation.products[i].sensitive][:count]


def _attribute_lines(fonts: Fonts, product: Product) -> list[str]:
    """Returns the attributes of a product, wrapped to the width of its picture."""
    text = format_attributes(product.attributes)
    return wrap(text, fonts.for_text(text, 12), _PICTURE, _MAX_ATTRIBUTE_LINES)


def _draw_product(
    page: Image.Image,
    fonts: Fonts,
    evaluation: Evaluation,
    catalog: Catalog,
    query: Query,
    index: int,
    score: float,
    top_left: tuple[int, int],
    with_weights: bool,
) -> None:
    """Draws one result: framed picture, title, score, and modal weights if products differ in them."""
    draw = ImageDraw.Draw(page)
    product = evaluation.products[index]
    relevant = query.rel.get(product.id, 0) >= evaluation.judgements.relevant
    (x, y), side = top_left, _PICTURE
    data = catalog.image_bytes(product)
    if data is None:
        draw.text((x + 34, y + side // 2 - 8), "no image", fill=_GRAY, font=fonts.for_text("no image", 13))
    else:
        picture = decode(data, f"{catalog.path}: image of {product.id}")
        scale = (side - 16) / max(picture.size)
        size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
        picture = picture.resize(size, Image.Resampling.BICUBIC)
        page.paste(picture, (x + (side - size[0]) // 2, y + (side - size[1]) // 2))
    draw.rectangle(
        (x, y, x + side - 1, y + side - 1), outline=_RELEVANT if relevant else _PALE, width=4 if relevant else 1
    )
    y += side + 5
    title = product.title or "(no title)"
    for i, line in enumerate(wrap(title, fonts.for_text(title, 12), side, 3)):
        draw.text((x, y + 15 * i), line, fill=_INK if product.title else _GRAY, font=fonts.for_text(line, 12))
    y += 50
    text = f"score {score:.2f}"
    draw.text((x, y), text, fill=_RELEVANT if relevant else _GRAY, font=fonts.for_text(text, 12, bold=True))
    if relevant:
        mark = "✓ relevant"
        font = fonts.for_text(mark, 12)
        draw.text((x + side - font.getlength(mark), y), mark, fill=_RELEVANT, font=font)
    if with_weights:
        assert evaluation.embeddings is not None
        _draw_weights(draw, fonts, evaluation.embeddings.weights[index], x, y)


def _draw_weights(draw: ImageDraw.ImageDraw, fonts: Fonts, weights: Float32[np.ndarray, "2"], x: int, y: int) -> None:
    """Draws the modal weights of a product as a bar and two numbers."""
    w_title, w_image = weights.tolist()
    side = _PICTURE
    split = x + round(side * w_title)
    if w_title > 0:
        draw.rectangle((x, y + 18, max(x, split - 1), y + 23), fill=_TITLE)
    if w_image > 0:
        draw.rectangle((min(split, x + side - 1), y + 18, x + side - 1, y + 23), fill=_IMAGE)
    text = f"title {w_title:.2f}  image {w_image:.2f}"
    draw.text((x, y + 27), text, fill=_GRAY, font=fonts.for_text(text, 12))
