"""Tiny datasets in the published layouts of the benchmarks."""

import base64
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pyarrow
from PIL import Image
from pyarrow import parquet

STYLES = "id,gender,masterCategory,subCategory,articleType,baseColour,season,year,usage,productDisplayName"
TYPES = {"Tshirts": "Topwear", "Shirts": "Topwear", "Casual Shoes": "Shoes", "Bra": "Innerwear"}
COLOURS = ("Blue", "Navy Blue", "White")


def encoded_image(number: int, kind: str = "JPEG") -> bytes:
    """An encoded image, different for each number."""
    stream = io.BytesIO()
    Image.new("RGB", (8, 8), (number * 37 % 256, number * 11 % 256, 90)).save(stream, kind)
    return stream.getvalue()


def hugging_face(data: bytes | None) -> dict[str, Any] | None:
    """An image as a Hugging Face dataset stores it."""
    return None if data is None else {"bytes": data, "path": None}


def write_parquet(path: Path, rows: list[dict[str, Any]], group: int = 3) -> None:
    """Rows as a Parquet file of several row groups."""
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pyarrow.Table.from_pylist(rows), path, row_group_size=group)


def style(number: int) -> list[str]:
    """The fields of one line of styles.csv."""
    kind = list(TYPES)[number % 4]
    colour = COLOURS[number % 3]
    gender = ("Men", "Women")[number % 2]
    title = f"Puma {gender} Style {number} {colour} {kind.rstrip('s')}"
    return [str(1000 + number), gender, "Apparel", TYPES[kind], kind, colour, "Fall", "2011", "Casual", title]


def kaggle_fashion(folder: Path, products: int = 24) -> Path:
    """styles.csv, images, styles. Line 4 has a comma in its title, the last product no image, product 1 an "NA"."""
    (folder / "images").mkdir(parents=True)
    (folder / "styles").mkdir()
    lines = [style(number) for number in range(products)]
    lines[2][-1] += ", Pack of 2"
    lines[1][8] = "NA"
    (folder / "styles.csv").write_text("\n".join([STYLES, *map(",".join, lines)]) + "\n", encoding="utf-8")
    for number in range(products - 1):
        (folder / "images" / f"{1000 + number}.jpg").write_bytes(encoded_image(number))
    values = {"notification": {}, "meta": {"code": 200}, "data": {"id": 1000, "brandName": "PUMA SE"}}
    (folder / "styles" / "1000.json").write_text(json.dumps(values), encoding="utf-8")
    return folder


def hugging_face_fashion(folder: Path, products: int = 24) -> Path:
    """data/train-*.parquet with id and year as numbers."""
    rows = []
    for number in range(products):
        values: dict[str, Any] = dict(zip(STYLES.split(","), style(number), strict=True))
        rows.append({**values, "id": int(values["id"]), "year": 2011.0, "image": hugging_face(encoded_image(number))})
    half = products // 2
    write_parquet(folder / "data/train-00000-of-00002-abc.parquet", rows[:half])
    write_parquet(folder / "data/train-00001-of-00002-def.parquet", rows[half:])
    return folder


