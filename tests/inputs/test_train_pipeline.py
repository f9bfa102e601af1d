"""Batches for training and for evaluation."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from make_jax.catalog.build import build
from make_jax.catalog.reader import Catalog
from make_jax.config import AugmentConfig, DataConfig
from make_jax.errors import InputError
from make_jax.inputs import train_pipeline
from make_jax.inputs.batch import Batch
from make_jax.inputs.eval_pipeline import product_batches, query_batches
from make_jax.inputs.images import LargeImage, Pixels, load_image
from make_jax.inputs.tokenizer import train_wordpiece
from make_jax.inputs.train_pipeline import train_batches
from tests.inputs.shop import INPUTS, Shop
from tests.tiny_catalog import write_catalog, write_lines

PLAIN = dataclasses.replace(
    INPUTS, augment=AugmentConfig(min_crop_area=1.0, flip=False, brightness=0.0, contrast=0.0, saturation=0.0)
)
LARGE = dataclasses.replace(INPUTS, image_height=8, image_width=8)  # the images have more than twice as much
ALWAYS = {"query_tokens", "query_mask", "title_tokens", "title_mask", "image", "has_image", "has_title"}


def assert_equal(found: Batch, expected: Batch) -> None:
    assert found.keys() == expected.keys()
    for name in expected:
        assert found[name].dtype == expected[name].dtype
        np.testing.assert_array_equal(found[name], expected[name], err_msg=name)


def together(parts: list[Batch]) -> Batch:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


# --- training ---


def test_batch_has_the_shapes_and_types_of_the_contract(shop: Shop) -> None:
    (batch,) = shop.batches(1)
    assert {name: (array.shape, array.dtype.name) for name, array in batch.items()} == {
        "query_tokens": ((8, 6), "int32"),
        "query_mask": ((8, 6), "bool"),
        "title_tokens": ((8, 8), "int32"),
        "title_mask": ((8, 8), "bool"),
        "image": ((8, 16, 12, 3), "uint8"),
        "has_image": ((8,), "bool"),
        "has_title": ((8,), "bool"),
        "product_id": ((8,), "int32"),
        "query_id": ((8,), "int32"),
        "query_keywords": ((8, 1), "uint32"),
        "product_keywords": ((8, 1), "uint32"),
        "weight": ((8,), "float32"),
    }
    assert (batch["weight"] == 1).all()


def test_rows_of_a_batch_belong_together(shop: Shop) -> None:
    clicks = len(shop.catalog.clicks)
    epoch = together(shop.batches(clicks // 8, PLAIN))
    pairs = {(click.query, click.product) for click in shop.catalog.clicks}
    queries = {shop.tokenizer.encode([click.query], 6)[0].tobytes(): click.query for click in shop.catalog.clicks}
    found = set()
    for row in range(len(epoch["product_id"])):
        product = shop.catalog.split_products("train")[epoch["product_id"][row]]
        found.add((queries[epoch["query_tokens"][row].tobytes()], product.id))
        title = shop.tokenizer.encode([product.title], 8)[0][0] if product.title else np.zeros(8)
        np.testing.assert_array_equal(epoch["title_tokens"][row], title)
        data = shop.catalog.image_bytes(product)
        image = np.zeros((16, 12, 3)) if data is None else load_image(data, product.id, INPUTS)
        np.testing.assert_array_equal(epoch["image"][row], image)
    assert clicks % 8 == 0 and found == pairs


def test_batch_is_a_pure_function_of_seed_and_step(shop: Shop) -> None:
    batches = shop.batches(12)
    for k in (0, 1, 5, 9):
        for found, expected in zip(shop.batches(3, start_step=k), batches[k : k + 3], strict=True):
            assert_equal(found, expected)
    other = shop.batches(1, seed=1)[0]
    assert not np.array_equal(other["product_id"], batches[0]["product_id"])


@pytest.mark.parametrize("processes", [2, 4])
def test_rows_of_all_processes_concatenate_to_the_global_batch(shop: Shop, processes: int) -> None:
    expected = shop.batches(2, start_step=3)
    parts = [shop.batches(2, start_step=3, process_index=i, process_count=processes) for i in range(processes)]
    for step in range(2):
        assert len(parts[0][step]["weight"]) == 8 // processes
        assert_equal(together([part[step] for part in parts]), expected[step])


def test_worker_count_never_changes_a_batch(shop: Shop) -> None:
    expected = shop.batches(5, start_step=2)
    found = shop.batches(5, data=DataConfig(workers=2), start_step=2)
    for ours, theirs in zip(found, expected, strict=True):
        assert_equal(ours, theirs)


def test_every_epoch_shows_each_click_once_in_a_new_order(shop: Shop) -> None:
    clicks = len(shop.catalog.clicks)
    steps = clicks // 8
    batches = shop.batches(2 * steps)
    epochs = [together(half) for half in (batches[:steps], batches[steps:])]
    orders = [list(zip(epoch["query_id"].tolist(), epoch["product_id"].tolist(), strict=True)) for epoch in epochs]
    assert orders[0] != orders[1] and sorted(orders[0]) == sorted(orders[1])
    assert len(set(orders[0])) == clicks
    images = [
        {pair: image.tobytes() for pair, image in zip(orders[i], epochs[i]["image"], strict=True)} for i in (0, 1)
    ]
    assert sum(images[0][pair] != images[1][pair] for pair in orders[0]) > clicks / 2  # changed anew, too


def test_seeds_do_not_share_epochs(shop: Shop) -> None:
    steps = len(shop.catalog.clicks) // 8
    second = shop.batches(1, seed=0, start_step=steps)[0]
    assert not np.array_equal(shop.batches(1, seed=1)[0]["product_id"], second["product_id"])


def test_batch_larger_than_the_catalog_repeats_clicks(shop: Shop) -> None:
    (batch,) = shop.batches(1, batch_size=200)
    assert len(batch["weight"]) == 200
    assert len(set(batch["product_id"].tolist())) == len(shop.catalog.split_products("train"))


def test_equal_query_texts_have_equal_ids(shop: Shop, tmp_path: Path) -> None:
    path = write_catalog(tmp_path / "tiny", products=20)
    ids = [product.id for product in Catalog.load(path).split_products("train")]
    texts = ["Red circle", "red  circle", "ＲＥＤ circle", "red circles"]
    write_lines(path / "clicks.jsonl", [{"query": t, "product": p} for t, p in zip(texts, ids, strict=False)])
    built = build(path, str(tmp_path / "cache"))
    iterator = train_batches(built, shop.tokenizer, shop.keywords, INPUTS, DataConfig(), batch_size=4, seed=0)
    batch = next(iterator)
    iterator.close()
    _, counts = np.unique(batch["query_id"], return_counts=True)
    assert sorted(counts.tolist()) == [1, 3]


def test_texts_that_are_mostly_unknown_to_the_tokenizer_are_stated_once(shop: Shop) -> None:
    messages: list[str] = []
    shop.batches(2, message=messages.append)
    assert not messages
    shop.tokenizer, before = train_wordpiece(["0 1"] * 2, 60), shop.tokenizer
    try:
        shop.batches(1, message=messages.append)
    finally:
        shop.tokenizer = before
    titles, queries = messages
    assert " training titles are more than half unknown tokens" in titles
    assert " clicked queries are more than half unknown tokens" in queries


def test_keywords_of_query_and_product_are_packed_by_the_vocabulary(shop: Shop) -> None:
    batch = together(shop.batches(4, dataclasses.replace(INPUTS, max_query_tokens=20)))  # texts are not truncated
    products = [shop.catalog.split_products("train")[i] for i in batch["product_id"]]
    held = [shop.keywords.tag(p.title) | shop.keywords.attribute_keywords(p.attributes) for p in products]
    np.testing.assert_array_equal(batch["product_keywords"], shop.keywords.pack(held))
    texts = [shop.text(tokens) for tokens in batch["query_tokens"]]
    np.testing.assert_array_equal(batch["query_keywords"], shop.keywords.pack([shop.keywords.tag(t) for t in texts]))
    assert batch["query_keywords"].any(axis=1).mean() > 0.3  # the English half: few clicks tie no second language


def test_swaps_are_added_on_request_and_change_nothing_else(shop: Shop) -> None:
    plain, swapped = together(shop.batches(4)), together(shop.batches(4, keyword_swaps=True))
    assert set(swapped) - set(plain) == {"swap_tokens", "swap_mask", "swap_keywords"}
    assert_equal({name: swapped[name] for name in plain}, plain)
    there = swapped["swap_mask"].any(axis=1)
    np.testing.assert_array_equal(there, swapped["query_keywords"].any(axis=1))
    # No product has all keywords of its swapped query.
    inside = ~(swapped["swap_keywords"] & ~swapped["product_keywords"]).any(axis=1)
    assert not inside[there].any() and not swapped["swap_keywords"][~there].any()


def test_missing_title_or_image_is_marked_and_zero(shop: Shop) -> None:
    batch = together(shop.batches(len(shop.catalog.clicks) // 8))
    products = [shop.catalog.split_products("train")[i] for i in batch["product_id"]]
    np.testing.assert_array_equal(batch["has_title"], [bool(product.title) for product in products])
    np.testing.assert_array_equal(batch["has_image"], [product.image is not None for product in products])
    assert 0 < batch["has_title"].mean() < 1 and 0 < batch["has_image"].mean() < 1
    assert not batch["title_mask"][~batch["has_title"]].any() and not batch["title_tokens"][~batch["has_title"]].any()
    assert batch["title_mask"][batch["has_title"]].any(axis=1).all()
    assert (
        not batch["image"][~batch["has_image"]].any() and batch["image"][batch["has_image"]].any(axis=(1, 2, 3)).all()
    )


def test_images_are_cached_if_all_fit_and_batches_stay_the_same(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    source = shop.built.products("train")
    reads: list[int] = []

    class Counted(Sequence[dict[str, object]]):
        def __len__(self) -> int:
            return len(source)

        def __getitem__(self, position: object) -> dict[str, object]:
            reads.append(position)
            return source[position]

    monkeypatch.setattr(shop.built, "products", lambda split: Counted())
    kept = shop.batches(20)
    assert set(reads) == set(range(len(source))) and len(reads) < 2 * len(source)
    reads.clear()
    monkeypatch.setattr(train_pipeline, "_IMAGE_CACHE_BYTES", len(source) * 16 * 12 * 3 - 1)
    for found, expected in zip(shop.batches(20), kept, strict=True):
        assert_equal(found, expected)
    assert len(reads) >= 160


def test_large_images_are_cached_as_long_as_they_fit_and_batches_stay_the_same(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    caches: list[dict[int, Pixels | LargeImage | None]] = []
    read = train_pipeline._LoadRow._read

    def recorded(row: train_pipeline._LoadRow, position: int) -> Pixels | LargeImage | None:
        caches.append(row.cache)
        return read(row, position)

    monkeypatch.setattr(train_pipeline._LoadRow, "_read", recorded)
    expected = shop.batches(20, LARGE, DataConfig(threads=1))
    count = len(shop.built.products("train"))
    assert len(caches[-1]) == count
    images = [image for image in caches[-1].values() if image is not None]
    assert all(isinstance(image, LargeImage) for image in images)
    caches.clear()
    limit = count * LARGE.image_height * LARGE.image_width * 3  # enough at the model's size
    assert limit < sum(image.nbytes for image in images)
    monkeypatch.setattr(train_pipeline, "_IMAGE_CACHE_BYTES", limit)
    for found, other in zip(shop.batches(20, LARGE, DataConfig(threads=1)), expected, strict=True):
        assert_equal(found, other)
    kept = [image.nbytes for image in caches[-1].values() if image is not None]
    assert limit / 2 < sum(kept) <= limit and len(kept) < len(images)


@pytest.mark.parametrize("data", [DataConfig(threads=3), DataConfig(workers=2)])
def test_threads_and_workers_never_change_crops_of_large_images(shop: Shop, data: DataConfig) -> None:
    expected = shop.batches(4, LARGE, DataConfig(threads=1), start_step=1)
    for found, other in zip(shop.batches(4, LARGE, data, start_step=1), expected, strict=True):
        assert_equal(found, other)


@pytest.mark.parametrize("image_decoding", ["scaled", "full"])
def test_evaluation_sees_the_large_images_of_training(shop: Shop, image_decoding: Literal["scaled", "full"]) -> None:
    inputs = dataclasses.replace(LARGE, augment=PLAIN.augment, image_decoding=image_decoding)
    trained = together(shop.batches(len(shop.catalog.clicks) // 8, inputs))
    products = shop.catalog.split_products("train")
    (evaluated,) = product_batches(
        [product.title for product in products],
        [shop.catalog.image_bytes(product) for product in products],
        shop.tokenizer,
        inputs,
        batch_size=len(products),
    )
    np.testing.assert_array_equal(trained["image"], evaluated["image"][trained["product_id"]])


def test_bad_settings_are_input_errors_that_name_them(shop: Shop) -> None:
    with pytest.raises(InputError, match=r"train\.batch_size: found 6"):
        shop.batches(1, batch_size=6, process_count=4)
    with pytest.raises(InputError, match=r"train\.seed: found -1"):
        shop.batches(1, seed=-1)


def test_catalog_without_clicks_is_an_input_error(shop: Shop, tmp_path: Path) -> None:
    path = write_catalog(tmp_path / "tiny", products=10)
    (path / "clicks.jsonl").unlink()
    data = DataConfig(catalog=str(path))
    built = build(path, str(tmp_path / "cache"))
    with pytest.raises(InputError, match=r"tiny.*no clicks.*clicks\.jsonl"):
        train_batches(built, shop.tokenizer, shop.keywords, INPUTS, data, batch_size=4, seed=0)


@pytest.mark.parametrize("workers", [0, 1])
def test_unreadable_image_in_training_is_an_input_error_and_never_zeros(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    source = shop.built.products("train")
    spoiled = [source[i] | {"image": source[i]["image"][:60]} for i in range(len(source))]
    monkeypatch.setattr(shop.built, "products", lambda split: spoiled)
    with pytest.raises(InputError, match=r"shop\.zip: image of product 'p\d+': "):
        shop.batches(1, data=DataConfig(catalog="shop.zip", workers=workers))


# --- evaluation ---


def test_last_evaluation_batch_is_padded_with_weight_0(shop: Shop) -> None:
    products = shop.catalog.products[:7]
    batches = list(
        product_batches(
            [product.title for product in products],
            [shop.catalog.image_bytes(product) for product in products],
            shop.tokenizer,
            INPUTS,
            batch_size=4,
        )
    )
    assert [batch["weight"].tolist() for batch in batches] == [[1, 1, 1, 1], [1, 1, 1, 0]]
    assert [batch["product_id"].tolist() for batch in batches] == [[0, 1, 2, 3], [4, 5, 6, -1]]
    for batch in batches:
        assert batch.keys() == {*ALWAYS - {"query_tokens", "query_mask"}, "product_id", "weight"}
        assert {name: array.dtype.name for name, array in batch.items()} == {
            "title_tokens": "int32",
            "title_mask": "bool",
            "image": "uint8",
            "has_image": "bool",
            "has_title": "bool",
            "product_id": "int32",
            "weight": "float32",
        }
        assert {len(array) for array in batch.values()} == {4}
    last = {name: array[3] for name, array in batches[1].items()}
    assert not any(last[name].any() for name in last if name != "product_id")


def test_evaluation_loads_images_lazily_without_augmentation(shop: Shop) -> None:
    products = shop.catalog.products
    reads: list[int] = []

    def image_at(i: int) -> bytes | None:
        reads.append(i)
        return shop.catalog.image_bytes(products[i])

    titles = [product.title for product in products]
    iterator = product_batches(titles, image_at, shop.tokenizer, INPUTS, batch_size=8)
    batch = next(iterator)
    assert sorted(reads) == list(range(8))
    for row, product in enumerate(products[:8]):
        data = shop.catalog.image_bytes(product)
        assert batch["has_image"][row] == (data is not None)
        image = np.zeros((16, 12, 3)) if data is None else load_image(data, product.id, INPUTS)
        np.testing.assert_array_equal(batch["image"][row], image)
        assert batch["has_title"][row] == bool(product.title) == batch["title_mask"][row].any()


def test_unreadable_image_in_evaluation_is_an_input_error_that_names_it(shop: Shop) -> None:
    for names, expected in ((None, "number 1"), (["p8", "p9"], "'p9'")):
        iterator = product_batches(["a", "b"], [None, b"no picture"], shop.tokenizer, INPUTS, batch_size=2, names=names)
        with pytest.raises(InputError, match=f"image of product {expected}"):
            next(iterator)


def test_query_batches_cover_every_text_in_order(shop: Shop) -> None:
    texts = ["red circle", "", "红色圆形", "blue", "green"]
    batches = list(query_batches(texts, shop.tokenizer, shop.keywords, INPUTS, batch_size=3))
    tokens, mask = shop.tokenizer.encode(texts, 6)
    joined = together(batches)
    np.testing.assert_array_equal(joined["query_tokens"][:5], tokens)
    np.testing.assert_array_equal(joined["query_mask"][:5], mask)
    assert joined["weight"].tolist() == [1, 1, 1, 1, 1, 0]
    assert not joined["query_mask"][5].any()
    sets = [shop.keywords.tag(text) for text in texts]
    assert any(sets)
    np.testing.assert_array_equal(joined["query_keywords"][:5], shop.keywords.pack(sets))
    assert not joined["query_keywords"][5].any()
    assert list(query_batches([], shop.tokenizer, shop.keywords, INPUTS, batch_size=3)) == []
