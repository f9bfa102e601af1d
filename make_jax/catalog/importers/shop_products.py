"""Makes the products of a catalog from the staged rows of a table or a shop's export, and reports what it did."""

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

from make_jax.catalog.importers import staging
from make_jax.catalog.importers.import_state import ImportState, NoProducts
from make_jax.catalog.importers.local_images import CURL_FILE, LocalImages, add_url, curl_config, is_url, want_url
from make_jax.catalog.importers.rows import BadRow, Row, hash_split
from make_jax.catalog.importers.staging import Item, StagedProducts
from make_jax.catalog.schema import Split
from make_jax.catalog.text import shortened, strip_text

MAX_TITLE, MAX_DESCRIPTION = 1000, 10_000  # characters that are kept
_RESERVED = ("title", "split", "category", "group", "description", "variants")
_SPLITS: dict[str, Split] = {"train": "train", "训练": "train", "test": "test", "测试": "test", "验证": "val"}
_SPLITS |= {"val": "val", "valid": "val", "validation": "val", "dev": "val"}


def clean_id(state: ImportState, row: Row, text: str) -> str:
    """An id of a shop for a catalog, with "_" for white space, because TREC files separate by it; see `clean_sku`."""
    text = clean_sku(state, row, text)
    if text and text.split() != [text]:
        state.note("changed", 'white space in an id becomes "_"', f"{row.place}: {text}")
        text = "_".join(text.split())
    return text


def clean_sku(state: ImportState, row: Row, text: str) -> str:
    """A code without the apostrophe before it, which keeps spreadsheets from reading a number."""
    if text.startswith("'") and len(text) > 1:
        state.note("changed", "the apostrophe before an id is removed", f"{row.place}: {text}")
        text = strip_text(text[1:])
    return text


def add_row(state: ImportState, row: Row, key: str, item: Item, joined: str = "") -> None:
    """Stages what a row states. Rows of one `key` become one product; `joined` is how the report calls the later ones.
    Without it a second row of a key is dropped, unless all earlier ones were variants."""
    state.note("taken", f"rows of {row.place.partition(':')[0]}", "")
    if row.padded:
        state.note("changed", "missing fields at the end of a row are taken as empty", row.place)
    if not joined and staging.has_main(state.database, key):
        state.note("dropped", "its id is that of an earlier row", f"{row.place}: {item.id}")
        return
    for name in item.image_names:
        if is_url(name):
            add_url(state.database, name)
    if len(item.title) > MAX_TITLE:
        state.note("changed", f"a title is cut to {MAX_TITLE:,} characters", f"{row.place}: {item.id}")
    item.title, item.description = item.title[:MAX_TITLE], item.description[:MAX_DESCRIPTION]
    if staging.stage(state.database, row, key, item) and joined:
        state.note("joined", joined, f"{row.place}: {item.id}")


def add_products(state: ImportState, images: LocalImages, drafts: bool = True) -> tuple[str, ...]:
    """Adds a product for the rows of each key; returns the keys of attributes. `drafts`: also what shops do not show.

    Raises NoProducts if no product is left.
    """
    state.read_table(StagedProducts(state.database), partial(_add, state, images, drafts))
    state.run_once("currencies", partial(_note_currencies, state))
    if next(state.products(), None) is None:
        reasons = "; ".join(line for line in state.report() if line.startswith("dropped")) or "it has no rows"
        raise NoProducts(f"{state.source}: no product, expected at least one; {reasons}")
    return _attribute_keys(state)


def download_steps(state: ImportState) -> tuple[str, ...]:
    """Writes CURL_FILE into the catalog if URLs have no file; returns the lines that state how to use it."""
    count = state.database.execute("SELECT COUNT(*) FROM url WHERE wanted").fetchone()[0]
    if not count:
        return ()
    state.write_file(CURL_FILE, curl_config(state.database))
    named = "image is a URL" if count == 1 else "images are URLs"
    return (
        f"{count:,} {named} and not downloaded. Save them, then import again into a new OUT with --images:",
        f"curl --output-dir IMAGES --config {{out}}/{CURL_FILE}",
    )


def _add(state: ImportState, images: LocalImages, drafts: bool, row: Row) -> None:
    """Adds the product of some rows, and its clicks."""
    if split := _add_product(state, images, drafts, row):
        _add_clicks(state, row, split)


def _add_product(state: ImportState, images: LocalImages, drafts: bool, row: Row) -> Split | None:
    """Adds a product; returns its split, None if it is dropped."""
    items: list[Item] = row.values["items"]
    first = items[0]
    title = _first(item.title for item in items)
    place = f"{row.place}: {shortened(first.id + (f' {title}' if title else ''), 60)}"
    if first.hidden and not drafts:
        state.note("dropped", f"the shop does not show it: {first.hidden} (option --drafts)", place)
        return None
    if state.product_split(first.id) is not None:
        state.note("dropped", "its id is that of an earlier product", place)
        return None
    _note_titles(state, items)
    if not first.is_main and title:
        state.note("noted", "variants without a row for their product", place)
    group = _first(item.group for item in items)
    values: dict[str, Any] = {
        "category": _first(item.category for item in items),
        "group": group,
        "description": _first(item.description for item in items),
        "variants": variants if len(variants := _distinct(item.variant for item in items)) > 1 else [],
    }
    split = _SPLITS.get(_first(item.split for item in items).casefold()) or hash_split(group or first.id)
    attributes = _attributes(state, items, place)
    failures: list[tuple[str, str]] = []
    for data, name in _readable(images, items, failures):
        try:
            with state.attempt():
                state.add_product(row, first.id, split, title, data, attributes, **values)
            break
        except BadRow as error:
            failures.append(
                (
                    "the image cannot be read",
                    str(error).removeprefix(f"{row.place}: product {first.id}: ") + f" ({name})",
                )
            )
    else:
        _add_without_image(state, row, place, failures, bool(title))
        if title:
            state.add_product(row, first.id, split, title, None, attributes, **values)
        return split if title else None
    if failures:
        state.note("changed", f"a further image is used: {failures[0][0]}", f"{row.place}: {failures[0][1]}")
    if len(_distinct(name for item in items for name in item.image_names)) > 1 + len(failures):
        state.note("noted", "products with several images, of which the first is used", place)
    return split


