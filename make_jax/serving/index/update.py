"""Adds, replaces and deletes products of the current version, in a folder that its manifest lists when it is complete.

Products that the index has already are skipped, and those of which only attributes changed keep their vectors, so a
shop may pass its whole catalog. Servers read the version meanwhile and apply the update afterwards.
"""

import dataclasses
import hashlib
import io
import json
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from make_jax.catalog.columns import Records
from make_jax.catalog.reader import Catalog
from make_jax.catalog.schema import Product
from make_jax.errors import InputError
from make_jax.files import publish_folder, sync_folder, write_durably
from make_jax.retrieval.top_k import Progress, no_progress
from make_jax.serving.index.manifest import UPDATES, Manifest, UpdateEntry, write_manifest
from make_jax.serving.index.model import IndexModel, check_digest
from make_jax.serving.index.reader import (
    DELETED,
    EMBEDDED,
    ROWS,
    VECTORS,
    OpenIndex,
    open_index,
    update_folder,
)
from make_jax.serving.index.thumbnails import image_checksum, write_thumbnails
from make_jax.serving.index.versions import BUILDING, remove_folder, remove_partial, writing
from make_jax.serving.index.writer import (
    Log,
    catalog_entry,
    embed,
    file_entries,
    full_disk_is_input_error,
    no_log,
    now,
    write_products,
)

_COMPARED_AT_ONCE = 4096  # products


class _Differences(NamedTuple):
    """What an update changes."""

    positions: np.ndarray  # of the changed products among those of the catalog, ascending
    rows: np.ndarray  # of each of them in the index
    embedded: np.ndarray  # whether title or image changed, of each
    added: int
    unchanged: int
    deleted: np.ndarray  # rows


def update_index(
    index: Path,
    open_model: Callable[[Manifest], IndexModel],
    catalog: Catalog | None,
    delete: Sequence[str] = (),
    *,
    delete_missing: bool = False,
    ray: Any = None,
    progress: Progress = no_progress,
    log: Log = no_log,
) -> UpdateEntry | None:
    """Replaces and adds the products of a catalog and deletes those with the ids `delete`; None if nothing differs.

    A call that was interrupted, also by SIGKILL, is continued by the same call; until it is complete, readers have the
    state before. All of it takes effect at once.

    Args:
        index: whose current version is updated.
        open_model: returns the model of the version; called if a title or an image differs.
        catalog: new and changed products, and others that the index has; None: only deletes.
        delete: ids. Those of products that were deleted before have no effect.
        delete_missing: also deletes the products that the catalog lacks.
        ray, progress, log: as for `build_index`.

    Raises:
        InputError: an id to delete was never in the index or is a product of the catalog, no product would stay,
            another process writes, the model is another one than that of the version, or the disk is full.
    """
    with writing(index, create=False), full_disk_is_input_error(index):
        opened = open_index(index)
        products = None if catalog is None else _products(catalog, opened.manifest)
        found = _compare(opened, catalog, products, delete, delete_missing, progress)
        if not len(found.rows) and not len(found.deleted):
            return None
        if opened.manifest.count + found.added == len(found.deleted):
            raise InputError(
                f"{index}: the update would delete all {opened.manifest.count:,} products, expected some to stay"
            )
        return _Update(opened, catalog, products, found, open_model, ray, progress, log).run()


def _products(catalog: Catalog, manifest: Manifest) -> Records[Product]:
    """The products of the catalog in the split that is indexed. Raises InputError if there is none."""
    if manifest.split is None:
        return catalog.products
    products = catalog.split_products(manifest.split)
    if not len(products):
        raise InputError(f"{catalog.path}: no product of split {manifest.split!r}, which the index is of")
    return products


def _compare(
    index: OpenIndex,
    catalog: Catalog | None,
    products: Records[Product] | None,
    delete: Sequence[str],
    delete_missing: bool,
    progress: Progress,
) -> _Differences:
    deleted = index.rows_of_ids(list(dict.fromkeys(delete)))
    if (deleted < 0).any():
        unknown = [id for id, row in zip(dict.fromkeys(delete), deleted.tolist(), strict=True) if row < 0]
        more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
        raise InputError(f"--delete {unknown[0]!r}{more}: no product of this index, expected ids of products in it")
    is_deleted = np.zeros(index.rows, bool)
    is_deleted[deleted] = True
    changed: list[tuple[int, int, bool]] = []
    added = 0
    in_catalog = np.zeros(index.rows, bool)
    if catalog is not None and products is not None:
        _check_not_deleted(catalog, products, delete)
        for start in range(0, len(products), _COMPARED_AT_ONCE):
            chunk = list(products[start : start + _COMPARED_AT_ONCE])
            rows = index.rows_of_ids([product.id for product in chunk])
            in_catalog[rows[rows >= 0]] = True
            old = dict(zip(rows[rows >= 0].tolist(), index.products.select(rows[rows >= 0]), strict=True))
            for position, (product, row) in enumerate(zip(chunk, rows.tolist(), strict=True), start):
                if row < 0:
                    changed.append((position, index.rows + added, True))
                    added += 1
                    continue
                same_image = index.image_checksum(row) == image_checksum(catalog, product)
                new_input = old[row].title != product.title or not same_image
                if new_input or index.deleted[row] or old[row] != product:
                    changed.append((position, row, new_input))
                    added += bool(index.deleted[row])
            progress("comparing products", start + len(chunk), len(products))
    if delete_missing:
        is_deleted |= ~in_catalog
    deleted = np.flatnonzero(is_deleted & ~index.deleted)
    columns = np.array(changed, np.int64).reshape(-1, 3).T
    unchanged = (0 if products is None else len(products)) - len(changed)
    return _Differences(columns[0], columns[1], columns[2].astype(bool), added, unchanged, deleted)