def marqo_gs_files(folder: Path) -> tuple[Path, Path]:
    """marqo_gs_tiny/ with .csv and corpus files, and a folder of images next to it. Product 1003 has no image."""
    source, images = folder / "marqo_gs_tiny", folder / "images_tiny"
    source.mkdir(parents=True)
    images.mkdir()
    for corpus in (0, 1):
        members = {}
        for number in range(4):
            id = f"{corpus + 1}00{number}"
            members[id] = {"title": f'Häkel "bag" {id}', "image_local": f"/data/images_tiny/{id}.jpg"}
            if id != "1003":
                (images / f"{id}.jpg").write_bytes(encoded_image(number + 4 * corpus))
        (source / f"corpus_{corpus + 1}.json").write_text(json.dumps(members), encoding="utf-8")
        for queries in (0, 1):
            lines = ['"","query","product_id","position","title","score_linear","query_id","image_local"']
            for query in range(2):
                for number in range(3):
                    id = f"{corpus + 1}00{(query + number) % 4}"
                    text = f"bags, {('red', 'blue')[query]}{' new' * queries}"
                    lines.append(f'"0","{text}","{id}","{number + 1}","t","{100 - number}","{query}","x"')
            (source / f"query_{queries}_product_id_{corpus}.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return source, images


def marqo_gs_parquet(folder: Path) -> Path:
    """data/<part>-*.parquet with embedded images."""
    for place, part in enumerate(("in_domain", "novel_query", "novel_document", "zero_shot")):
        rows = []
        for query in range(2):
            for number in range(3):
                product = (query + number) % 4
                id = f"{place // 2 + 1}00{product}"
                values = {
                    "query": f"bags {query}{' new' * (place % 2)}",
                    "product_id": id,
                    "position": number + 1,
                }
                values |= {"title": f"bag {id}", "pair_id": f"{query}-{id}", "score_linear": 100 - number}
                values |= {"score_reciprocal": 1 / (number + 1), "no_score": 1, "query_id": str(query)}
                rows.append({**values, "image": hugging_face(encoded_image(product + 4 * (place // 2)))})
        write_parquet(folder / f"data/{part}-00000-of-00001.parquet", rows)
    return folder


def marqo_eval(folder: Path, categories: bool = True) -> Path:
    """data/data-*.parquet: item_ID, title, image, and query and position for Google Shopping."""
    rows = []
    for number in range(8):
        values: dict[str, Any] = {"image": hugging_face(encoded_image(number, "PNG")), "item_ID": f"id-{number}"}
        if categories:
            values |= {"query": ("lamps", "rugs")[number % 2], "position": number}
        rows.append({**values, "title": f"Lamp {number // 2} ..."})
    write_parquet(folder / "data/data-00000-of-00002.parquet", rows[:5])
    write_parquet(folder / "data/data-00001-of-00002.parquet", rows[5:])
    return folder


def ground_truth(path: Path) -> Path:
    """gt_results.json for titles."""
    path.write_text(json.dumps({"Lamp 1 ..._{!@#~}_": {"id-2": 1, "id-3": 1}}), encoding="utf-8")
    return path


def esci(folder: Path) -> Path:
    """The three files of shopping_queries_dataset/. Query 9 is in the large version only, query 8 is Spanish."""
    examples, products = [], []
    for query in range(10):
        locale = "es" if query == 8 else "us"
        for number in range(4):
            product = f"B{(query * 2 + number) % 20:03d}"
            values = {"example_id": len(examples), "query": f"query no. {query}", "query_id": query}
            values |= {"product_id": product, "product_locale": locale, "esci_label": "ESCI"[number]}
            values |= {"small_version": int(query != 9), "large_version": 1, "split": "test" if query < 3 else "train"}
            examples.append(values)
    for locale in ("us", "es"):
        for number in range(24):
            values = {"product_id": f"B{number:03d}", "product_title": f"{locale} product {number}"}
            values |= {"product_description": None, "product_bullet_point": None, "product_brand": "Acme"}
            products.append({**values, "product_color": "Black" if number % 2 else None, "product_locale": locale})
    inside = folder / "shopping_queries_dataset"
    write_parquet(inside / "shopping_queries_dataset_examples.parquet", examples, 7)
    write_parquet(inside / "shopping_queries_dataset_products.parquet", products, 7)
    (inside / "shopping_queries_dataset_sources.csv").write_text("query_id,source\n0,other\n", encoding="utf-8")
    return folder


def img2dataset_output(folder: Path, layout: str, products: list[str]) -> Path:
    """The output of img2dataset in one of its formats. The download of the second image failed."""
    folder.mkdir(parents=True)
    rows: list[dict[str, Any]] = []
    for number, product in enumerate(products):
        failed = number == 1
        values: dict[str, Any] = {"product_id": product, "url": f"https://example.com/{product}.jpg"}
        values |= {"key": f"00000{number:04d}", "status": "failed_to_download" if failed else "success"}
        values |= {"error_message": "404" if failed else None, "width": None if failed else 8}
        if layout == "parquet":
            values["jpg"] = None if failed else encoded_image(number)
        rows.append(values)
    write_parquet(folder / "00000.parquet", rows)
    (folder / "00000_stats.json").write_text("{}", encoding="utf-8")
    files = [(f"{row['key']}.jpg", encoded_image(n)) for n, row in enumerate(rows) if row["status"] == "success"]
    if layout == "files":
        (folder / "00000").mkdir()
        for name, data in files:
            (folder / "00000" / name).write_bytes(data)
    if layout == "webdataset":
        with tarfile.open(folder / "00000.tar", "w") as archive:
            for name, data in files:
                entry = tarfile.TarInfo(name)
                entry.size = len(data)
                archive.addfile(entry, io.BytesIO(data))
    return folder


def wands(folder: Path) -> Path:
    """dataset/product.csv, query.csv, label.csv, separated by tabs; a description has a line break in quotes."""
    inside = folder / "dataset"
    inside.mkdir(parents=True)
    columns = ("product_id", "product_name", "product_class", "category hierarchy", "product_description")
    rows = ["\t".join((*columns, "product_features", "rating_count", "average_rating", "review_count"))]
    for number in range(6):
        text = '"two\nlines"' if number == 1 else "sturdy"
        hierarchy = "Furniture / Bedroom Furniture / Beds" if number else ""
        rows.append(f"{number}\tbed no. {number}\tBeds\t{hierarchy}\t{text}\tcolor:red|size:2\t15.0\t4.5\t15.0")
    (inside / "product.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    (inside / "query.csv").write_text(
        "query_id\tquery\tquery_class\n0\tsalon chair\tMassage Chairs\n1\tdécor bed\tBeds\n", encoding="utf-8"
    )
    labels = [(0, 3, "Irrelevant"), (0, 2, "Partial"), (1, 5, "Exact"), (1, 0, "Exact")]
    lines = [f"{place}\t{query}\t{product}\t{label}" for place, (query, product, label) in enumerate(labels)]
    text = "\n".join(["id\tquery_id\tproduct_id\tlabel", *lines]) + "\n"
    (inside / "label.csv").write_text(text, encoding="utf-8")
    return folder


def muge(folder: Path, images: int = 60) -> Path:
    """train and valid as .tsv of base64 and .jsonl of texts."""
    folder.mkdir(parents=True)
    for part, first, count in (("train", 1000, images), ("valid", 5000, 4)):
        lines = [f"{first + n}\t{base64.b64encode(encoded_image(n)).decode()}" for n in range(count)]
        (folder / f"{part}_imgs.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
        texts = [{"text_id": first + n, "text": f"红色包包{n}", "image_ids": [first + n]} for n in range(count)]
        texts[0]["image_ids"] = [first, first + 1]
        rows = [json.dumps(text, ensure_ascii=False) for text in texts]
        (folder / f"{part}_texts.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return folder
