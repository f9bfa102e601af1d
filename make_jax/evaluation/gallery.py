"""A picture of what a model finds: some queries, their best products, and what each product vector leans on."""

import io
from pathlib import Path

import numpy as np
from jaxtyping import Float32
from PIL import Image, ImageDraw

from make_jax.catalog.images import decode
from make_jax.catalog.reader import Catalog
from make_jax.catalog.schema import Product, Query
from make_jax.evaluation.evaluate import Evaluation
from make_jax.evaluation.fonts import Fonts, wrap
from make_jax.evaluation.weights_plot import weight_groups
from make_jax.files import write_atomically

_MARGIN, _QUERY, _CELL, _PICTURE, _TEXT = 16, 190, 172, 150, 112  # pixels
_INK, _GREY, _PALE = "#1a1a1a", "#6b6b6b", "#d9d9d9"
_RELEVANT, _TITLE, _IMAGE = "#138a36", "#4477aa", "#ee9944"


def draw_gallery(
    evaluation: Evaluation, catalog: Catalog, path: Path, *, seed: int = 0, rows: int = 8, columns: int = 6
) -> str:
    """Writes a PNG, a row for each of some queries, and gives back its caption.

    The queries are drawn by `seed`, in turn from each kind and language, whatever was found for them. Sensitive
    products, queries that ask for such, and queries that no installed font can write are left out.
    """
    fonts = Fonts()
    products = {product.id: product for product in evaluation.products}
    tame = [i for i, query in enumerate(evaluation.judgements.queries) if not _asks_for_sensitive(query, products)]
    written = [i for i in tame if fonts.covers(evaluation.judgements.queries[i].text)]
    chosen = choose(evaluation.judgements.queries, written, rows, seed)
    caption = _caption(evaluation, len(chosen), seed, unwritten=len(tame) - len(written))
    width = 2 * _MARGIN + _QUERY + columns * _CELL
    head = wrap(caption, fonts.of(caption, 14), width - 2 * _MARGIN, 6)
    top = _MARGIN + 30 + 19 * len(head) + 30
    height = _PICTURE + _TEXT
    page = Image.new("RGB", (width, top + height * max(len(chosen), 1)), "white")
    draw = ImageDraw.Draw(page)
    title = f"{catalog.info.name}, {evaluation.split} split"
    draw.text((_MARGIN, _MARGIN), title, fill=_INK, font=fonts.of(title, 20, bold=True))
    for i, line in enumerate(head):
        draw.text((_MARGIN, _MARGIN + 30 + 19 * i), line, fill=_GREY, font=fonts.of(line, 14))
    weighed = bool(weight_groups(evaluation))
    _legend(draw, fonts, _MARGIN + 34 + 19 * len(head), weighed)
    ranking = evaluation.rankings[evaluation.main]
    for row, i in enumerate(chosen):
        y = top + row * height
        draw.line((_MARGIN, y, width - _MARGIN, y), fill=_PALE)
        query = evaluation.judgements.queries[i]
        _draw_query(draw, fonts, query, y + 14)
        found = [
            (int(index), float(score))
            for index, score in zip(ranking.indices[i], ranking.scores[i], strict=True)
            if index >= 0 and not evaluation.products[index].sensitive
        ]
        for column, (index, score) in enumerate(found[:columns]):
            corner = (_MARGIN + _QUERY + column * _CELL, y + 10)
            _draw_product(page, fonts, evaluation, catalog, query, index, score, corner, weighed)
    buffer = io.BytesIO()
    page.save(buffer, format="PNG")
    write_atomically(path, buffer.getvalue())
    return caption


def choose(queries: tuple[Query, ...], among: list[int], count: int, seed: int) -> list[int]:
    """Positions of `count` queries, one from each (kind to the first colon, language) in turn; drawn by `seed`."""
    rng = np.random.default_rng(seed)
    groups: dict[tuple[str, str], list[int]] = {}
    for i in rng.permutation(np.array(among, int)).tolist():
        groups.setdefault((queries[i].kind.partition(":")[0], queries[i].lang), []).append(i)
    turns = [members for _, members in sorted(groups.items())]
    longest = max(map(len, turns), default=0)
    in_turn = [members[turn] for turn in range(longest) for members in turns if turn < len(members)]
    return sorted(in_turn[:count], key=lambda i: (queries[i].kind, queries[i].lang, i))