def _check_not_deleted(catalog: Catalog, products: Records[Product], delete: Sequence[str]) -> None:
    """Raises InputError for a product that is to be added and deleted."""
    wanted = set(delete)
    both = [id for ids in products.values("id") for id in ids if id in wanted] if wanted else []
    if both:
        raise InputError(f"--delete {both[0]!r}: a product of {catalog.path}, expected ids that are not in it")


@dataclasses.dataclass(frozen=True)
class _Update:
    """One update that is being written."""

    index: OpenIndex
    catalog: Catalog | None
    products: Records[Product] | None
    found: _Differences
    open_model: Callable[[Manifest], IndexModel]
    ray: Any
    progress: Progress
    log: Log

    @cached_property
    def building(self) -> Path:
        """The folder of the update until it is complete, the same for the same call."""
        digest = "" if self.catalog is None else self.catalog.digest
        key = [digest, self.found.deleted.tolist(), len(self.index.updates)]
        sha = hashlib.sha256(json.dumps(key).encode())
        return self.index.folder / UPDATES / f"{BUILDING}{sha.hexdigest()[:16]}"

    def run(self) -> UpdateEntry:
        """Writes the update and adds it to the manifest."""
        version, found = self.index.folder, self.found
        self.building.mkdir(parents=True, exist_ok=True)
        if self.catalog is not None and self.products is not None and len(found.rows):
            self._write_products(self.catalog, self.products.select(found.positions))
        for name, rows in ((ROWS, found.rows), (EMBEDDED, found.rows[found.embedded]), (DELETED, found.deleted)):
            _write_array(self.building / name, rows)
        remove_partial(self.building)
        remove_partial(self.building / VECTORS)
        sync_folder(self.building)
        entry = self._entry()
        folder = update_folder(version, entry)
        if folder.exists():  # the process was killed before it wrote the manifest
            remove_folder(folder)
        remove_partial(folder.parent)
        publish_folder(self.building, folder)
        write_manifest(version, self._manifest(entry))
        for left in (version / UPDATES).glob(f"{BUILDING}*"):  # updates that were interrupted and not continued
            remove_folder(left)
        return entry

    def _write_products(self, catalog: Catalog, changed: Records[Product]) -> None:
        write_products(changed, self.building)
        embedded = changed.select(np.flatnonzero(self.found.embedded))
        if len(embedded):
            manifest = self.index.manifest
            model = self.open_model(manifest)
            check_digest(model, manifest)
            part, weight = f"update {len(self.index.updates) + 1}", manifest.model.title_weight
            embed(
                model, catalog, embedded, self.building, part, weight, self.ray, self.progress, may_lack_all=True
            )  # products without what the model reads are found by BM25 alone
        for problem in write_thumbnails(catalog, changed, self.building, self.progress):
            self.log(f"warning: {problem}; it has no picture in the index")

    def _entry(self) -> UpdateEntry:
        found = self.found
        return UpdateEntry(
            number=len(self.index.updates) + 1,
            created=now(),
            catalog=None if self.catalog is None else catalog_entry(self.catalog),
            added=found.added,
            replaced=len(found.rows) - found.added,
            unchanged=found.unchanged,
            deleted=len(found.deleted),
        )

    def _manifest(self, entry: UpdateEntry) -> Manifest:
        """The manifest of the version with the update."""
        before, found = self.index.manifest, self.found
        attributes = before.catalog.attributes + (() if entry.catalog is None else entry.catalog.attributes)
        catalog = dataclasses.replace(before.catalog, attributes=tuple(dict.fromkeys(attributes)))
        files = file_entries(self.index.folder, f"{UPDATES}/{entry.number}")
        return dataclasses.replace(
            before,
            catalog=catalog,
            rows=max(before.rows, int(found.rows.max(initial=-1)) + 1),
            count=before.count + found.added - len(found.deleted),
            updates=(*before.updates, entry),
            files=before.files | files,
        )


def _write_array(path: Path, rows: np.ndarray) -> None:
    buffer = io.BytesIO()
    np.save(buffer, rows, allow_pickle=False)
    write_durably(path, buffer.getvalue())
