"""A published model on disk or on the Hugging Face hub: config.json and safetensors. Executes and unpickles nothing."""

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes  # noqa: F401  # registers bfloat16 with NumPy, so that safetensors can read it
import numpy as np
from jaxtyping import Float32
from safetensors import SafetensorError, safe_open

from make_jax import unique_json
from make_jax.errors import InputError

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"  # of sharded weights
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.msgpack")
_CODE = ("auto_map", "trust_remote_code", "custom_pipelines")  # JSON keys that request custom code
_MAX_JSON_BYTES = 64 << 20
_FLOAT_DTYPES = frozenset({"F16", "BF16", "F32", "F64"})
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")


class JsonObject:
    """A JSON object with typed, validated access to its values. Missing keys take the given default."""

    def __init__(self, values: dict[str, Any], where: str) -> None:
        self.values = values
        self.where = where

    def integer(self, key: str, default: int) -> int:
        """Returns an integer >= 0. InputError for any other value."""
        value = self.values.get(key, default)
        if type(value) is not int or value < 0:
            raise InputError(f"{self.where}: {key} is {value!r}, expected an integer of at least 0")
        return value

    def number(self, key: str, default: float) -> float:
        """Returns a finite number. InputError for any other value."""
        value = self.values.get(key, default)
        if type(value) not in (int, float) or not math.isfinite(value):
            raise InputError(f"{self.where}: {key} is {value!r}, expected a number")
        return float(value)

    def string(self, key: str, default: str) -> str:
        """Returns a string. InputError for any other value."""
        value = self.values.get(key, default)
        if type(value) is not str:
            raise InputError(f"{self.where}: {key} is {value!r}, expected a string")
        return value

    def triple(self, key: str, default: tuple[float, float, float] | None = None) -> tuple[float, float, float]:
        """Returns three numbers, such as one per color channel. InputError for any other value."""
        value = self.values.get(key, default)
        if not isinstance(value, list | tuple) or len(value) != 3 or not all(type(v) in (int, float) for v in value):
            raise InputError(f"{self.where}: {key} is {value!r}, expected three numbers")
        return (float(value[0]), float(value[1]), float(value[2]))

    def section(self, key: str) -> "JsonObject":
        """Returns the object under `key`, empty if missing. InputError for any other value."""
        value = self.values.get(key, {})
        if not isinstance(value, dict):
            raise InputError(f"{self.where}: {key} is {value!r}, expected an object")
        return JsonObject(value, f"{self.where}: {key}")

    def expect(self, key: str, expected: Any) -> None:
        """Raises InputError when `key` has a value that our encoders do not support."""
        if (value := self.values.get(key, expected)) != expected:
            raise InputError(f"{self.where}: {key} is {value!r}; our encoders support {expected!r} only")


class TensorInfo(NamedTuple):
    """Location and type of a tensor."""

    path: Path
    name: str  # in the file
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class ModelFolder:
    """A folder in the layout of Hugging Face transformers or timm."""

    folder: Path
    config: JsonObject
    tensors: dict[str, TensorInfo]

    @property
    def model_type(self) -> str:
        """The kind of model: model_type of transformers, architecture of timm; "" if config.json states neither."""
        return self.config.string("model_type", "") or self.config.string("architecture", "")

    def read(self, name: str) -> Float32[np.ndarray, "..."]:
        """Returns the tensor in float32. InputError for a dtype that is not floating-point."""
        path, key, _, dtype = self.tensors[name]
        if dtype not in _FLOAT_DTYPES:
            raise InputError(f"{path}: {key} holds {dtype}, expected one of {', '.join(sorted(_FLOAT_DTYPES))}")
        with safe_open(path, "np") as file:
            return np.asarray(file.get_tensor(key), np.float32)

    def shape(self, name: str) -> tuple[int, ...]:
        """Returns the tensor's shape, without reading its values."""
        return self.tensors[name].shape

    def json(self, name: str) -> JsonObject | None:
        """Returns another JSON file of the folder; None if it does not exist."""
        return read_json(self.folder / name) if (self.folder / name).is_file() else None


