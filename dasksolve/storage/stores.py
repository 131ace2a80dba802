"""Zarr arrays and groups by path or URL: opened safely, described, swept clean."""

import logging
import os
import re
import socket
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import fsspec
import fsspec.config
import zarr
from zarr.abc.store import Store
from zarr.codecs import Crc32cCodec, ZstdCodec
from zarr.errors import BaseZarrError, ContainsGroupError, NodeTypeValidationError
from zarr.storage import FsspecStore, LocalStore, MemoryStore, ZipStore

from dasksolve.storage import decode, documents, internals, secrets
from dasksolve.storage.conventions import DIMENSIONS
from dasksolve.storage.layout import Layout

try:
    from fcntl import LOCK_EX, LOCK_NB, flock
except ImportError:  # Windows
    flock = None  # type: ignore[assignment]
try:
    import resource
except ImportError:
    resource = None  # type: ignore[assignment]

logger = logging.getLogger(__name__)

Location = str | Path
LOOK_EVERY = 1.0
"""Seconds after which who writes looks again whether it still may."""
RETRIES = 7
"""How often a request to S3 is repeated, after up to 1, 2, 4, … s: it may be busy for so long."""
_CUT_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+:)/([^/].*)")
PARTS = ("c", "sums")
"""The folders of an array of ours: chunks, and checksums where chunks have none."""
_PARTIAL = re.compile(r"\.[0-9a-f]{32}\.partial$")  # what zarr calls a file until it is whole


class _Files(LocalStore):
    """A folder in which nothing but files is read: who opens a pipe waits for ever."""

    async def get(self, key: str, *arguments: Any, **options: Any) -> Any:
        self._refuse_special(key)
        return await super().get(key, *arguments, **options)

    def get_sync(self, key: str, **options: Any) -> Any:
        self._refuse_special(key)
        return super().get_sync(key, **options)

    def _refuse_special(self, key: str) -> None:
        path = self.root / key
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise OSError(f"{path} is not a file")


def open_input(name: str, where: Any) -> tuple[Any, str]:
    """Open an input for reading; return the array and its URL or absolute path."""
    array: Any = where if isinstance(where, zarr.Array) else _open_array(name, where)
    store: Any = array.store
    # A relative path would mean another file to a worker that was started elsewhere.
    if isinstance(store, LocalStore):
        root = Path(store.root).resolve()
        store = _Files(root, read_only=True)
    elif isinstance(store, ZipStore):
        root = Path(str(store.path)).resolve()
        store = ZipStore(root, mode="r")
    else:
        return array, address(array)
    return zarr.open_array(store, path=array.path, mode="r"), str(root / array.path)


def address(array: Any) -> str:
    """Where an array lies, for messages."""
    return f"{place_of(array.store)}/{array.path}".rstrip("/")


def place_of(store: Any) -> str:
    """What a store is called in messages, and in the journal: without the secrets of its URL."""
    if isinstance(store, FsspecStore):
        return secrets.shown(store.fs.unstrip_protocol(store.path))
    return secrets.shown(str(store).partition("\n")[0])


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
        above = _above(store)
        if above is None:
            return None
        (store, _), path = above, name
    try:
        return zarr.open_array(store, path=path, mode="r", zarr_format=array.metadata.zarr_format)
    except (FileNotFoundError, BaseZarrError):
        return None


def _above(store: Any) -> tuple[Any, str] | None:
    """The store of the folder that a store is in, and what it is called there."""
    if isinstance(store, LocalStore):
        root = Path(store.root)
        return type(store)(root.parent, read_only=store.read_only), root.name
    if isinstance(store, FsspecStore):
        parent, _, name = store.path.rstrip("/").rpartition("/")
        if parent and not parent.endswith("/"):  # "https://host" has nothing above it
            return FsspecStore(store.fs, read_only=store.read_only, path=parent), name
    return None


def is_checked(array: Any) -> bool:
    """Whether chunks of an array have a checksum, by which zarr knows them from others."""
    return any(
        isinstance(codec, Crc32cCodec) or (isinstance(codec, ZstdCodec) and codec.checksum)
        for codec in array.compressors
    )


