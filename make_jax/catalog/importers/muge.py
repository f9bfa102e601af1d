"""MUGE text-to-image retrieval in the layout of Chinese-CLIP: base64 images, Chinese queries of Taobao.

The layout is taken from README_En.md and cn_clip/preprocess/build_lmdb_dataset.py of github.com/OFA-Sys/Chinese-CLIP:
<split>_imgs.tsv, a line "image id<tab>base64"; <split>_texts.jsonl, lines {"text_id", "text", "image_ids"}; splits
train, valid, test. Its loader decodes the URL-safe alphabet, the README shows the standard one; both are accepted.
"""

import base64
import binascii
from functools import partial
from pathlib import Path

from make_jax.catalog.importers.benchmark_info import BenchmarkInfo
from make_jax.catalog.importers.import_state import ImportState
from make_jax.catalog.importers.rows import Row, hash_fraction
from make_jax.catalog.importers.tables import JsonLines, TextLines
from make_jax.catalog.schema import Split

VALIDATION = 0.02  # share of the training images used for validation

INFO = BenchmarkInfo(
    name="muge",
    title="MUGE text-to-image retrieval",
    licence="not stated in the source that was read; the data set is distributed by Alibaba under terms of its own",
    provenance=(
        "Chinese queries and product images of Taobao, in the archive that github.com/OFA-Sys/Chinese-CLIP links. "
        "There are no titles. The published split `valid` is `test` here, because results are published for it; the "
        "published `test` has no judgements and is omitted. Of the published `train`, 2 % of the images, chosen by a "
        "hash of the id, are `val`, and a text with `val` images only is a judged query; every other pair of a text "
        "and a `train` image is a click, and its pairs with `val` images are omitted. The only grade is 1."
    ),
    citation=(
        "Lin et al.: M6: A Chinese Multimodal Pretrainer, 2021; packed by Yang et al.: Chinese CLIP, arXiv 2211.01335."
    ),
)


def read(state: ImportState, source: Path) -> BenchmarkInfo:
    """Reads a folder with the .tsv and .jsonl files of the splits train and valid."""
    for part in ("train", "valid"):
        state.read_table(TextLines(source / f"{part}_imgs.tsv"), partial(_image, state, part=part))
        state.read_table(JsonLines(source / f"{part}_texts.jsonl"), partial(_text, state, part=part))
    return INFO


def _split(part: str, image: str) -> Split:
    if part == "valid":
        return "test"
    return "val" if hash_fraction("muge val", image) < VALIDATION else "train"


def _image(state: ImportState, row: Row, part: str) -> None:
    id, tab, code = row.values["line"].strip().partition("\t")
    if not tab or id.split() != [id]:
        raise row.error("no image, expected an image id, a tab and base64")
    try:
        data = base64.b64decode(code.replace("-", "+").replace("_", "/"), validate=True)
    except (binascii.Error, ValueError) as error:
        raise row.error(f"product {id}: invalid base64 ({error}), expected the base64 of an image") from None
    state.add_product(row, id, _split(part, id), "", data)


def _text(state: ImportState, row: Row, part: str) -> None:
    if not row.values:
        return
    id, text = row.id("text_id"), row.required_text("text")
    images = row.values.get("image_ids")
    if not isinstance(images, list) or not all(isinstance(image, int | str) for image in images):
        raise row.value_error("image_ids", "a list of image ids")
    relevant = [row.valid_unicode("image_ids", str(image)) for image in images]
    splits = {_split(part, image) for image in relevant}
    if len(splits) == 1 and "train" not in splits:
        state.add_query(row, id, splits.pop(), text, kind="people", lang="zh")
        for image in relevant:
            state.add_judgement(row, id, image, 1)
        return
    for image in relevant:
        if _split(part, image) == "train":
            state.add_click(row, text, image, "zh")
