"""MUGE text-to-image retrieval, as Chinese-CLIP packs it: pictures in base64, Chinese queries of Taobao.

Layout read in README_En.md and cn_clip/preprocess/build_lmdb_dataset.py of github.com/OFA-Sys/Chinese-CLIP:
<split>_imgs.tsv, a line "image id<tab>base64"; <split>_texts.jsonl, lines {"text_id", "text", "image_ids"}; splits
train, valid, test. Its loader decodes with the URL-safe alphabet; the README shows the standard one; both are read.
"""

import base64
import binascii
from functools import partial
from pathlib import Path

from make_jax.catalog.importers.chance import share
from make_jax.catalog.importers.import_state import About, Work
from make_jax.catalog.importers.rows import Row
from make_jax.catalog.importers.tables import JsonLines, Lines
from make_jax.catalog.schema import Split

HELD = 0.02  # share of the training pictures that validate

ABOUT = About(
    name="muge",
    title="MUGE text-to-image retrieval",
    licence="not stated in the source that was read; the data set is distributed by Alibaba under terms of its own",
    provenance=(
        "Chinese queries and product pictures of Taobao, in the archive that github.com/OFA-Sys/Chinese-CLIP links. "
        "There are no titles. The published split `valid` is `test` here, because results are published for it; the "
        "published `test` is left out, it has no answers. Of the published `train`, 2 % of the pictures, chosen by a "
        "hash of the id, are `val`, and a text whose pictures are all among them is a judged query; every other pair "
        "of a text with a `train` picture is a click, and its pairs with `val` pictures are left out. Grade 1 is the "
        "only one."
    ),
    citation=(
        "Lin et al.: M6: A Chinese Multimodal Pretrainer, 2021; packed by Yang et al.: Chinese CLIP, arXiv 2211.01335."
    ),
)


def read(work: Work, source: Path) -> About:
    """Reads a folder with the .tsv and .jsonl files of the splits train and valid."""
    for part in ("train", "valid"):
        work.each(Lines(source / f"{part}_imgs.tsv"), partial(_picture, work, part=part))
        work.each(JsonLines(source / f"{part}_texts.jsonl"), partial(_text, work, part=part))
    return ABOUT


def _split(part: str, image: str) -> Split:
    if part == "valid":
        return "test"
    return "val" if share("muge val", image) < HELD else "train"


def _picture(work: Work, row: Row, part: str) -> None:
    identity, tab, code = row.values["line"].strip().partition("\t")
    if not tab or identity.split() != [identity]:
        raise row.bad("no picture, expected an image id, a tab and base64")
    try:
        data = base64.b64decode(code.replace("-", "+").replace("_", "/"), validate=True)
    except (binascii.Error, ValueError) as error:
        raise row.bad(f"product {identity}: broken base64 ({error}), expected base64 of a picture") from None
    work.product(row, identity, _split(part, identity), "", data)


def _text(work: Work, row: Row, part: str) -> None:
    if not row.values:
        return
    identity, text = row.name("text_id"), row.needed("text")
    images = row.values.get("image_ids")
    if not isinstance(images, list) or not all(isinstance(image, int | str) for image in images):
        raise row.wrong("image_ids", "a list of image ids")
    answers = [row.unicode("image_ids", str(image)) for image in images]
    splits = {_split(part, image) for image in answers}
    if len(splits) == 1 and "train" not in splits:
        work.query(row, identity, splits.pop(), text, kind="people", lang="zh")
        for image in answers:
            work.judge(row, identity, image, 1)
        return
    for image in answers:
        if _split(part, image) == "train":
            work.click(row, text, image, "zh")
