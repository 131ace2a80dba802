"""Whose an output is: a lock on its folder, or a mark, a file that who writes to it looks for."""

import asyncio
import logging
import math
import os
import re
import socket
import time
import uuid
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from zarr.storage import LocalStore

from dasksolve.errors import retold
from dasksolve.storage import documents, internals, locations, secrets, stores

try:
    from fcntl import LOCK_EX, LOCK_NB, LOCK_UN, flock
except ImportError:  # Windows
    flock = None  # type: ignore[assignment]

logger = logging.getLogger(__name__)

LOOK_EVERY = 1.0
"""Seconds after which who writes looks again whether it still may."""
_HELD = 60.0
"""Seconds for which a lock is waited for: one of a process that is killed ends with it."""
PARTIAL = re.compile(r"\.[0-9a-f]{32}\.partial$")  # what zarr calls a file until it is whole


@contextmanager
def claimed(store: Any, location: str) -> Iterator[bool]:
    """Keep others on this machine away from a folder that is written; leave none where none was.

    Yields whether that could be done: it cannot on object storage, on Windows, and on some network
    file systems.
    """
    if flock is None or not isinstance(store, LocalStore):
        yield False
        return
    folder, made, locked = _claim(Path(store.root), location)
    try:
        yield locked
    finally:
        if locked:  # or another may have: the folder that it locked would be none that it writes to
            _remove(made)
            flock(folder, LOCK_UN)  # a child that this process forked meanwhile has it open, too
        os.close(folder)


def _claim(root: Path, location: str) -> tuple[int, list[Path], bool]:
    """Open and lock a folder; return it, those that were made for it, and whether it is locked."""
    while True:
        made = [path for path in (root, *root.parents) if not path.exists()]
        try:
            root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            _remove(made)
            raise type(error)(f"the output {location} cannot be created: {error}") from error
        with suppress(FileNotFoundError):  # who had made it was refused, and has removed it
            folder = os.open(root, os.O_RDONLY)
            try:
                locked = _lock(folder, location)
                if os.path.samestat(os.fstat(folder), root.stat()):
                    return folder, made, locked
            except BaseException:
                os.close(folder)
                raise
            os.close(folder)


def _lock(folder: int, location: str) -> bool:
    """Lock an open folder, if that can be; a process that is killed lets go of it."""
    try:
        flock(folder, LOCK_EX | LOCK_NB)
    except BlockingIOError:
        raise BlockingIOError(
            f"another job is writing to {location}; wait for it, or choose another output"
        ) from None
    except OSError as error:
        logger.debug("%s cannot be locked: %s", location, error)
        return False
    return True


@asynccontextmanager
async def alone(store: Any, key: str) -> AsyncIterator[None]:
    """Keep others who do so from a file, while it is read and replaced; wait for them a while."""
    if flock is None or not isinstance(store, LocalStore):
        own = f"{key}.{uuid.uuid4().hex}.partial"
        try:
            try:
                await _come_first(store, key, own)
            except Exception as error:  # the file may be ours to replace, and nothing beside it
                logger.debug(
                    "others are not kept from %s in %s: %s", key, store, secrets.shown(error)
                )
            yield
        finally:
            with suppress(Exception):
                await internals.delete(store, own)
        return
    path, began = Path(store.root, key), time.monotonic()
    while True:
        with path.open("rb") as file:
            if _is_locked(file, path) or time.monotonic() - began > _HELD:
                try:
                    yield
                finally:
                    with suppress(OSError):
                        flock(file, LOCK_UN)  # as that of a folder, above
                return
        await asyncio.sleep(0.01)


async def _come_first(store: Any, key: str, own: str) -> None:
    """Put a mark of one's own beside a file, and wait until there is no other.

    Of two who put one, who lists later sees the other's: the first by name stays, and all others
    take theirs back, and come again when there is none.
    """
    others, dead, since, there = set[str](), set[str](), time.monotonic(), False
    while True:
        if not (there or others):
            await internals.put_empty(store, own)
            there = True
        seen, names = others, [name async for name in store.list_dir("")]
        others = {name for name in names if name.startswith(f"{key}.") and PARTIAL.search(name)}
        others -= {own, *dead}
        if others != seen:
            since = time.monotonic()
        if there and not others:
            return
        if there and min(others) < own:
            await internals.delete(store, own)
            there = False
        elif time.monotonic() - since > patience(store):  # who put them was killed
            dead |= others  # a listing may have them for some time yet
            await internals.together(*(internals.delete(store, other) for other in others))
        else:
            await asyncio.sleep(0.05)


