"""Waits until what was written to a folder would outlive a power cut."""

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from zarr.storage import LocalStore

from dasksolve.storage import documents, internals

try:
    import fcntl

    _FULL = getattr(fcntl, "F_FULLFSYNC", None)  # macOS: fsync leaves it in the disk's own memory
except ImportError:  # Windows
    _FULL = None


def secure_chunks(chunks: Iterable[tuple[Any, tuple[int, ...]]]) -> None:
    """Wait for chunks, each an array and a place in its grid.

    A chunk gets its name before it is waited for: its bytes and the name need one commit then, and
    two the other way round, 3 ms against 8. Nothing speaks of it yet.
    """
    for array, place in chunks:
        if isinstance(array.store, LocalStore) and array.size:
            name = internals.name(array, place)
            folder = Path(array.store.root, array.path)
            _secure(folder / name, folder)


def secure_files(store: Any, keys: Iterable[str]) -> None:
    """Wait for files of a group."""
    if isinstance(store, LocalStore):
        for key in keys:
            _secure(Path(store.root, key), Path(store.root))


def secure_members(store: Any, members: Iterable[str]) -> None:
    """Wait for all that a group has in members of these names."""
    if isinstance(store, LocalStore):
        for member in members:
            for folder, _, files in os.walk(Path(store.root, member)):
                for path in (*(Path(folder, file) for file in files), Path(folder)):
                    _flush(path)


def secure_document(store: Any) -> None:
    """Wait for the document of a group, for its folder, and for what they lie in."""
    if not isinstance(store, LocalStore):
        return
    root = Path(store.root)
    for folder in (root, *root.parents):  # groups above may have been told of this one
        with suppress(OSError):  # a folder that is not ours to open was not made by us
            document = folder / documents.NAME
            if document.is_file():
                _flush(document)
            _flush(folder)


def _secure(file: Path, top: Path) -> None:
    _flush(file)
    for folder in file.parents:
        _flush(folder)
        if folder == top:
            break


def _flush(path: Path) -> None:
    """Wait for one file or folder."""
    windows = os.name == "nt"
    if windows and path.is_dir():  # which cannot be opened there
        return
    file = os.open(path, os.O_RDWR if windows else os.O_RDONLY)
    try:
        if _FULL is None:
            os.fsync(file)
        else:
            fcntl.fcntl(file, _FULL)
    finally:
        os.close(file)
