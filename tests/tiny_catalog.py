"""A tiny catalog of colored shapes for tests: `write_catalog(tmp_path / "tiny")`."""

import json
import zipfile
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

COLOURS = {"red": "红色", "green": "绿色", "blue": "蓝色", "black": "黑色"}
SHAPES = {"circle": "圆形", "square": "方形", "triangle": "三角形"}
_KINDS = [(colour, shape) for colour in COLOURS for shape in SHAPES]
_SPLITS = ("train", "train", "train", "val", "test")


def write_catalog(
    path: Path,
    products: int = 24,
    queries: int = 8,
    *,
    width: int = 24,
    height: int = 32,
    missing: bool = True,
    zipped: bool = False,
) -> Path:
    """Writes a valid catalog and returns its path: a folder at `path`, or `path` with .zip added.

    Product i has id "p{i}", an image named after it, and splits cycle through train, train, train, val, test. The kind
    (color and shape) changes after each cycle, so that every kind has products in all splits if `products` >= 60.
    With `missing`, each eighth product has no title and each eighth no image. Half of the queries
    are in the test split, half in val; every second one of a split is Chinese. Each train product has two clicks.
    """
    path.mkdir(parents=True)
    (path / "images").mkdir()
    rows = [_product(i, missing) for i in range(products)]
    for row in rows:
        if row["image"]:
            _picture(row["colour"], row["shape"], width, height).save(path / row["image"])
    judged = [_query(i, rows) for i in range(queries)]
    clicks: list[dict[str, Any]] = []
    for row in rows:
        if row["split"] == "train":
            colour, shape = row["colour"], row["shape"]
            clicks.append({"query": f"{colour} {shape}", "product": row["id"], "lang": "en"})
            clicks.append({"query": COLOURS[colour] + SHAPES[shape], "product": row["id"], "lang": "zh"})
    write_lines(path / "products.jsonl", rows)
    write_lines(path / "queries.jsonl", judged)
    write_lines(path / "clicks.jsonl", clicks)
    info = {"name": path.name, "licence": "CC0-1.0", "attributes": ["colour", "category"], "relevant": 3}
    (path / "catalog.json").write_text(json.dumps(info), encoding="utf-8")
    return zip_folder(path) if zipped else path


def write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    """Writes one JSON object per line."""
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def zip_folder(folder: Path) -> Path:
    """Zips a folder into a new file next to it and returns its path."""
    target = folder.with_name(folder.name + ".zip")
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                archive.write(file, file.relative_to(folder).as_posix())
    return target


def _product(i: int, missing: bool) -> dict[str, Any]:
    colour, shape = _KINDS[i // len(_SPLITS) % len(_KINDS)]
    untitled, unpictured = missing and i % 8 == 3, missing and i % 8 == 6
    return {
        "id": f"p{i}",
        "title": "" if untitled else f"{colour} {shape} number {i}",
        "image": None if unpictured else f"images/p{i}.png",
        "category": ["shapes", shape],
        "colour": colour,
        "shape": shape,
        "split": _SPLITS[i % len(_SPLITS)],
        "group": f"g{i}",
    }


def _query(i: int, rows: list[dict[str, Any]]) -> dict[str, Any]:
    split = ("test", "val")[i % 2]
    kinds = list(dict.fromkeys((row["colour"], row["shape"]) for row in rows if row["split"] == split))
    colour, shape = kinds[i // 2 % len(kinds)] if kinds else _KINDS[0]
    chinese = i % 4 >= 2
    rel = {}
    for row in rows:
        if row["split"] == split and row["shape"] == shape:
            rel[row["id"]] = 3 if row["colour"] == colour else 1
    return {
        "qid": f"q{i}",
        "text": COLOURS[colour] + SHAPES[shape] if chinese else f"{colour} {shape}",
        "split": split,
        "rel": rel,
        "kind": "colour+shape",
        "lang": "zh" if chinese else "en",
    }


def _picture(colour: str, shape: str, width: int, height: int) -> Image.Image:
    image = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(image)
    box = (2, 2, width - 3, height - 3)
    if shape == "circle":
        draw.ellipse(box, fill=colour)
    elif shape == "square":
        draw.rectangle(box, fill=colour)
    else:
        draw.polygon([(width // 2, 2), (2, height - 3), (width - 3, height - 3)], fill=colour)
    return image