def _is_locked(file: BinaryIO, path: Path) -> bool:
    """Lock an open file if nobody has, and it is still the one of that name."""
    try:
        flock(file, LOCK_EX | LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # there are no locks here to wait for
        return True
    return os.path.samestat(os.fstat(file.fileno()), path.stat())


def _remove(folders: list[Path]) -> None:
    """Remove folders, the innermost first, but for those in which there is something."""
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()


class Mark(NamedTuple):
    """A file by which who writes to a store is known."""

    key: str
    """Its name there."""
    alone_at: float
    """When there was nothing else in the store; -inf: there was something."""

    @property
    def alone(self) -> bool:
        """Whether that was a moment ago: who has come since waits longer, before it writes."""
        return time.monotonic() - self.alone_at < LOOK_EVERY


@contextmanager
def marked(store: Any, token: str) -> Iterator[Mark]:
    """Keep a file in a store by which another process knows that it sees this very one."""
    key = f"{token}.{uuid.uuid4().hex}.partial"  # what a killed job leaves of it is swept
    try:
        internals.run(internals.put_empty(store, key))
    except Exception as error:  # whatever a store says that may not be written to
        text = f"cannot write to {locations.of(store)}: {secrets.told(error)}"
        raise retold(error, text) from secrets.cause(error)
    began = time.monotonic()
    others = end_others(store, key)
    try:
        yield Mark(key, -math.inf if others else began)
    finally:
        # Of a store that is gone, what failed for it is the error to see.
        with suppress(Exception), internals.hurried():
            internals.run(internals.delete(store, key))


def end_others(store: Any, own: str | None = None) -> list[str]:
    """Delete the marks of earlier jobs; wait until all who write for them have missed them.

    Returns what else was there, marks or not.
    """
    found = [name for name in internals.names(store) if name != own]
    others = [*filter(PARTIAL.search, found)]
    for other in others:
        internals.run(internals.delete(store, other))
    if others:
        time.sleep(patience(store))
    return found


def patience(store: Any) -> float:
    """Seconds for which who has seen its mark may write: for a far one, the next look may take."""
    return 2 * LOOK_EVERY if stores.is_far(store) else LOOK_EVERY


def look(arrays: Iterable[Any], store: Any, mark: str | None) -> None:
    """Refuse to work where something is not seen: zarr would read NaN, and write to nowhere.

    Or where the output is seen, and may not be written to: workers may be another user's.
    """
    wanted = {locations.of(array): (array.store, _document(array)) for array in arrays}
    if mark is not None:
        wanted[locations.of(store)] = (store, mark)
    seen = internals.run(internals.stored(wanted.values()))
    blind = [name for name, there in zip(wanted, seen, strict=True) if not there]
    here = f"process {os.getpid()} on {socket.gethostname()}"
    if blind:
        raise FileNotFoundError(
            f"{here} does not see {', '.join(blind)} as the process does that started the job: put "
            "it where all workers see it"
        )
    try:
        if mark is not None:
            stores.refuse_unwritable(store, mark)
    except OSError as error:
        raise retold(error, f"{here} may not write: {error}") from error


def _document(array: Any) -> str:
    """The key of the metadata of an array."""
    return internals.key(array, documents.NAME if array.metadata.zarr_format == 3 else ".zarray")


async def refuse_unmarked(store: Any, mark: str) -> None:
    """Refuse to write for a job whose mark is gone."""
    with stores.naming(store, "look for", mark):
        there = await store.exists(mark)
    if not there:
        raise BlockingIOError(
            f"another job has begun to write to {locations.of(store)}, or this one has "
            "ended: what was still in hand is not written"
        )


def sweep(store: Any, mark: str | None, members: Iterable[str]) -> None:
    """Delete what a killed process left half written, save the mark of this job.

    members: the arrays that are the job's own; in others, somebody may be writing.
    """
    if isinstance(store, LocalStore):
        root = Path(store.root)
        within = (Path(root, member).rglob("*.partial") for member in members)
        for orphan in chain(root.glob("*.partial"), *within):
            if PARTIAL.search(orphan.name) and orphan.name != mark:
                orphan.unlink(missing_ok=True)
    elif mark is None:  # or the other marks are gone already, and there is nothing else
        for name in filter(PARTIAL.search, internals.names(store)):
            internals.run(internals.delete(store, name))
