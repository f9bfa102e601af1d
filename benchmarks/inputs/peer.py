"""One system of `input_speed.py`: a process that makes training batches of images, and a line of JSON for each "run".

    python benchmarks/inputs/peer.py make_jax|torchvision-pil|torchvision-tensor FOLDER CORES ROWS BATCHES SIZE

FOLDER has a catalog as `input_speed.py` writes it. All systems read the JPEG files, decode them, cut a random crop of
70 to 100 % of the area with the image's aspect ratio, resize it to SIZE, flip half of them, change brightness, contrast
and saturation by up to 10 %, and make uint8 batches. The process is bound to its first CORES cores; with one, all work
is in one process, with more, in as many threads (make_jax) or worker processes (torch, as its documentation
recommends). Each run makes BATCHES batches of ROWS rows and reports seconds, and processor seconds with those of worker
processes. The files are in the page cache.

torchvision-pil decodes with Pillow and transforms Pillow images, the default of torchvision's datasets.
torchvision-tensor transforms uint8 tensors, which its documentation recommends for speed. They are decoded by
`torchvision.io`; where its extension cannot be loaded (it needs the CUDA build of torch), by simplejpeg at full size,
which is the same libjpeg-turbo.
"""

import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the repository root

CROP_AREA, COLOR = 0.7, 0.1


def make_jax_batches(folder: Path, cores: int, rows: int, size: int) -> Iterator[Any]:
    """The training batches of make_jax, without its image cache; they have texts and keywords, too."""
    from make_jax.catalog.build import build
    from make_jax.catalog.keywords import KeywordVocabulary
    from make_jax.config import AugmentConfig, DataConfig, InputsConfig
    from make_jax.inputs import train_pipeline
    from make_jax.inputs.tokenizer import train_wordpiece

    train_pipeline._IMAGE_CACHE_BYTES = 0
    built = build(str(folder), str(folder.parent / "cache"))
    tokenizer = train_wordpiece([product.title for product in built.split_products("train")], 200)
    augment = AugmentConfig(CROP_AREA, True, COLOR, COLOR, COLOR)
    inputs = InputsConfig(image_height=size, image_width=size, augment=augment)
    data = DataConfig(threads=cores)
    return train_pipeline.train_batches(built, tokenizer, KeywordVocabulary(()), inputs, data, batch_size=rows, seed=0)


def torch_batches(folder: Path, cores: int, rows: int, size: int, tensor: bool) -> Iterator[Any]:
    """The batches of a torch DataLoader over the same files with transforms of torchvision, version 2."""
    import simplejpeg
    import torch
    from PIL import Image
    from torchvision import io
    from torchvision.transforms import v2

    torch.set_num_threads(1)
    changes = [
        v2.RandomResizedCrop(size, scale=(CROP_AREA, 1.0), ratio=(1.0, 1.0), antialias=True),
        v2.RandomHorizontalFlip(),
        v2.ColorJitter(COLOR, COLOR, COLOR),
    ]
    transform = v2.Compose(changes if tensor else [*changes, v2.PILToTensor()])
    files = sorted((folder / "images").iterdir())

    def decode(path: Path) -> torch.Tensor:
        if io.image._has_image_ops():
            return io.decode_jpeg(io.read_file(str(path)), io.ImageReadMode.RGB)
        return torch.from_numpy(simplejpeg.decode_jpeg(path.read_bytes(), "RGB")).permute(2, 0, 1)

    class Files(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return 1_000_000  # more than are taken, so that no epoch ends

        def __getitem__(self, position: int) -> Any:
            path = files[position * 7919 % len(files)]
            return transform(decode(path) if tensor else Image.open(path).convert("RGB"))

    return iter(torch.utils.data.DataLoader(Files(), batch_size=rows, num_workers=0 if cores == 1 else cores))


def processor_seconds() -> float:
    """Processor time of this process and its living children."""
    ticks = 0
    for children in Path("/proc/self/task").glob("*/children"):
        for child in children.read_text().split():
            ticks += sum(map(int, Path("/proc", child, "stat").read_text().rpartition(")")[2].split()[11:13]))
    return time.process_time() + ticks / os.sysconf("SC_CLK_TCK")


def wait_until_idle() -> None:
    """Returns when threads and workers have filled their buffers."""
    before = -1.0
    while processor_seconds() - before > 0.02:
        before = processor_seconds()
        time.sleep(0.25)


def main() -> None:
    """Answers each line of the input with one measurement."""
    system, folder, *numbers = sys.argv[1:]
    cores, rows, batches, size = map(int, numbers)
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    if system == "make_jax":
        iterator = make_jax_batches(Path(folder), cores, rows, size)
    else:
        iterator = torch_batches(Path(folder), cores, rows, size, system == "torchvision-tensor")
    for _ in sys.stdin:
        for _ in range(2 + 2 * cores):  # what was made ahead of time while the other systems ran
            next(iterator)
        start, processor = time.perf_counter(), processor_seconds()
        for _ in range(batches):
            next(iterator)
        seconds, processor = time.perf_counter() - start, processor_seconds() - processor
        wait_until_idle()  # batches made ahead of time must not slow down the next system
        print(json.dumps({"seconds": seconds, "processor": processor}), flush=True)
    os._exit(0)  # without waiting for workers


if __name__ == "__main__":
    main()