def has_address(store: Any) -> bool:
    """Whether a store is called the same in every process; others are by where in memory it is."""
    return isinstance(store, LocalStore | ZipStore | FsspecStore)


def layout(array: Any, location: str, core: int) -> Layout:
    """How an open input lies in its store, if its last `core` axes are within a system."""
    local = isinstance(array.store, LocalStore)
    checked = all(isinstance(codec, Crc32cCodec) for codec in array.compressors)
    return Layout(
        tuple(array.shape),
        tuple(max(c, 1) for c in array.chunks),
        core,
        array.dtype.itemsize,
        location,
        sharded=array.shards is not None,
        fetched=1 if local else internals.at_once(),
        plain=local and checked and not array.filters,
        in_place=local and decode.is_known(array),
    )


def _open_array(name: str, where: Location) -> Any:
    target = _target(name, where)
    shown = secrets.shown(where)
    try:
        store, path = _input_store(target)
        return _open_either(store, path)
    except ImportError as error:
        raise ImportError(f"{name}: {shown} needs a package: {error}") from error
    except (FileNotFoundError, NodeTypeValidationError, ContainsGroupError) as error:
        text = f"{name}: {_no_array(shown, store, path)}"
        raise FileNotFoundError(text) from secrets.cause(error)
    except Exception as error:
        text = f"{name}: cannot open {shown}: {type(error).__name__}: {secrets.shown(error)}"
        raise OSError(text) from secrets.cause(error)


def _input_store(target: str | Path) -> tuple[Any, str]:
    """The store that a path or URL leads to, and the path within it."""
    if not isinstance(target, Path):
        return _remote(target, read_only=True), ""
    archive = next((p for p in (target, *target.parents) if p.suffix == ".zip"), target)
    if archive.is_file():
        inside = "" if archive == target else target.relative_to(archive).as_posix()
        return ZipStore(archive, mode="r"), inside
    return _Files(target, read_only=True), ""


def _open_either(store: Any, path: str) -> Any:
    # Told no format, zarr asks for both at once, and abandons one question when another fails.
    try:
        return zarr.open_array(store, path=path, mode="r", zarr_format=3)
    except FileNotFoundError:
        return zarr.open_array(store, path=path, mode="r", zarr_format=2)


def _remote(url: str, read_only: bool = False) -> FsspecStore:
    # A listing that is kept does not see what other processes write and delete meanwhile.
    options: dict[str, Any] = {"use_listings_cache": False}
    if url.startswith(("s3://", "s3a://")):
        given = fsspec.config.conf.get("s3", {})
        # botocore's ten connections would be the limit, and s3fs would ask for the size of a chunk
        # first, to fetch parts of it at once: it is the chunks that are.
        wanted = {
            "max_pool_connections": _connections(),
            "retries": {"mode": "legacy", "max_attempts": RETRIES},
            **given.get("config_kwargs", {}),
        }
        options |= {"max_concurrency": 1, **given, "config_kwargs": wanted}
    return FsspecStore.from_url(url, storage_options=options, read_only=read_only)


