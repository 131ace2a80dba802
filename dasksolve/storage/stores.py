"""Zarr stores by path or URL, opened safely, for reading or writing.

Where something is to be done otherwise than elsewhere, it goes by these, here or in `locations`:

``LocalStore``    A folder: read and written in the thread that works on a block, and made durable.
`is_far`          Requests are waited for, many at once: URLs, and other people's stores.
`has_one_writer`  It keeps others away itself. Others may not: while a job writes, its folder is
                  *locked* (`marks.claimed`), or there is a *mark* that all who write look for
                  (`marks.marked`): where no folder can be locked, and always on a cluster.
"""

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import fsspec
import fsspec.config
import zarr
from zarr.abc.store import Store
from zarr.storage import FsspecStore, LocalStore, MemoryStore, ZipStore

from dasksolve.errors import counted, retold
from dasksolve.storage import internals, locations, secrets

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

OutputLocation = str | Path | zarr.Group | Store
"""Where the group of a job's output, or of factors, is."""
RETRIES = 7
"""How often a request to S3 is repeated, after up to 1, 2, 4, … s: it may be busy for so long."""
_ANSWERLESS = 2
"""How often where nobody has answered yet: there may be no server at all."""
_CUT_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+:)/([^/].*)")


class Files(LocalStore):
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


def input_store(target: str | Path) -> tuple[Any, str]:
    """The store that a path or URL leads to, and the path within it."""
    if not isinstance(target, Path):
        return _remote(target, read_only=True), ""
    archive = next((p for p in (target, *target.parents) if p.suffix == ".zip"), target)
    if archive.is_file():
        inside = "" if archive == target else target.relative_to(archive).as_posix()
        return ZipStore(archive, mode="r"), inside
    return Files(target, read_only=True), ""


def open_store(where: OutputLocation, read_only: bool = False) -> tuple[Any, str]:
    """Return the store of a group that is to be written, or only read, and what it is called."""
    if isinstance(where, zarr.Group | Store):
        store = _given_store(where, read_only)
        return store, str(store.root) if isinstance(store, LocalStore) else locations.of(store)
    target = resolved("out", where)
    if isinstance(target, Path):
        is_archive = target.suffix == ".zip" and not target.is_dir()
        if is_archive and read_only and target.exists():
            return _archive(target), str(target)
        if is_archive and not read_only:
            raise ValueError(
                f"out: {target} would be an archive, which cannot replace what it holds, as a job "
                "does; write to a folder, and pack that afterwards"
            )
        return Files(target), str(target)
    try:
        store = _remote(target, read_only)
    except Exception as error:
        text = f"out: cannot open {secrets.shown(target)}: {secrets.told(error)}"
        raise retold(error, text) from secrets.cause(error)
    _refuse_cache(store, secrets.shown(target), read_only)
    return store, secrets.shown(target)


def _archive(path: Path) -> ZipStore:
    """A zip archive that is read: opened, since zarr before 3.2 lists none that is not."""
    try:
        return internals.run(ZipStore.open(path, mode="r"))
    except BadZipFile as error:
        raise ValueError(
            f"out: {path} is no zip archive ({error}), nor the folder of an output"
        ) from error


def _refuse_cache(store: Any, location: str, read_only: bool) -> None:
    if locations.is_cached(store) and not read_only:
        raise ValueError(
            f"out: {location} is a cache, which goes on showing what others have changed beneath "
            f"it; give the place that it keeps copies of: {locations.whereabouts(store, location)}"
        )
    if locations.is_racing(store):
        raise racing("out", store)


def racing(name: str, store: Any) -> ValueError:
    """What is said of a cache from which chunks would be read that are not there yet."""
    return ValueError(
        f"{name}: from fsspec's filecache several threads cannot read at once; simplecache:: lets "
        f"them, or give the place that it keeps copies of: {locations.whereabouts(store, '')}"
    )


