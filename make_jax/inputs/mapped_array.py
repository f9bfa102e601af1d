"""Arrays in .npy files that processes share."""

from pathlib import Path
from typing import Any

import numpy as np


class MappedArray:
    """A .npy file, memory-mapped and read-only; pickles as its path."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.array: np.ndarray = np.load(path, mmap_mode="r")

    def __getitem__(self, index: Any) -> Any:
        return self.array[index]

    def __len__(self) -> int:
        return len(self.array)

    def __reduce__(self) -> tuple[Any, ...]:
        return MappedArray, (self._path,)
