"""The group that a zarr job writes: what is there of it, and what an earlier run finished."""

import asyncio
import math
import time
from collections.abc import Iterable
from concurrent.futures import Future
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from zarr.storage import LocalStore

from dasksolve.errors import counted
from dasksolve.job import journal, metadata
from dasksolve.job.job import Job
from dasksolve.storage import documents, durable, groups, internals, marks, stores
from dasksolve.storage.buffers import Workspace
from dasksolve.storage.documents import Document


class Looked(NamedTuple):
    """What was seen of an output."""

    documents: dict[str, Document | None]
    """Of the group, "", and of its arrays."""
    kept: list[bool]
    """Whether all of some blocks is there."""
    began: float
    """When the look began."""


@dataclass
class Seen:
    """The document of a group, as it was when somebody looked."""

    document: Document | None = None
    at: float = -math.inf
    """When that was, or no other job had begun to write yet."""


@dataclass(frozen=True)
class Output:
    """The group that a job writes, as it is in its store."""

    store: Any
    location: str
    record: journal.Record
    documents: dict[str, Document]
    """The metadata of its arrays, by name."""
    arrays: dict[str, Any]
    """The open arrays themselves, by name."""
    durable: bool
    """What is written is waited for, until a power cut would spare it."""
    there: Future[None] | None = None
    """Its metadata are being written; None: they are there."""
    seen: Seen = field(default_factory=Seen)
    """What was seen of the group, where that is waited for."""

    def refuse_another(self, documents: Iterable[Document | None]) -> None:
        """Refuse to go on where these, of the output, say that another job has replaced it."""
        found = journal.first_stated(documents)
        if found is not None and found.get("run") != self.record.get("run"):
            raise BlockingIOError(
                f"another job has begun to write to {self.location}: wait for it, or choose "
                "another output"
            )

    def look(self, job: Job, done: NDArray[np.bool_]) -> Future[Looked]:
        """Begin to look at what is there of the output, where that is waited for."""
        numbers = np.flatnonzero(done)
        looks = numbers[[0, -1]] if len(numbers) > 1 else numbers  # each is a request
        return internals.begin(_looked(job, looks))

    def confirm(self, job: Job, done: NDArray[np.bool_], look: Future[Looked] | None) -> None:
        """Make sure that all is there that was written; write the metadata again if they are not.

        done: which blocks are said to be; look: that was begun already.
        """
        numbers = [int(number) for number in np.flatnonzero(done)]
        if isinstance(self.store, LocalStore):
            names = ("", *self.documents)
            read = internals.run(documents.found(self.store, names))
            found = dict(zip(names, read, strict=True))
            root = self.store.root
            kept = [all((root / key).is_file() for key in job.keys(n)) for n in numbers]
        else:
            found, kept, began = (look or self.look(job, done)).result()
            self.seen.document, self.seen.at = found[""], began
        try:
            self.refuse_another((found[""], found["status"]))
        except BlockingIOError:
            if done.all():
                raise
            return  # the blocks that are not done say it
        lost = [name or "the journal" for name, document in found.items() if document is None]
        chunks = len(kept) - sum(kept)
        if not lost and not chunks:
            # Status, and what an earlier run may not have waited for.
            if self.durable and isinstance(self.store, LocalStore):
                for number in numbers:
                    durable.secure_chunks(job.chunks(number))
            return
        if not groups.is_empty(self.store):
            there = documents.members(self.store, ("", *self.documents))
            metadata.mend(self.store, self.record, self.documents, there)
        what = [*lost, *([f"chunks of {counted(chunks, 'blocks')}"] if chunks else [])]
        raise FileNotFoundError(
            f"{self.location} was deleted while the job ran, or parts of it: {', '.join(what)}. "
            "resume=True (--resume) writes again what is gone"
        )

    def group(self) -> Document:
        """The document of the group, or as it was a moment ago: no other job writes it so soon."""
        fresh = time.monotonic() - self.seen.at < marks.LOOK_EVERY
        return (self.seen.document if fresh else None) or documents.read(self.store) or {}

    def secure(self) -> None:
        """Wait for the document of the group, the last that a job writes."""
        if self.durable:
            durable.secure_document(self.store)


async def looked(job: Job) -> Looked | None:
    """The same look, while a task of a cluster writes its last status; None: it found an error."""
    first = job.here.first_done
    try:
        found = await _looked(job, [] if first is None else [first])
    except Exception:  # who started the job looks again
        return None
    return found._replace(began=-math.inf)  # by a clock that is this process's


async def _looked(job: Job, numbers: Iterable[Any]) -> Looked:
    """The documents, and whether all of some blocks is there, in the time of one request."""
    began, names = time.monotonic(), ("", *job.arrays)
    keys = [job.keys(int(number)) for number in numbers]
    places = [(job.store, key) for block in keys for key in block]
    reading = documents.found(job.store, names)
    with stores.naming(job.store, "look for", "what was written"):
        found, there = await asyncio.gather(reading, internals.stored(places))
    kept = iter(there)
    whole = [all([*islice(kept, len(block))]) for block in keys]
    return Looked(dict(zip(names, found, strict=True)), whole, began)


async def finished(job: Job, number: int, space: Workspace) -> dict[str, NDArray[Any]] | None:
    """What an earlier run wrote of a block, if it finished it; None: solve it (again).

    It is lent by the workspace, which is to be closed after that: to solve takes the room.
    """
    *_, journal_field = job.work.fields
    try:  # after a power cut, a file may be there and empty
        status = await job.stored([journal_field], number, space)
    except Exception:
        return None
    if journal.unsolved(status["status"]):
        return None
    found = await _kept(job, number, status, space)
    if found is None:
        space.close()
    return found


async def _kept(
    job: Job, number: int, status: dict[str, NDArray[Any]], space: Workspace
) -> dict[str, NDArray[Any]] | None:
    """A block's status, and what that speaks of, if all of it is there and whole."""
    *others, _ = job.work.fields
    looking = internals.stored([(job.store, key) for key in job.keys(number)[:-1]])
    there: Any
    found: Any
    try:
        there, found = await internals.together(looking, job.stored(others, number, space))
    except Exception:  # a damaged chunk of our own is written anew
        return None
    if not all(there):
        return None
    found |= status
    if job.summed:  # or a file of zeros, in the place of what did not reach the disk, is believed
        kept = await internals.fetch(job.status, journal.checksum_file(job.plan.place(number)))
        sums = journal.checksum(found[f.name] for f in job.work.fields if f.name in job.summed)
        if kept is None or kept.tobytes() != sums:
            return None
    return dict(found)
