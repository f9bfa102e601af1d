"""Small data sets in the layouts of WebDataset, img2dataset and Hugging Face."""

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pyarrow

from tests.catalog.importers.published import encoded_image, write_parquet


def write_tar(path: Path, files: list[tuple[str, bytes]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, data in files:
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return path


def webdataset_shards(folder: Path, samples: int = 4) -> Path:
    """Two shards; each sample has a picture, a text, a class, JSON and a pickle that must not be read."""
    for shard in range(2):
        files = []
        for number in range(samples):
            key = f"part{shard}/{number:04d}"
            values = {"colour": ("red", "blue")[number % 2], "price": number + 0.5, "txt": "not the text file"}
            files += [(f"{key}.JPG", encoded_image(number)), (f"{key}.txt", f"Red boots {number}\n".encode())]
            files += [(f"{key}.json", json.dumps(values).encode()), (f"{key}.cls", b"boots")]
            files += [(f"{key}.pyd", b"cos\nsystem\n(S'exit 1'\ntR."), (".hidden", b"")]
        write_tar(folder / f"{shard:05d}.tar", files)
    return folder


def img2dataset_folder(folder: Path, layout: str) -> Path:
    """Five pairs in two shards; of the second the download failed."""
    for shard, numbers in enumerate(((0, 1, 2), (3, 4))):
        rows: list[dict[str, Any]] = []
        files = []
        for number in numbers:
            key, failed = f"{shard:05d}{number:04d}", number == 1
            rows.append({"url": f"https://example.com/{number}.jpg", "key": key, "caption": f"Red boots {number}"})
            rows[-1] |= {"status": "failed_to_download" if failed else "success", "error_message": None, "width": 8}
            rows[-1] |= {"brand": "Acme"}
            if not failed:
                files.append((f"{key}.jpg", encoded_image(number)))
            if layout == "parquet":
                rows[-1]["jpg"] = None if failed else encoded_image(number)
        write_parquet(folder / f"{shard:05d}.parquet", rows)
        if layout == "webdataset":
            write_tar(folder / f"{shard:05d}.tar", files)
        if layout == "files":
            (folder / f"{shard:05d}").mkdir()
            for name, data in files:
                (folder / f"{shard:05d}" / name).write_bytes(data)
    return folder


FEATURES = {
    "photo": {"_type": "Image"},
    "caption": {"dtype": "string", "_type": "Value"},
    "kind": {"names": ["boots", "hats"], "_type": "ClassLabel"},
}


def records(split: str, count: int) -> pyarrow.Table:
    images = [{"bytes": encoded_image(number), "path": None} for number in range(count)]
    texts = [f"Red {split} boots {number}" for number in range(count)]
    metadata = {"huggingface": json.dumps({"info": {"features": FEATURES}})}
    table = pyarrow.table({"photo": images, "caption": texts, "kind": [number % 2 for number in range(count)]})
    return table.replace_schema_metadata(metadata)


def saved_dataset(folder: Path, splits: tuple[str, ...] = (), count: int = 4) -> Path:
    """What save_to_disk writes: two Arrow files a split."""
    for split in splits or ("",):
        inside = folder / split
        inside.mkdir(parents=True)
        names = [f"data-{number:05d}-of-00002.arrow" for number in range(2)]
        table = records(split or "train", count)
        for number, name in enumerate(names):
            part = table.slice(number * (count // 2), count // 2)
            with pyarrow.OSFile(str(inside / name), "wb") as sink, pyarrow.ipc.new_stream(sink, part.schema) as writer:
                writer.write_table(part, max_chunksize=3)
        (inside / "state.json").write_text(json.dumps({"_data_files": [{"filename": name} for name in names]}))
        (inside / "dataset_info.json").write_text(json.dumps({"features": FEATURES}))
    if splits:
        (folder / "dataset_dict.json").write_text(json.dumps({"splits": list(splits)}))
    return folder
