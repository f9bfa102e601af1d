"""The image files of a published folder, found by product id or file name."""

from pathlib import Path, PurePosixPath

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")  # in the order of preference, compared in lower case


class ImageFolder:
    """A folder of image files, listed once. It may be absent."""

    def __init__(self, path: Path) -> None:
        self._files: dict[str, Path] = {}
        files = [file for file in path.iterdir() if file.suffix.lower() in SUFFIXES] if path.is_dir() else []
        # Of several files of one name the preferred one is listed last.
        for file in sorted(files, key=lambda file: (-SUFFIXES.index(file.suffix.lower()), file.name)):
            self._files[file.stem] = file
            self._files[file.name] = file

    def read(self, name: str) -> bytes | None:
        """The bytes of the file `name`, or of the one that differs from it in the extension; None without one.

        `name` may lack the extension.
        """
        pure = PurePosixPath(name)
        stem = pure.stem if pure.suffix.lower() in SUFFIXES else name
        file = self._files.get(name) or self._files.get(stem)
        return file.read_bytes() if file and file.is_file() else None