def _connections() -> int:
    """Requests to S3 that may be on their way at once: two for each of 256 blocks, as a rule.

    Each is an open file, of which macOS lets a process have 256.
    """
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0] if resource is not None else 512
    return min(512, files // 2) if files > 0 else 512  # -1: any number


def _no_array(where: str, store: Any, path: str) -> str:
    try:
        members = list(zarr.open_group(store, path=path, mode="r").array_keys())
    except Exception:
        return f"there is no zarr array at {where}"
    inside = ", ".join(f"{where}/{member}" for member in members[:5])
    return f"{where} is a zarr group, not an array" + (f"; it holds {inside}" if inside else "")


def _target(name: str, where: Location) -> str | Path:
    """Local paths absolute, and without the scheme that would open a store that is not atomic."""
    if not isinstance(where, str | os.PathLike):
        raise TypeError(
            f"{name} must be the path or URL of zarr data"
            + (", or an open zarr.Group or store" if name == "out" else ", or an open zarr.Array")
            + f", not {type(where).__module__}.{type(where).__name__}"
        )
    text = str(where)
    if not text:
        raise ValueError(f"{name} is an empty path; give the path or URL of zarr data")
    if match := _CUT_URL.match(text):
        raise ValueError(
            f"{name}: {text} is a URL that lost a slash, as pathlib.Path makes of one; give it as "
            f"text: {match[1]}//{match[2]}"
        )
    if not isinstance(where, os.PathLike):
        if text.startswith("file://"):
            text = _path_of(text, windows=os.name == "nt")
        first, chain, _ = text.partition("::")  # which a name of a folder may have in it, too
        if "://" in text or (chain and first in fsspec.available_protocols()):
            return text
    return Path(text).expanduser().resolve()


def _path_of(url: str, windows: bool) -> str:
    """The path that a file's URL has: on Windows, a drive comes after a slash."""
    path = url.removeprefix("file://")
    return path[1:] if windows and re.match(r"/[A-Za-z]:", path) else path


def lockable(store: Any) -> bool:
    """Whether a store is a folder that a process can lock."""
    return flock is not None and isinstance(store, LocalStore)


def has_one_writer(store: Any) -> bool:
    """Whether a store keeps others away by itself: a folder to lock, or a session of icechunk."""
    return lockable(store) or type(store).__module__.partition(".")[0] == "icechunk"


def lock(folder: int) -> None:
    """Lock an open folder, or raise BlockingIOError; a process that is killed lets go of it."""
    flock(folder, LOCK_EX | LOCK_NB)


def open_store(where: Location) -> tuple[Any, str]:
    """Return the store of a group that is to be written, and what it is called."""
    if isinstance(where, zarr.Group | Store):
        store = _given_store(where)
        return store, str(store.root) if isinstance(store, LocalStore) else place_of(store)
    target = _target("out", where)
    if isinstance(target, Path):
        if target.suffix == ".zip" and not target.is_dir():
            raise ValueError(
                f"out: {target} would be an archive, which cannot replace what it holds, as a job "
                "does; write to a folder, and pack that afterwards"
            )
        return LocalStore(target), str(target)
    try:
        return _remote(target), secrets.shown(target)
    except Exception as error:
        shown = secrets.shown(target), secrets.shown(error)
        text = f"out: cannot open {shown[0]}: {type(error).__name__}: {shown[1]}"
        raise OSError(text) from secrets.cause(error)


def _given_store(where: Any) -> Any:
    """The store whose top is the group that is given."""
    store, path = (where.store, where.path) if isinstance(where, zarr.Group) else (where, "")
    if store.read_only:
        raise ValueError(f"out: {place_of(store)} is open for reading alone; open it for writing")
    if not store.supports_deletes:
        raise ValueError(
            f"out: {place_of(store)} cannot replace what it holds, as a job does; write to a "
            "folder, and pack that afterwards"
        )
    if isinstance(store, LocalStore):  # a relative path would be another's elsewhere
        return LocalStore(Path(store.root).resolve() / path)
    if path and isinstance(store, FsspecStore):
        return FsspecStore(store.fs, path=f"{store.path}/{path}")
    if path:
        raise ValueError(
            f"out: the group {path} lies within {place_of(store)}, where it cannot be told from "
            "what stands beside it; give the store of a group of its own"
        )
    return store


def open_group(store: Any, location: str, mode: Any) -> Any:
    """Open the group that a store holds, or say that there is none."""
    try:
        return zarr.open_group(store, mode=mode, zarr_format=3, use_consolidated=False)
    except Exception as error:
        raise ValueError(
            f"{location} exists and is not the output of a job; choose another output"
        ) from error


def refuse_link(store: Any, name: str, location: str) -> None:
    """Refuse an array of an output that is elsewhere."""
    root = store.root if isinstance(store, LocalStore) else None
    if root is not None and not (root / name).resolve().is_relative_to(root.resolve()):
        raise ValueError(
            f"{location}/{name} is a link that leads to {(root / name).resolve()}, which is no "
            "part of the output; choose another output"
        )


def output_array(group: Any, name: str, location: str) -> Any:
    """An array of a job's output; None: there is none of this name."""
    refuse_link(group.store, name, location)
    try:
        found = group.get(name)
    except Exception as error:  # zarr raises whatever its reading of the metadata runs into
        raise _damaged(location, name, f"{type(error).__name__}: {error}") from error
    if found is not None and not isinstance(found, zarr.Array):
        raise _damaged(location, name, f"it is a {type(found).__name__.lower()}, not an array")
    return found


def described_array(store: Any, name: str, document: documents.Document, location: str) -> Any:
    """The array of a job's output whose metadata were read already, or written."""
    refuse_link(store, name, location)
    if document.get("node_type") != "array":
        raise _damaged(location, name, f"it is a {document.get('node_type')}, not an array")
    try:
        return internals.described(store, name, document)
    except Exception as error:
        raise _damaged(location, name, f"{type(error).__name__}: {error}") from error


def required_array(group: Any, name: str, location: str) -> Any:
    """An array of a job's output, which must be there."""
    found = output_array(group, name, location)
    if found is None:
        raise ValueError(f"{location} has no array {name}; resume the job that writes it")
    return found


def _damaged(location: str, name: str, cause: str) -> ValueError:
    return ValueError(
        f"the array {name} of {location} is damaged: {cause}; start again with overwrite=True "
        "(--overwrite)"
    )


def is_far(store: Any) -> bool:
    """Whether a request to a store is waited for, with nothing to do meanwhile."""
    return not isinstance(store, LocalStore | MemoryStore | ZipStore)


def _document(array: Any) -> str:
    """The key of the metadata of an array."""
    return internals.key(array, "zarr.json" if array.metadata.zarr_format == 3 else ".zarray")


@contextmanager
def marked(store: Any, token: str) -> Iterator[str]:
    """Keep a file in a store by which another process knows that it sees this very one."""
    key = f"{token}.{uuid.uuid4().hex}.partial"  # what a killed job leaves of it is swept
    internals.put_empty(store, key)
    end_others(store, key)
    try:
        yield key
    finally:
        with suppress(Exception):  # a store that is gone: what failed for it is the error to see
            internals.run(store.delete(key))


def end_others(store: Any, own: str | None = None) -> None:
    """Delete the marks of earlier jobs; wait until all who write for them have missed them."""
    others = [name for name in internals.names(store) if _PARTIAL.search(name) and name != own]
    for other in others:
        internals.run(store.delete(other))
    if others:
        time.sleep(patience(store))


def patience(store: Any) -> float:
    """Seconds for which who has seen its mark may write: for a far one, the next look may take."""
    return 2 * LOOK_EVERY if is_far(store) else LOOK_EVERY


def look(arrays: Iterable[Any], store: Any, mark: str | None) -> None:
    """Refuse to work where something is not seen: zarr would read NaN, and write to nowhere."""
    wanted = {address(array): (array.store, _document(array)) for array in arrays}
    if mark is not None:
        wanted[place_of(store)] = (store, mark)
    seen = internals.run(internals.stored(wanted.values()))
    blind = [name for name, there in zip(wanted, seen, strict=True) if not there]
    if blind:
        raise FileNotFoundError(
            f"process {os.getpid()} on {socket.gethostname()} does not see {', '.join(blind)} "
            "as the process does that started the job: put it where all workers see it"
        )


async def refuse_unmarked(store: Any, mark: str) -> None:
    """Refuse to write for a job whose mark is gone."""
    if not await store.exists(mark):
        raise BlockingIOError(
            f"another job has begun to write to {place_of(store)}, or this one has "
            "ended: what was still in hand is not written"
        )


def is_empty(store: Any) -> bool:
    """Whether a store holds nothing but, perhaps, files that a killed process left half written."""
    if not isinstance(store, LocalStore):  # zarr's is_empty lists every chunk
        try:
            return all(map(_PARTIAL.search, internals.names(store)))
        except Exception as error:
            text = f"cannot look into {place_of(store)}: {type(error).__name__}: {error}"
            raise OSError(secrets.shown(text)) from secrets.cause(error)
    root = Path(store.root)
    if not root.is_dir():
        return not root.exists()
    return all(p.is_dir() or _PARTIAL.search(p.name) for p in root.rglob("*"))


def is_new_group(where: Any) -> bool:
    """Whether somebody opened a group to be written, which has nothing in it yet."""
    if not isinstance(where, zarr.Group) or where.metadata.zarr_format != 3:
        return False
    return not where.attrs and not [*where.members()]


def refuse_others(store: Any, location: str, ours: Iterable[str]) -> None:
    """Refuse to replace a group in which somebody else keeps arrays, or has put them."""
    members = {path.partition("/")[0] for path in documents.members(store)}
    if others := sorted(members - {*ours}):
        raise ValueError(
            f"{location} holds {', '.join(others[:5])}, which the job did not write that wrote the "
            "rest; nothing of it is overwritten: move or delete that yourself, or choose another "
            "output"
        )


def required_fields(array: Any, name: str, location: str, **wanted: Any) -> Any:
    """Make sure that an array of an output is the one that is wanted; return it for writing."""
    for field, value in wanted.items():
        found = getattr(array, field)
        if found != value and (found == found or field != "fill_value"):
            raise _damaged(location, name, f"its {field} is {found}, not {value}")
    # Written even where they hold nothing but the fill value: a block is done when it is there.
    return internals.storing_all(array)


def delete(store: Any, members: Sequence[str]) -> None:
    """Delete what a job wrote into arrays; of what else is there, nothing."""
    if not isinstance(store, LocalStore):
        folders = (f"{name}/{part}" for name in members for part in PARTS)
        deletions = [store.delete_dir(folder) for folder in folders]
        deletions += [store.delete(f"{name}/{documents.NAME}") for name in members]
        internals.run(internals.together(*deletions))
        return
    for name in members:
        folder = Path(store.root, name)
        if folder.is_symlink():
            folder.unlink()
        if not folder.is_dir():  # what each deletion of nothing takes, a job would wait for
            continue
        for part in PARTS:
            internals.run(store.delete_dir(f"{name}/{part}"))
        internals.run(store.delete(f"{name}/{documents.NAME}"))
        for orphan in folder.glob("*.partial"):
            orphan.unlink()
        with suppress(OSError):  # it is not there, or somebody keeps something in it
            folder.rmdir()


def sweep(store: Any, mark: str | None) -> None:
    """Delete what a killed process left half written, save the mark of this job."""
    if isinstance(store, LocalStore):
        for orphan in Path(store.root).rglob("*.partial"):
            if _PARTIAL.search(orphan.name) and orphan.name != mark:
                orphan.unlink(missing_ok=True)
    elif mark is None:  # or the other marks are gone already, and there is nothing else
        for name in filter(_PARTIAL.search, internals.names(store)):
            internals.run(store.delete(name))


def publish(
    store: Any, group: documents.Document, members: dict[str, documents.Document] | None = None
) -> None:
    """Write the document of a group with consolidated metadata, as xarray wants to find them.

    Groups above that have them are told of this one, which is not seen there otherwise.

    members: the documents of all that is in it, if they are known.

    zarr's own function warns; to silence that for a moment would silence all threads, and two that
    do it at once leave the filter behind.
    """
    if members is None:
        members = documents.members(store)
    documents.write(store, "", documents.consolidated(group, members))
    _tell_above(store, {"": group, **members})


def _tell_above(store: Any, found: dict[str, documents.Document]) -> None:
    """Put a group and its members into the consolidated metadata of the groups that it lies in."""
    above, path = _above(store), ""
    while above is not None:
        parent, name = above
        path = f"{name}/{path}".rstrip("/")
        found = {f"{name}/{place}".rstrip("/"): document for place, document in found.items()}
        try:
            outer = documents.read(parent)
            if outer is None:
                return
            if outer.get("consolidated_metadata"):
                documents.write(parent, "", documents.inserted(outer, path, found))
        except Exception as error:  # what is above may be none of ours to read or write
            logger.warning("%s does not show in the group above: %s", store, error)
            return
        above, found = _above(parent), {"": outer, **found}
