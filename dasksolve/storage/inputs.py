"""Stored arrays that are read: opened by path or URL, and what they say of themselves."""

from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import zarr
from zarr.codecs import Crc32cCodec
from zarr.errors import BaseZarrError, ContainsGroupError, NodeTypeValidationError
from zarr.storage import LocalStore, ZipStore

from dasksolve.errors import listed, retold
from dasksolve.storage import decode, internals, locations, secrets, stores
from dasksolve.storage.conventions import DIMENSIONS
from dasksolve.storage.layout import Layout


def open_input(name: str, where: Any) -> tuple[Any, str]:
    """Open an input for reading; return the array and its URL or absolute path."""
    array: Any = where if isinstance(where, zarr.Array) else _open_array(name, where)
    store: Any = array.store
    if locations.is_racing(store):
        raise stores.racing(name, store)
    # A relative path would mean another file to a worker that was started elsewhere.
    if isinstance(store, LocalStore):
        root = Path(store.root).resolve()
        store = stores.Files(root, read_only=True)
    elif isinstance(store, ZipStore):
        root = Path(str(store.path)).resolve()
        store = ZipStore(root, mode="r")
    else:
        return array, locations.of(array)
    return zarr.open_array(store, path=array.path, mode="r"), str(root / array.path)


def _open_array(name: str, where: str | Path) -> Any:
    target = stores.resolved(name, where)
    shown = secrets.shown(where)
    store, path = None, ""  # of an archive that is not there
    try:
        store, path = stores.input_store(target)
        if not locations.is_racing(store):
            return _open_either(store, path)
    except ImportError as error:
        raise ImportError(f"{name}: {shown} needs a package: {error}") from error
    except BadZipFile as error:
        text = f"{name}: {shown} is a file, where a zarr array is a folder or in a zip archive"
        if str(target).endswith(".npy"):
            text += (
                f'; zarr.create_array("{name}.zarr", data=numpy.load("{shown}")) makes one of it'
            )
        raise FileNotFoundError(text) from error
    except (FileNotFoundError, NodeTypeValidationError, ContainsGroupError) as error:
        text = f"{name}: {_no_array(shown, store, path)}"
        raise FileNotFoundError(text) from secrets.cause(error)
    except Exception as error:
        text = f"{name}: cannot open {shown}: {secrets.told(error)}"
        raise retold(error, text) from secrets.cause(error)
    raise stores.racing(name, store)


def _open_either(store: Any, path: str) -> Any:
    # Told no format, zarr asks for both at once, and abandons one question when another fails.
    try:
        return zarr.open_array(store, path=path, mode="r", zarr_format=3)
    except FileNotFoundError:
        return zarr.open_array(store, path=path, mode="r", zarr_format=2)


def _no_array(where: str, store: Any, path: str) -> str:
    if store is None:
        return f"there is no zarr array at {where}"
    try:
        members = list(zarr.open_group(store, path=path, mode="r").array_keys())
    except Exception:
        return f"there is no zarr array at {where}" + _neighbours(where, store, path)
    return f"{where} is a zarr group, not an array" + _held("it", where, members)


def _neighbours(where: str, store: Any, path: str) -> str:
    """What arrays there are where one is looked for, in a folder or an archive on this machine."""
    above, _, name = where.rstrip("/").rpartition("/")
    if not above or name in ("", ".", "..") or not isinstance(store, LocalStore | ZipStore):
        return ""
    if not path:
        if not isinstance(store, LocalStore):
            return ""
        store = stores.Files(Path(store.root).parent, read_only=True)
    try:
        group = zarr.open_group(store, path=path.rpartition("/")[0], mode="r")
        return _held(above, above, list(group.array_keys()))
    except Exception:
        return ""


def _held(group: str, where: str, members: list[str]) -> str:
    inside = listed([f"{where}/{member}" for member in sorted(members)])
    return f"; {group} holds {inside}" if inside else ""


def dimension_names(array: Any) -> tuple[str, ...] | None:
    """What the dimensions of an array are called, if each has a name."""
    names = getattr(array.metadata, "dimension_names", None) or array.attrs.get(DIMENSIONS)
    if not isinstance(names, list | tuple) or len(names) != array.ndim:
        return None
    return tuple(names) if all(isinstance(name, str) and name for name in names) else None


def beside(array: Any, name: str) -> Any:
    """The array of another name in the same group; None: there is none."""
    if "/" in name or name in (".", ".."):  # the name of a dimension, which may be anything
        return None
    store, path = array.store, array.path
    if path:
        path = f"{path.rpartition('/')[0]}/{name}".lstrip("/")
    else:
        above = stores.above(store)
        if above is None:
            return None
        (store, _), path = above, name
    try:
        return zarr.open_array(store, path=path, mode="r", zarr_format=array.metadata.zarr_format)
    except (FileNotFoundError, BaseZarrError):
        return None


def layout(array: Any, location: str, core: int) -> Layout:
    """How an open input lies in its store, if its last `core` axes are within a system."""
    try:
        chunks, shards = array.chunks, array.shards
    except NotImplementedError:  # a rectilinear grid, which zarr has from 3.2 on
        raise NotImplementedError(
            f"{location} is stored in chunks of different lengths along an axis, which dasksolve "
            "does not read: write it again in chunks of one shape"
        ) from None
    local = isinstance(array.store, LocalStore)
    checked = all(isinstance(codec, Crc32cCodec) for codec in array.compressors)
    return Layout(
        tuple(array.shape),
        tuple(max(c, 1) for c in chunks),
        core,
        array.dtype.itemsize,
        location,
        sharded=shards is not None,
        fetched=1 if local else internals.at_once(),
        plain=local and checked and not array.filters,
        in_place=local and decode.is_known(array),
    )