def _note_titles(state: ImportState, items: Sequence[Item]) -> None:
    """Reports titles of further rows, which are not used, with the places of both."""
    titled = [item for item in items if item.title]
    if other := next((item for item in titled if item.title != titled[0].title), None):
        place = f"{titled[0].place}: {shortened(titled[0].title, 40)}; {other.place}: {shortened(other.title, 40)}"
        state.note("noted", "rows of one product have different titles; the first is used", place)


def _add_clicks(state: ImportState, row: Row, split: Split) -> None:
    """Adds a click for each query of a training product. Those of other products are left out, because clicks are
    training pairs and no judgements; so are those of rows that the source has in another split."""
    items: list[Item] = row.values["items"]
    for item in items:
        if not item.queries:
            continue
        of_row = _SPLITS.get(item.split.casefold(), split)
        if split == of_row == "train":
            for query in item.queries:
                state.add_click(row, query, items[0].id)
            state.note("taken", "queries of training products, as clicks", "", len(item.queries))
            continue
        reason = (
            f"queries of {split} products" if split != "train" else f"queries of {of_row} rows of training products"
        )
        text = f"{reason}: clicks are training pairs and no judgements"
        state.note("dropped", text, f"{row.place}: {item.queries[0]}", len(item.queries))


def _add_without_image(
    state: ImportState, row: Row, place: str, failures: Sequence[tuple[str, str]], has_title: bool
) -> None:
    reason, detail = failures[0] if failures else ("no image is named", "")
    if url := next((detail for _, detail in failures if is_url(detail)), None):
        want_url(state.database, url)
    where = f"{place}: {detail}" if detail else place
    if has_title:
        state.note("without image", reason, where)
    else:
        state.note("dropped", f"no title, and {reason}", where)


def _readable(
    images: LocalImages, items: Sequence[Item], failures: list[tuple[str, str]]
) -> Iterable[tuple[bytes, str]]:
    """The bytes and the name of each image of a product that exists; the others are added to `failures`."""
    for item in items:
        if item.image_bytes:
            yield item.image_bytes, "in the row"
    ordered = sorted(items, key=lambda item: item.image_position)
    for name in _distinct(name for item in ordered for name in item.image_names):
        data, reason = images.read(name)
        if data:
            yield data, name
        else:
            failures.append((reason or "the image's file is empty", name))


def _attributes(state: ImportState, items: Sequence[Item], place: str) -> dict[str, Any]:
    """The attributes of all rows of a product, its options, its lowest price and the currency."""
    names = next(([name for name, _ in item.options] for item in items if any(name for name, _ in item.options)), [])
    collected: dict[str, list[Any]] = {}
    for item in items:
        pairs = list(item.attributes.items())
        named = ((name or (names[n] if n < len(names) else ""), value) for n, (name, value) in enumerate(item.options))
        pairs += [(name, value) for name, value in named if name and value]
        for key, value in pairs:
            collected.setdefault(key, []).extend(value if isinstance(value, list) else [value])
    lists = {key for item in items for key, value in item.attributes.items() if isinstance(value, list)}
    merged = {key: _merged(values, key in lists) for key, values in collected.items()}
    prices = [(item.price, item.currency) for item in items if item.price is not None]
    if prices:
        currency = prices[0][1]
        if any(other != currency for _, other in prices):
            state.note("noted", "variants have prices in several currencies; that of the first is used", place)
        merged["price"] = min(amount for amount, other in prices if other == currency)
        merged |= {"currency": currency} if currency else {}
    return {key: value for key, value in merged.items() if value not in (None, "", [])}


def _merged(values: list[Any], is_list: bool) -> Any:
    """One value for all rows: whether any is true, the least number, or the distinct texts."""
    if not is_list and all(isinstance(value, bool) for value in values):
        return any(values)
    if not is_list and all(isinstance(value, int | float) for value in values):
        return min(values)
    distinct = _distinct(str(value) for value in values)
    return distinct if is_list or len(distinct) > 1 else "".join(distinct)


def _first(values: Iterable[Any]) -> Any:
    """The first value that is not empty; "" without one."""
    return next((value for value in values if value), "")


def _distinct(values: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(value for value in values if value))


def _note_currencies(state: ImportState) -> None:
    found = staging.currencies(state.database)
    for currency, count, place in found:
        state.note("taken", f"prices in {currency}" if currency else "prices without a currency", place, count)
    if len(found) > 1:
        counts = ", ".join(f"{currency or 'without one'} {count:,}" for currency, count, _ in found)
        text = f"prices in several currencies ({counts}), not converted: filter by `currency` too"
        state.note("noted", text, "", sum(count for _, count, _ in found))


def _attribute_keys(state: ImportState) -> tuple[str, ...]:
    """The keys of attributes in the added products, "category" first if a product has one."""
    sql = "SELECT DISTINCT key FROM product, json_each(product.line)"
    keys = [key for (key,) in state.database.execute(sql)]
    named = sorted(key for key in keys if key not in _RESERVED)
    return ("category", *named) if "category" in keys else tuple(named)
