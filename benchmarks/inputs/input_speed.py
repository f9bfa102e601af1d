"""Training batches from large JPEGs: make_jax and a torch DataLoader with torchvision, the same work, alternating.

    python benchmarks/inputs/input_speed.py --folder WORK --torch-python PYTHON [--out docs/results/input-speed.json]

Two cores, about 5 minutes. WORK receives the pictures, 800 x 800 pixels and generated from a seed; PYTHON has torch,
torchvision, numpy and Pillow (`pip install torch torchvision`). `peer.py` states what each system does. In every round
each system makes the same number of images once; rates are medians over rounds. Images per processor second count the
work of all threads and worker processes and depend least on other load.
"""

import argparse
import io
import json
import os
import shutil
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the repository root

from benchmarks import RESULTS, ROOT
from make_jax.catalog.reader import Catalog
from make_jax.errors import InputError, exit_cleanly
from make_jax.files import write_atomically
from make_jax.runs.provenance import metadata

PEER = Path(__file__).resolve().parent / "peer.py"
SYSTEMS = ("make_jax", "torchvision-pil", "torchvision-tensor")
PICTURES = {"product on white": 3, "noise": 12}  # name -> largest change of a pixel by noise
COUNT, SIDE, QUALITY = 96, 800, 90


def main() -> None:
    """Measures all systems and writes the result file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="receives the pictures")
    parser.add_argument("--torch-python", default=sys.executable, help="a Python that has torch and torchvision")
    parser.add_argument("--size", type=int, default=224, help="pixels per side of the model's images")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batches", type=int, default=8, help="batches of each system in a round")
    parser.add_argument("--rows", type=int, default=32, help="images per batch")
    parser.add_argument("--out", type=Path, default=RESULTS / "input-speed.json")
    options = parser.parse_args()
    probe = "import torch, torchvision as v; print(torch.__version__, v.__version__, v.io.image._has_image_ops())"
    version = subprocess.run([options.torch_python, "-c", probe], capture_output=True, text=True)
    if version.returncode:
        raise InputError(f"--torch-python {options.torch_python}: cannot import torch and torchvision; install them")
    torch, torchvision, has_decoder = version.stdout.split()
    about = metadata(
        Catalog.load(""),
        seed=0,
        command="python benchmarks/inputs/input_speed.py --folder WORK --torch-python PYTHON",
        torch=torch,
        torchvision=torchvision,
        tensor_decoder="torchvision.io" if has_decoder == "True" else "simplejpeg",
        cores=os.cpu_count(),
        load_at_start=round(os.getloadavg()[0], 2),
    )
    rows: list[dict[str, Any]] = []
    for name, noise in PICTURES.items():
        folder = options.folder / name.replace(" ", "-") / "catalog"
        kilobytes = write_catalog(folder, noise)
        for cores in (1, 2):
            rows += [row | {"pictures": name, "kb": round(kilobytes)} for row in measure(folder, cores, options)]
            settings = {name: getattr(options, name) for name in ("size", "rounds", "batches", "rows")}
            result = {"about": about, **settings, "count": COUNT, "side": SIDE, "quality": QUALITY, "results": rows}
            write_atomically(options.out, json.dumps(result, indent=1) + "\n")


def write_catalog(folder: Path, noise: int) -> float:
    """Writes a catalog of COUNT pictures, the same for the same `noise`; returns the mean kB of a picture."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "images").mkdir(parents=True)
    products, clicks, size = [], [], 0
    for i in range(COUNT):
        rng = np.random.default_rng(i)
        colors = np.full((50, 50, 3), 255, np.uint8)
        inside = slice(None) if noise > 5 else slice(8, 42)
        colors[inside, inside] = rng.integers(0, 256, (50, 50, 3), np.uint8)[inside, inside]
        pixels = np.asarray(Image.fromarray(colors).resize((SIDE, SIDE), Image.Resampling.BICUBIC)).astype(int)
        pixels = (pixels + rng.integers(-noise, noise + 1, pixels.shape)).clip(0, 255).astype(np.uint8)
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "JPEG", quality=QUALITY)
        (folder / f"images/{i:03}.jpg").write_bytes(file.getvalue())
        size += len(file.getvalue())
        products.append({"id": f"p{i}", "title": f"red shirt {i}", "image": f"images/{i:03}.jpg", "split": "train"})
        clicks.append({"query": f"shirt {i % 7}", "product": f"p{i}"})
    for name, lines in (("products", products), ("clicks", clicks)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return size / COUNT / 1000


def measure(folder: Path, cores: int, options: argparse.Namespace) -> list[dict[str, Any]]:
    """One row per system: medians and quartiles over rounds in which each runs once."""
    peers = {system: start(system, folder, cores, options) for system in SYSTEMS}
    measured: dict[str, list[dict[str, float]]] = {system: [] for system in SYSTEMS}
    for number in range(options.rounds + 1):  # the first is a warm-up
        for system, peer in peers.items():
            assert peer.stdin is not None and peer.stdout is not None
            peer.stdin.write("run\n")
            peer.stdin.flush()
            line = peer.stdout.readline()
            if not line:
                raise InputError(f"the process of {system} ended without a response; its own message is above")
            if number:
                measured[system].append(json.loads(line))
    images = options.rows * options.batches
    results = []
    for system, peer in peers.items():
        rates = {kind: [images / run[kind] for run in measured[system]] for kind in ("seconds", "processor")}
        row: dict[str, Any] = {"system": system, "cores": cores}
        for kind, name in (("seconds", "images_per_second"), ("processor", "images_per_processor_second")):
            row[name] = round(statistics.median(rates[kind]), 1)
            row[f"{name}_quartiles"] = [round(q, 1) for q in statistics.quantiles(rates[kind], n=4)]
        results.append(row)
        print(json.dumps(row), flush=True)
        peer.communicate()
    return results


def start(system: str, folder: Path, cores: int, options: argparse.Namespace) -> "subprocess.Popen[str]":
    """The process of one system."""
    python = sys.executable if system == "make_jax" else options.torch_python
    numbers = [str(cores), str(options.rows), str(options.batches), str(options.size)]
    return subprocess.Popen(
        [python, str(PEER), system, str(folder), *numbers],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"},
    )


if __name__ == "__main__":
    exit_cleanly(main)