def _asks_for_sensitive(query: Query, products: dict[str, Product]) -> bool:
    return any(grade > 0 and i in products and products[i].sensitive for i, grade in query.rel.items())


def _caption(evaluation: Evaluation, shown: int, seed: int, unwritten: int) -> str:
    """What is shown and how it was chosen."""
    total = len(evaluation.judgements.queries)
    parts = [
        f"{shown} of {total:,} queries, drawn by seed {seed} in turn from each kind and language, whatever they found; "
        f"best results of {len(evaluation.products):,} products first (system: {evaluation.main})."
    ]
    if any(product.sensitive for product in evaluation.products):
        parts.append("Products marked sensitive, and queries that ask for them, are not shown.")
    if unwritten:
        parts.append(f"{unwritten:,} queries could not be drawn: no font on this computer has their characters.")
    return " ".join(parts)


def _legend(draw: ImageDraw.ImageDraw, fonts: Fonts, y: int, weighed: bool) -> None:
    """One line that says what the marks mean."""
    x = _MARGIN
    entries = [(_RELEVANT, "relevant"), (_PALE, "not relevant")]
    if weighed:
        entries += [(_TITLE, "share of the title in the product vector"), (_IMAGE, "share of the image")]
    for colour, text in entries:
        draw.rectangle((x, y + 2, x + 13, y + 13), fill=colour)
        font = fonts.of(text, 13)
        draw.text((x + 19, y), text, fill=_GREY, font=font)
        x += 19 + int(font.getlength(text)) + 22


def _draw_query(draw: ImageDraw.ImageDraw, fonts: Fonts, query: Query, y: int) -> None:
    """The query's text and kind, at the left of its row."""
    font = fonts.of(query.text, 17, bold=True)
    for line in wrap(query.text, font, _QUERY - 18, 5):
        draw.text((_MARGIN, y), line, fill=_INK, font=font)
        y += 23
    below = " · ".join(word for word in (query.kind, query.lang, "held out" if query.heldout else "") if word)
    for line in wrap(below.replace("+", "+ ").replace(":", ": "), fonts.of(below, 12), _QUERY - 18, 4):
        draw.text((_MARGIN, y + 5), line, fill=_GREY, font=fonts.of(line, 12))
        y += 16


def _draw_product(
    page: Image.Image,
    fonts: Fonts,
    evaluation: Evaluation,
    catalog: Catalog,
    query: Query,
    index: int,
    score: float,
    corner: tuple[int, int],
    weighed: bool,
) -> None:
    """One result: framed picture, title, score, modal weights if products differ in them."""
    draw = ImageDraw.Draw(page)
    product = evaluation.products[index]
    relevant = query.rel.get(product.id, 0) >= evaluation.judgements.relevant
    (x, y), side = corner, _PICTURE
    data = catalog.image_bytes(product)
    if data is None:
        draw.text((x + 34, y + side // 2 - 8), "no picture", fill=_GREY, font=fonts.of("no picture", 13))
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
    for i, line in enumerate(wrap(title, fonts.of(title, 12), side, 3)):
        draw.text((x, y + 15 * i), line, fill=_INK if product.title else _GREY, font=fonts.of(line, 12))
    y += 50
    text = f"score {score:.2f}"
    draw.text((x, y), text, fill=_RELEVANT if relevant else _GREY, font=fonts.of(text, 12, bold=True))
    if relevant:
        mark = "✓ relevant"
        font = fonts.of(mark, 12)
        draw.text((x + side - font.getlength(mark), y), mark, fill=_RELEVANT, font=font)
    if weighed:
        assert evaluation.embeddings is not None
        _draw_weights(draw, fonts, evaluation.embeddings.weights[index], x, y)


def _draw_weights(draw: ImageDraw.ImageDraw, fonts: Fonts, weights: Float32[np.ndarray, "2"], x: int, y: int) -> None:
    """A bar of the shares of title and image in the product's vector, and the two numbers."""
    w_title, w_image = weights.tolist()
    side = _PICTURE
    split = x + round(side * w_title)
    if w_title > 0:
        draw.rectangle((x, y + 18, max(x, split - 1), y + 23), fill=_TITLE)
    if w_image > 0:
        draw.rectangle((min(split, x + side - 1), y + 18, x + side - 1, y + 23), fill=_IMAGE)
    text = f"title {w_title:.2f}  image {w_image:.2f}"
    draw.text((x, y + 27), text, fill=_GREY, font=fonts.of(text, 12))