def _given_store(where: Any, read_only: bool) -> Any:
    """The store whose top is the group that is given."""
    store, path = (where.store, where.path) if isinstance(where, zarr.Group) else (where, "")
    if store.read_only and not read_only:
        raise ValueError(
            f"out: {locations.of(store)} is open for reading alone; open it for writing"
        )
    if not (store.supports_deletes or read_only):
        raise ValueError(
            f"out: {locations.of(store)} cannot replace what it holds, as a job does; write to a "
            "folder, and pack that afterwards"
        )
    _refuse_cache(store, locations.of(store), read_only)
    if isinstance(store, ZipStore) and not path:
        return _archive(Path(str(store.path)))
    if isinstance(store, LocalStore):  # a relative path would be another's elsewhere
        return Files(Path(store.root).resolve() / path)
    if path and isinstance(store, FsspecStore):
        return FsspecStore(store.fs, path=f"{store.path}/{path}")
    if path:
        raise ValueError(
            f"out: the group {path} lies within {locations.of(store)}, where it cannot be told "
            "from what stands beside it; give the store of a group of its own"
        )
    return store


def resolved(name: str, where: str | os.PathLike[Any]) -> str | Path:
    """Local paths absolute, and without the scheme that would open a store that is not atomic."""
    if not isinstance(where, str | os.PathLike):
        kind = type(where)
        raise TypeError(
            f"{name} must be the path or URL of zarr data"
            + (", or an open zarr.Group or store" if name == "out" else ", or an open zarr.Array")
            + f", not {'None' if where is None else f'{kind.__module__}.{kind.__name__}'}"
            + ("" if name == "out" else _elsewhere(where))
        )
    text = os.fsdecode(where)  # str of a path-like object may be anything
    if not text:
        raise ValueError(f"{name} is an empty path; give the path or URL of zarr data")
    if "\0" in text:
        raise ValueError(f"{name}: {text!r} has a null character in it, which no path has")
    if match := _CUT_URL.match(text):
        raise ValueError(
            f"{name}: {text} is a URL that lost a slash, as pathlib.Path makes of one; give it as "
            f"text: {match[1]}//{'/' * (match[1] == 'file:')}{match[2]}"
        )
    if text.startswith(("file://", "local://")):
        text = _path_of(text, windows=os.name == "nt")
    first, chain, _ = text.partition("::")
    chained = chain and first in fsspec.available_protocols()
    if "://" in text or (chained and not isinstance(where, os.PathLike)):  # or a folder's name
        return text
    path = Path(os.path.expanduser(text))  # Path's own fails where ~name is no user
    try:
        return path.resolve()
    except FileNotFoundError:
        raise FileNotFoundError(
            f"{name}: {text} is meant from the current folder, which has been deleted; change to "
            "one that is there, or give the whole path"
        ) from None


def _elsewhere(values: Any) -> str:
    """Who takes what is an array, but not a stored one."""
    kind = type(values)  # a delayed value has whatever it is asked for
    if hasattr(kind, "data_vars") or hasattr(kind, "coords"):
        return "; dasksolve.labelled takes DataArrays, as xarray.open_zarr reads them"
    if hasattr(kind, "__array__"):
        return "; dasksolve.solve and regress take NumPy and dask arrays"
    return ""


def _path_of(url: str, windows: bool) -> str:
    """The path that a file's URL has: on Windows, a drive comes after a slash."""
    path = re.sub("^(file|local)://(localhost(?=/))?", "", url)
    return path[1:] if windows and re.match(r"/[A-Za-z]:", path) else path


def _remote(url: str, read_only: bool = False) -> FsspecStore:
    # A listing that is kept does not see what other processes write and delete meanwhile.
    options: dict[str, Any] = {"use_listings_cache": False}
    patient: bool | None = None  # it is not S3
    if url.startswith(("s3://", "s3a://")):
        if not url.partition("://")[2].strip("/"):
            raise ValueError("it names no bucket")
        given = fsspec.config.conf.get("s3", {})
        # botocore's ten connections would be the limit, and s3fs would ask for the size of a chunk
        # first, to fetch parts of it at once: it is the chunks that are.
        ours = {
            "max_pool_connections": _connections(),
            "retries": {"mode": "legacy", "max_attempts": RETRIES},
        }
        wanted = {**ours, **given.get("config_kwargs", {})}
        options |= {"max_concurrency": 1, **given, "config_kwargs": wanted}
        patient = wanted["retries"] == ours["retries"]
    store = FsspecStore.from_url(url, storage_options=options, read_only=read_only)
    if patient is not None:
        internals.run(_limit_retries(store.fs, patient))
    return store


