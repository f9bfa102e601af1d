"""A published model as it lies on disk: config.json and safetensors. Nothing in it is executed or unpickled."""

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes  # noqa: F401  # lets NumPy know bfloat16, which safetensors then reads
import numpy as np
from jaxtyping import Float32
from safetensors import SafetensorError, safe_open

from make_jax.errors import InputError

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"  # of weights in several files
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.msgpack")
_CODE = ("auto_map", "trust_remote_code", "custom_pipelines")  # keys that ask for code from the folder
_LARGEST_JSON = 64 << 20  # bytes
_NUMBERS = frozenset({"F16", "BF16", "F32", "F64"})
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")


class JsonObject:
    """A JSON object whose values are read with a type, and a default where the file may leave them out."""

    def __init__(self, values: dict[str, Any], where: str) -> None:
        self.values = values
        self.where = where

    def whole(self, key: str, default: int) -> int:
        """A whole number of at least 0. InputError for anything else."""
        value = self.values.get(key, default)
        if type(value) is not int or value < 0:
            raise InputError(f"{self.where}: {key} is {value!r}, expected a whole number of at least 0")
        return value

    def number(self, key: str, default: float) -> float:
        """A finite number. InputError for anything else."""
        value = self.values.get(key, default)
        if type(value) not in (int, float) or not math.isfinite(value):
            raise InputError(f"{self.where}: {key} is {value!r}, expected a number")
        return float(value)

    def text(self, key: str, default: str) -> str:
        """A text. InputError for anything else."""
        value = self.values.get(key, default)
        if type(value) is not str:
            raise InputError(f"{self.where}: {key} is {value!r}, expected a text")
        return value

    def part(self, key: str) -> "JsonObject":
        """The object under `key`, empty where there is none. InputError for anything else."""
        value = self.values.get(key, {})
        if not isinstance(value, dict):
            raise InputError(f"{self.where}: {key} is {value!r}, expected an object")
        return JsonObject(value, f"{self.where}: {key}")

    def expect(self, key: str, expected: Any) -> None:
        """InputError when `key` is there with a value that our encoders cannot follow."""
        if (found := self.values.get(key, expected)) != expected:
            raise InputError(f"{self.where}: {key} is {found!r}; our encoders can do {expected!r} only")


class TensorInfo(NamedTuple):
    """Where a tensor lies."""

    path: Path
    name: str  # inside the file
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class ModelFolder:
    """A folder in the layout of Hugging Face transformers."""

    folder: Path
    config: JsonObject
    tensors: dict[str, TensorInfo]

    def read(self, name: str) -> Float32[np.ndarray, "..."]:
        """The tensor, in float32. InputError when its bytes are damaged or no such numbers."""
        path, inside, _, dtype = self.tensors[name]
        if dtype not in _NUMBERS:
            raise InputError(f"{path}: {inside} holds {dtype}, expected one of {', '.join(sorted(_NUMBERS))}")
        with safe_open(path, "np") as file:
            return np.asarray(file.get_tensor(inside), np.float32)

    def shape(self, name: str) -> tuple[int, ...]:
        """The tensor's shape, without its numbers."""
        return self.tensors[name].shape

    def json(self, name: str) -> JsonObject | None:
        """Another JSON file of the folder; None where it is absent."""
        return read_json(self.folder / name) if (self.folder / name).is_file() else None


def resolve_model_folder(name: str, setting: str) -> Path:
    """The folder that `name` means: a local one, else a model of the Hugging Face hub.

    A hub id comes from the local cache, or through the network if `huggingface_hub` finds one and HF_HUB_OFFLINE is not
    set; it is asked once. Only JSON, vocabularies and safetensors are fetched, never pickles or code.

    Args:
        name: a folder, or an id such as "sentence-transformers/all-MiniLM-L6-v2".
        setting: what errors call it.

    Raises:
        InputError: there is no such folder and no such model, or it cannot be fetched.
    """
    folder = Path(name)
    if folder.is_dir():
        return folder
    if not _HUB_ID.fullmatch(name) or folder.exists():
        raise InputError(f"{setting}: {name} is no folder, expected one with config.json and {WEIGHTS}, or a hub id")
    from huggingface_hub import snapshot_download  # slow to import

    patterns = ["*.json", "*.txt", "*.model", "*.safetensors"]
    try:
        return Path(snapshot_download(name, allow_patterns=patterns, ignore_patterns=["*/*"], etag_timeout=5))
    except Exception:  # httpx, huggingface_hub and the operating system raise many kinds
        raise InputError(
            f"{setting}: {name} is no folder, not in the Hugging Face cache, and cannot be fetched; where there is a "
            f"network: hf download {name} --local-dir FOLDER, then set {setting} to that FOLDER"
        ) from None


def open_model_folder(folder: Path) -> ModelFolder:
    """What `folder` holds: its config and the names of its tensors, which are read later.

    Raises:
        InputError: no config.json, one that asks for code, no safetensors (pickles are not read), or damaged ones.
    """
    config = read_json(folder / "config.json")
    for name in ("tokenizer_config.json", "preprocessor_config.json"):
        if (folder / name).is_file():
            read_json(folder / name)  # which looks for code
    tensors: dict[str, TensorInfo] = {}
    for path in _files(folder):
        try:
            with safe_open(path, "np") as file:
                for key in file.keys():  # noqa: SIM118  # not a dict
                    part = file.get_slice(key)
                    # Before 2019 BERT's norms were named as in TensorFlow, and some published weights still are.
                    name = re.sub(r"\.gamma$", ".weight", re.sub(r"\.beta$", ".bias", key))
                    tensors[name] = TensorInfo(path, key, tuple(part.get_shape()), part.get_dtype())
        except (SafetensorError, OSError) as error:
            raise InputError(f"{path}: damaged or no safetensors file: {error}; fetch it again") from None
    return ModelFolder(folder, config, tensors)


def read_json(path: Path) -> JsonObject:
    """The object in a JSON file. InputError when it is absent, too large, no object, or asks for code of its folder."""
    if not path.is_file():
        raise InputError(f"{path}: no such file, expected a model in the layout of Hugging Face transformers")
    if path.stat().st_size > _LARGEST_JSON:
        raise InputError(f"{path}: {path.stat().st_size:,} bytes, expected at most {_LARGEST_JSON:,}")
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise InputError(f"{path}: not JSON: {error}") from None
    if not isinstance(value, dict):
        raise InputError(f"{path}: found a {type(value).__name__}, expected an object")
    for key in _CODE:
        if value.get(key):
            raise InputError(f"{path}: {key} asks for code of this folder to be run, which make_jax never does")
    return JsonObject(value, str(path))


def _files(folder: Path) -> list[Path]:
    """The safetensors files of a folder."""
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if (folder / INDEX).is_file():
        index = read_json(folder / INDEX)
        names = sorted({str(name) for name in index.part("weight_map").values.values()})
        for name in names:
            if Path(name).name != name or not (folder / name).is_file():
                raise InputError(f"{folder / INDEX}: names {name!r}, expected a file beside it")
        return [folder / name for name in names]
    pickles = sorted(path.name for pattern in _PICKLES for path in folder.glob(pattern))
    if pickles:
        raise InputError(
            f"{folder}: {pickles[0]} is a pickle, which can run any code and is never read; expected {WEIGHTS}: "
            "save the model with safetensors where you trust it, or take a revision that has it"
        )
    raise InputError(f"{folder}: no {WEIGHTS}")
