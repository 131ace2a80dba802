"""Whose an output is: a lock on its folder, or a mark, a file that who writes to it looks for."""

import math
import os
import re
import socket
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from zarr.storage import LocalStore

from dasksolve.storage import documents, internals, secrets, stores

try:
    from fcntl import LOCK_EX, LOCK_NB, flock
except ImportError:  # Windows
    flock = None  # type: ignore[assignment]

LOOK_EVERY = 1.0
"""Seconds after which who writes looks again whether it still may."""
PARTIAL = re.compile(r"\.[0-9a-f]{32}\.partial$")  # what zarr calls a file until it is whole


def lockable(store: Any) -> bool:
    """Whether a store is a folder that a process can lock."""
    return flock is not None and isinstance(store, LocalStore)


def has_one_writer(store: Any) -> bool:
    """Whether a store keeps others away by itself: a folder to lock, or a session of icechunk."""
    return lockable(store) or type(store).__module__.partition(".")[0] == "icechunk"


def lock(folder: int) -> None:
    """Lock an open folder, or raise BlockingIOError; a process that is killed lets go of it."""
    flock(folder, LOCK_EX | LOCK_NB)


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
        internals.put_empty(store, key)
    except Exception as error:  # whatever a store says that may not be written to
        text = f"cannot write to {stores.place_of(store)}: {type(error).__name__}: {error}"
        raise OSError(secrets.shown(text)) from secrets.cause(error)
    began = time.monotonic()
    others = end_others(store, key)
    try:
        yield Mark(key, -math.inf if others else began)
    finally:
        with suppress(Exception):  # a store that is gone: what failed for it is the error to see
            internals.run(store.delete(key))


def end_others(store: Any, own: str | None = None) -> list[str]:
    """Delete the marks of earlier jobs; wait until all who write for them have missed them.

    Returns what else was there, marks or not.
    """
    found = [name for name in internals.names(store) if name != own]
    others = [*filter(PARTIAL.search, found)]
    for other in others:
        internals.run(store.delete(other))
    if others:
        time.sleep(patience(store))
    return found


def patience(store: Any) -> float:
    """Seconds for which who has seen its mark may write: for a far one, the next look may take."""
    return 2 * LOOK_EVERY if stores.is_far(store) else LOOK_EVERY


def look(arrays: Iterable[Any], store: Any, mark: str | None) -> None:
    """Refuse to work where something is not seen: zarr would read NaN, and write to nowhere."""
    wanted = {stores.address(array): (array.store, _document(array)) for array in arrays}
    if mark is not None:
        wanted[stores.place_of(store)] = (store, mark)
    seen = internals.run(internals.stored(wanted.values()))
    blind = [name for name, there in zip(wanted, seen, strict=True) if not there]
    if blind:
        raise FileNotFoundError(
            f"process {os.getpid()} on {socket.gethostname()} does not see {', '.join(blind)} "
            "as the process does that started the job: put it where all workers see it"
        )


def _document(array: Any) -> str:
    """The key of the metadata of an array."""
    return internals.key(array, documents.NAME if array.metadata.zarr_format == 3 else ".zarray")


async def refuse_unmarked(store: Any, mark: str) -> None:
    """Refuse to write for a job whose mark is gone."""
    if not await store.exists(mark):
        raise BlockingIOError(
            f"another job has begun to write to {stores.place_of(store)}, or this one has "
            "ended: what was still in hand is not written"
        )


def sweep(store: Any, mark: str | None) -> None:
    """Delete what a killed process left half written, save the mark of this job."""
    if isinstance(store, LocalStore):
        for orphan in Path(store.root).rglob("*.partial"):
            if PARTIAL.search(orphan.name) and orphan.name != mark:
                orphan.unlink(missing_ok=True)
    elif mark is None:  # or the other marks are gone already, and there is nothing else
        for name in filter(PARTIAL.search, internals.names(store)):
            internals.run(store.delete(name))
