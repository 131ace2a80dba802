"""Locations, absolute paths or URLs without secrets: what lies where, and which of them are one."""

import os
from pathlib import Path
from typing import Any

import zarr
from fsspec.implementations.asyn_wrapper import AsyncFileSystemWrapper
from fsspec.implementations.cached import (
    CachingFileSystem,
    SimpleCacheFileSystem,
    WholeFileCacheFileSystem,
)
from zarr.storage import FsspecStore, LocalStore, MemoryStore, ZipStore

from dasksolve.storage import internals, secrets


def of(what: Any) -> str:
    """What messages and the journal call a store, or an array."""
    if isinstance(what, zarr.Array):
        return f"{of(what.store)}/{what.path}".rstrip("/")
    if isinstance(what, FsspecStore):
        return secrets.shown(what.fs.unstrip_protocol(what.path))
    return secrets.shown(str(what).partition("\n")[0])


def whereabouts(store: Any, location: str, path: str = "") -> str:
    """Where a store called `location` is, or a path in it, even if by s3a:// or through a cache."""
    if not isinstance(store, FsspecStore):
        return location
    files = store.fs
    while isinstance(files, AsyncFileSystemWrapper | CachingFileSystem):
        files = files.sync_fs if isinstance(files, AsyncFileSystemWrapper) else files.fs
    return secrets.shown(f"{files.unstrip_protocol(store.path)}/{path}".rstrip("/"))


def is_cached(store: Any) -> bool:
    """Whether a store is seen through copies that one of fsspec's caches keeps of it."""
    return isinstance(_files(store), CachingFileSystem)


def is_racing(store: Any) -> bool:
    """Whether it is fsspec's filecache, which says that a copy is there before it is."""
    files = _files(store)
    whole = isinstance(files, WholeFileCacheFileSystem)
    return whole and not isinstance(files, SimpleCacheFileSystem)


def _files(store: Any) -> Any:
    """What of fsspec a store reads from."""
    files = getattr(store, "fs", None)
    return files.sync_fs if isinstance(files, AsyncFileSystemWrapper) else files


def lies_in(place: str, folder: str) -> bool:
    """Whether a place is a folder, or in it, under this name or another: a mount's, other case."""
    place, folder = (name.removeprefix("file://") for name in (place, folder))  # read by fsspec
    if f"{place}/".startswith(f"{folder}/"):
        return True
    path = Path(place)  # of a URL it would be relative
    return path.is_absolute() and any(are_one(one, folder) for one in (path, *path.parents))


def are_one(path: Any, other: str) -> bool:
    """Whether two paths lead to one folder: by a link, a mount, or in another case."""
    try:
        return os.path.samefile(os.fspath(path), other)
    except (OSError, ValueError, TypeError):  # one is not there, can be nowhere, or is no path
        return False


def naming(store: Any) -> str | None:
    """By what a store names things, each by one name; None: perhaps by several."""
    if isinstance(store, LocalStore | ZipStore):
        return "file"
    if isinstance(store, FsspecStore):
        scheme = whereabouts(store, "").partition("://")[0]
        return {"local": "file", "dir": None}.get(scheme, scheme)
    return "memory" if isinstance(store, MemoryStore) else None


def is_in_memory(store: Any) -> bool:
    """Whether what is in a store is in the memory of this process, where no other sees it."""
    store = internals.innermost(store)
    within = getattr(store, "store", None)  # that of obstore, in zarr's ObjectStore
    return naming(store) == "memory" or type(within).__name__ == "MemoryStore"


def has_location(store: Any) -> bool:
    """Whether a store is called the same in every process; others are by where in memory it is."""
    return isinstance(store, LocalStore | ZipStore | FsspecStore)


def is_namesake(store: Any, other: Any) -> bool:
    """Whether a store is not the other, though it may have its name: sessions have one name."""
    return has_one_writer(store) and store != other


def has_one_writer(store: Any) -> bool:
    """Whether a store keeps others away by itself, as a session of icechunk does."""
    return type(store).__module__.partition(".")[0] == "icechunk"