def resolve_model_folder(name: str, setting: str) -> Path:
    """Returns a local folder: `name` itself, or the downloaded snapshot of a model on the Hugging Face hub.

    A hub id is resolved in the local cache, or through the network if there is one and HF_HUB_OFFLINE is not set, with
    a single attempt. Only JSON, vocabularies and safetensors are downloaded, never pickles or code.

    Args:
        name: a folder, or an id such as "sentence-transformers/all-MiniLM-L6-v2".
        setting: what errors call it.

    Raises:
        InputError: no such folder and no such model, or the download fails.
    """
    folder = Path(name)
    if folder.is_dir():
        return folder
    if not _HUB_ID.fullmatch(name) or folder.exists():
        raise InputError(f"{setting}: {name} is no folder, expected one with config.json and {WEIGHTS}, or a hub id")
    from huggingface_hub import snapshot_download  # slow to import

    patterns = ["*.json", "*.txt", "*.model", "*.safetensors"]
    others = ["*/*.txt", "*/*.model", "*/*.safetensors"]  # of subfolders the JSON alone, such as 1_Pooling/config.json
    try:
        return Path(snapshot_download(name, allow_patterns=patterns, ignore_patterns=others, etag_timeout=5))
    except Exception:  # httpx, huggingface_hub and the operating system raise many types
        raise InputError(
            f"{setting}: {name} is no folder, not in the Hugging Face cache, and cannot be fetched; where there is a "
            f"network: hf download {name} --local-dir FOLDER, then set {setting} to that FOLDER"
        ) from None


def open_model_folder(folder: Path) -> ModelFolder:
    """Returns the config of `folder` and the index of its tensors, which are read lazily.

    Raises:
        InputError: no config.json, custom code, no safetensors file (pickles are not read), or a damaged one.
    """
    config = read_json(folder / "config.json")
    for name in ("tokenizer_config.json", "preprocessor_config.json"):
        if (folder / name).is_file():
            read_json(folder / name)  # rejects custom code
    tensors: dict[str, TensorInfo] = {}
    for path in _weight_files(folder):
        try:
            with safe_open(path, "np") as file:
                for key in file.keys():  # noqa: SIM118  # not a dict
                    part = file.get_slice(key)
                    # Weights converted from TensorFlow before 2019 name the parameters of a layer norm gamma and beta.
                    name = re.sub(r"\.gamma$", ".weight", re.sub(r"\.beta$", ".bias", key))
                    tensors[name] = TensorInfo(path, key, tuple(part.get_shape()), part.get_dtype())
        except (SafetensorError, OSError) as error:
            raise InputError(f"{path}: damaged or no safetensors file: {error}; fetch it again") from None
    return ModelFolder(folder, config, tensors)


def read_json(path: Path) -> JsonObject:
    """Returns the object in a JSON file. InputError if missing, too large, not an object, or requesting custom code."""
    if not path.is_file():
        raise InputError(f"{path}: no such file, expected a model in the layout of Hugging Face transformers")
    if path.stat().st_size > _MAX_JSON_BYTES:
        raise InputError(f"{path}: {path.stat().st_size:,} bytes, expected at most {_MAX_JSON_BYTES:,}")
    try:
        value = unique_json.loads(path.read_text(encoding="utf-8-sig"))
    except unique_json.DuplicateKeyError as error:
        raise InputError(f"{path}: {error}") from None
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise InputError(f"{path}: not JSON: {error}") from None
    if not isinstance(value, dict):
        raise InputError(f"{path}: found a {type(value).__name__}, expected an object")
    for key in _CODE:
        if value.get(key):
            raise InputError(f"{path}: {key} requests code of this folder, which make_jax never runs")
    return JsonObject(value, str(path))


def _weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a folder."""
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if (folder / INDEX).is_file():
        index = read_json(folder / INDEX)
        names = sorted({str(name) for name in index.section("weight_map").values.values()})
        for name in names:
            if Path(name).name != name or not (folder / name).is_file():
                raise InputError(f"{folder / INDEX}: names {name!r}, expected a file in the same folder")
        return [folder / name for name in names]
    pickles = sorted(path.name for pattern in _PICKLES for path in folder.glob(pattern))
    if pickles:
        raise InputError(
            f"{folder}: {pickles[0]} is a pickle, which can run any code and is never read; expected {WEIGHTS}: "
            "save the model with safetensors if you trust it, or use a revision that has it"
        )
    raise InputError(f"{folder}: no {WEIGHTS}")