async def _limit_retries(s3: Any, patient: bool) -> None:
    client = await s3.set_session()  # as the first request does
    most = (client.meta.config.retries or {}).get("total_max_attempts")
    ends = _Ends(most, patient)
    client.meta.events.register_first("needs-retry.s3", ends, unique_id="dasksolve")


class _Ends:
    """Ends a request that was repeated often enough.

    Sooner where nobody has ever answered, if that is not the user's affair: a server that has may
    come back. And s3fs asks no more: it would begin anew five times, for a chunk 25 times, which of
    a server that is silent takes hours to say.
    """

    def __init__(self, most: int | None, patient: bool) -> None:
        self.most, self.patient = most, patient
        self.answered = False

    def __call__(
        self, response: Any, caught_exception: Exception | None, attempts: int, **_: Any
    ) -> None:
        from botocore.exceptions import EndpointConnectionError, HTTPClientError  # as s3fs does

        self.answered |= response is not None
        in_vain = self.patient and not self.answered and attempts > _ANSWERLESS
        if in_vain and isinstance(caught_exception, EndpointConnectionError):
            raise caught_exception
        if isinstance(caught_exception, HTTPClientError) and attempts == self.most:
            told = f"{type(caught_exception).__name__}: {caught_exception}"
            raise OSError(f"{told} ({counted(attempts, 'attempts')})") from caught_exception


def _connections() -> int:
    """Requests to S3 that may be on their way at once: two for each of 256 blocks, as a rule.

    Each is an open file, of which macOS lets a process have 256.
    """
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0] if resource is not None else 512
    return min(512, files // 2) if files > 0 else 512  # -1: any number


def refuse_unwritable(store: Any, key: str) -> None:
    """Refuse a file in a folder that this process may not write to, before it is worked out."""
    if not isinstance(store, LocalStore):
        return
    folder = next(filter(os.path.exists, Path(store.root, key).parents))
    if not folder.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder))
    effective = os.access in os.supports_effective_ids
    if not os.access(folder, os.W_OK | os.X_OK, effective_ids=effective):
        number, why = errno.EACCES, "for this user or at all"
        if hasattr(os, "statvfs") and os.statvfs(folder).f_flag & os.ST_RDONLY:
            number, why = errno.EROFS, f"since mounted so ({os.strerror(errno.EROFS)})"
        raise PermissionError(number, f"not writable, {why}", str(folder))


def above(store: Any) -> tuple[Any, str] | None:
    """The store of the folder that a store is in, and what it is called there."""
    if isinstance(store, LocalStore):
        root = Path(store.root)
        return type(store)(root.parent, read_only=store.read_only), root.name
    if isinstance(store, FsspecStore):
        parent, _, name = store.path.rstrip("/").rpartition("/")
        if parent and not parent.endswith("/"):  # "https://host" has nothing above it
            return FsspecStore(store.fs, read_only=store.read_only, path=parent), name
    return None


@contextmanager
def naming(store: Any, doing: str, key: str) -> Iterator[None]:
    """Name the file at which a far store fails: "access denied" is all that most of them say."""
    try:
        yield
    except Exception as error:
        if not is_far(store) or getattr(error, "filename", None) is not None:
            raise
        place, cause = locations.of(store), secrets.cause(error)
        if isinstance(error, OSError) and error.strerror is not None:  # as of a file
            strerror = secrets.shown(error.strerror)
            raise OSError(error.errno, strerror, f"{place}/{key}") from cause
        raise retold(error, f"cannot {doing} {key} in {place}: {secrets.told(error)}") from cause


def is_far(store: Any) -> bool:
    """Whether a request to a store is waited for, with nothing to do meanwhile."""
    return not isinstance(store, LocalStore | MemoryStore | ZipStore)
