"""The group that a zarr job writes: claimed, created, completed."""

import asyncio
import logging
import math
import os
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, Crc32cCodec, ZstdCodec
from zarr.storage import LocalStore, MemoryStore

from dasksolve.job import coordinates, journal
from dasksolve.job.coordinates import Coordinate
from dasksolve.job.plan import Plan
from dasksolve.job.prepare import Prepared
from dasksolve.job.run import Job
from dasksolve.job.work import Field, fill_value
from dasksolve.status import Status
from dasksolve.storage import documents, durable, groups, internals, marks
from dasksolve.storage.documents import Document

logger = logging.getLogger(__name__)


FLAGS = {
    "flag_values": [int(status) for status in Status],
    "flag_meanings": " ".join(status.name.lower() for status in Status),
}
"""Attributes of status, by which other programs know what its numbers mean (CF, section 3.5)."""


@contextmanager
def claimed(store: Any, location: str) -> Iterator[None]:
    """Keep other jobs on this machine away from an output; leave no folder where none was."""
    if not marks.lockable(store):  # a mark says whose it is, as on object storage
        yield
        return
    root = Path(store.root)
    made = [path for path in (root, *root.parents) if not path.exists()]
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(f"the output {location} cannot be created: {error}") from error
    folder = os.open(root, os.O_RDONLY)
    try:
        _lock(folder, location)
        yield
    finally:
        os.close(folder)
        with suppress(OSError):  # it is not empty: the job did begin
            for path in made:
                path.rmdir()


def _lock(folder: int, location: str) -> None:
    try:
        marks.lock(folder)
    except BlockingIOError:
        raise BlockingIOError(
            f"another job is writing to {location}; wait for it, or choose another output"
        ) from None
    except OSError as error:
        logger.debug("%s cannot be locked: %s", location, error)


class Looked(NamedTuple):
    """What was seen of an output."""

    documents: list[Document | None]
    """Of the group, and of its arrays."""
    kept: list[bool]
    """Whether all of some blocks is there."""
    began: float
    """When the look began."""


@dataclass
class Seen:
    """The document of a group, as it was when somebody looked."""

    document: Document | None = None
    at: float = -math.inf


@dataclass(frozen=True)
class Output:
    """The group that a job writes, as it is in its store."""

    store: Any
    location: str
    record: journal.Record
    documents: dict[str, Document]
    """The metadata of its arrays, by name."""
    fields: tuple[Field, ...]
    """What its arrays are."""
    arrays: dict[str, Any]
    """They, by name."""
    durable: bool
    """What is written is waited for, until a power cut would spare it."""
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

    def look(self, plan: Plan, done: NDArray[np.bool_]) -> Future[Looked]:
        """Begin to look at what is there of the output, where that is waited for."""
        numbers = np.flatnonzero(done)
        looks = numbers[[0, -1]] if len(numbers) > 1 else numbers  # each is a request
        return internals.begin(self._looked(plan, looks))

    def confirm(
        self, plan: Plan, done: NDArray[np.bool_], look: Future[Looked] | None = None
    ) -> None:
        """Make sure that all is there that was written; write the metadata again if they are not.

        done: which blocks are said to be; look: that was begun already.
        """
        numbers = np.flatnonzero(done)
        if isinstance(self.store, LocalStore):
            found = internals.run(documents.found(self.store, ("", *self.documents)))
            kept = [self._holds(plan, int(number)) for number in numbers]
        else:
            found, kept, began = (look or self.look(plan, done)).result()
            self.seen.document, self.seen.at = found[0], began
        try:
            self.refuse_another((found[0], found[1 + [*self.documents].index("status")]))
        except BlockingIOError:
            if done.all():
                raise
            return  # the blocks that are not done say it
        names = ("the journal", *self.documents)
        lost = [name for name, document in zip(names, found, strict=True) if document is None]
        chunks = len(kept) - sum(kept)
        if not lost and not chunks:
            # Status, and what an earlier run may not have waited for.
            if self.durable and isinstance(self.store, LocalStore):
                for number in numbers:
                    durable.secure_chunks(self._chunks(plan, int(number)))
            return
        if not groups.is_empty(self.store):
            _mend(self.store, self.record, self.documents)
        what = [*lost, *([f"chunks of {chunks:,} blocks"] if chunks else [])]
        raise FileNotFoundError(
            f"{self.location} was deleted while the job ran, or parts of it: {', '.join(what)}. "
            "resume=True (--resume) writes again what is gone"
        )

    async def _looked(self, plan: Plan, numbers: NDArray[Any]) -> Looked:
        """The documents, and whether all of some blocks is there, in the time of one request."""
        began = time.monotonic()
        keys = [self._keys(plan, int(number)) for number in numbers]
        places = [(self.store, key) for block in keys for key in block]
        found, there = await asyncio.gather(
            documents.found(self.store, ("", *self.documents)), internals.stored(places)
        )
        kept = iter(there)
        return Looked(found, [all([*islice(kept, len(block))]) for block in keys], began)

    def group(self) -> Document:
        """The document of the group, as it was a moment ago: another job would write it later."""
        fresh = time.monotonic() - self.seen.at < marks.LOOK_EVERY
        return (self.seen.document if fresh else None) or documents.read(self.store) or {}

    def secure(self) -> None:
        """Wait for the document of the group, the last that a job writes."""
        if self.durable:
            durable.secure_document(self.store)

    def _chunks(self, plan: Plan, number: int) -> Iterator[tuple[Any, tuple[int, ...]]]:
        """The chunks of a block, each with its array."""
        for written in self.fields:
            if self.arrays[written.name].size:
                yield self.arrays[written.name], written.chunk(plan.place(number))

    def _holds(self, plan: Plan, number: int) -> bool:
        return all((self.store.root / key).is_file() for key in self._keys(plan, number))

    def _keys(self, plan: Plan, number: int) -> list[str]:
        """Keys of the chunks of a block in its store."""
        chunks = self._chunks(plan, number)
        return [internals.key(array, internals.name(array, place)) for array, place in chunks]


async def finished(job: Job, number: int) -> dict[str, NDArray[Any]] | None:
    """What an earlier run wrote of a block, if it finished it; None: solve it (again)."""
    block, place, fields = job.plan.block(number), job.plan.place(number), job.work.fields
    status, *others = reversed(fields)
    try:  # after a power cut, a file may be there and empty
        found = {"status": await internals.read(job.status, status.region(block))}
        if journal.unsolved(found["status"]):
            return None
        for field in others:
            found[field.name] = await internals.read(job.arrays[field.name], field.region(block))
    except Exception:  # a damaged chunk of our own is written anew
        return None
    chunks = [(job.arrays[field.name], field.chunk(place)) for field in others]
    keys = [(array.store, internals.key(array, internals.name(array, at))) for array, at in chunks]
    if not all(await internals.stored(keys)):
        return None
    if job.summed:  # or a file of zeros, in the place of what did not reach the disk, is believed
        kept = await internals.fetch(job.status, journal.checksum_file(place))
        sums = journal.checksum(found[f.name] for f in fields if f.name in job.summed)
        if kept is None or kept.tobytes() != sums:
            return None
    return found


def create(prepared: Prepared, compressors: Any, run: str, wait: bool, mark: str | None) -> Output:
    """Create the output, or complete that of an earlier run.

    wait: until a power cut would spare it.
    """
    store, location, found = prepared.store, prepared.location, prepared.found
    empty = groups.is_empty(store)
    if (None if empty else journal.glance(store)) != found:
        raise BlockingIOError(
            f"another job has written to {location} since this one looked; look at what it wrote, "
            "and run this one again"
        )
    fields, beside = _fields(prepared, compressors), prepared.work.coordinates
    if found is not None and prepared.resumed:
        record = journal.continued(found)
        drafts = _drafts(fields, record)
        for name in journal.members(record):
            groups.refuse_link(store, name, location)
        beside = tuple(c for c in beside if c.name in journal.members(record))
        drafts = _mend(store, record, drafts, beside)
        if wait:
            _secure(store, drafts, beside)
    else:
        names = [*fields, *(coordinate.name for coordinate in beside)]
        record = journal.record(prepared.identity, prepared.plan.block_shape, run, names)
        drafts = _drafts(fields, record)
        old = [*journal.members(found or {}), *names]
        if empty and not isinstance(store, LocalStore):  # where there may be links, and is a lock
            old = []
        _begin(store, location, record, old, drafts, beside, wait)
    if wait:
        durable.secure_document(store)
    marks.sweep(store, mark)
    arrays = {
        name: groups.required_fields(
            groups.described_array(store, name, drafts[name], location),
            name,
            location,
            **{field: wanted[field] for field in ("shape", "chunks", "dtype", "fill_value")},
        )
        for name, wanted in fields.items()
    }
    return Output(store, location, record, drafts, prepared.work.fields, arrays, wait)


def _begin(
    store: Any,
    location: str,
    record: journal.Record,
    old: Iterable[str],
    drafts: dict[str, Document],
    beside: tuple[Coordinate, ...],
    wait: bool,
) -> None:
    """Create an output; what is left of an earlier one was the job's own, and goes.

    In whatever order files are deleted, and wherever it stops: what says that nothing in it counts
    is there before the first of them goes, and until the last array is there.
    """
    if not old:  # and each write may be waited for
        _begin_empty(store, record, drafts, beside)
        return
    members = {*old, *record["members"]}
    documents.write(store, "", _group(journal.unfinished(record, members)))
    if wait:
        durable.secure_document(store)
    if old:
        groups.delete(store, sorted({*old}))
    documents.write_all(store, drafts)
    if beside:
        coordinates.write(groups.open_group(store, location, "r+"), beside)
    if wait:
        _secure(store, drafts, beside)
    groups.publish(store, _group(record), None if beside else drafts)


def _begin_empty(
    store: Any,
    record: journal.Record,
    drafts: dict[str, Document],
    beside: tuple[Coordinate, ...],
) -> None:
    """Create an output where nothing is: status alone says all that a run needs that resumes it."""
    documents.write(store, "status", drafts["status"])
    copies = coordinates.drafts(beside)
    with coordinates.copied(store, beside, copies):
        others = [name for name in (*drafts, *copies) if name != "status"]
        groups.publish(store, _group(record), {**drafts, **copies}, unwritten=others)


def _secure(store: Any, drafts: Iterable[str], beside: tuple[Coordinate, ...]) -> None:
    durable.secure_files(store, [f"{name}/{documents.NAME}" for name in drafts])
    durable.secure_members(store, [coordinate.name for coordinate in beside])


def _mend(
    store: Any,
    record: journal.Record,
    drafts: dict[str, Document],
    beside: tuple[Coordinate, ...] = (),
) -> dict[str, Document]:
    """Write what is missing of an output's metadata, and return those of its arrays."""
    top, *found_all = internals.run(documents.found(store, ("", *drafts)))
    group = top or {}
    kept = documents.consolidation(group)
    arrays = dict(zip(drafts, found_all, strict=True))
    complete = {
        name: found or (kept[name] if _alike(kept.get(name, {}), drafts[name]) else drafts[name])
        for name, found in arrays.items()
    }
    complete["status"] = _stating(record, complete["status"])
    for name, found in arrays.items():
        if found != complete[name]:
            documents.write(store, name, complete[name])
    if beside:
        if not group:
            documents.write(store, "", _group(record))
        coordinates.write(zarr.open_group(store, mode="r+", use_consolidated=False), beside)
    groups.publish(store, _stating(record, {**group, "zarr_format": 3, "node_type": "group"}))
    return complete


def _stating(record: journal.Record, document: Document) -> Document:
    """The metadata of an array with the record among its attributes."""
    attributes = document.get("attributes")
    attributes = attributes if isinstance(attributes, dict) else {}
    return {**document, "attributes": {**attributes, **journal.attributes(record)}}


def _alike(one: Document, other: Document) -> bool:
    """Whether two arrays are, but for how their chunks are encoded."""
    fields = ("node_type", "shape", "data_type", "chunk_grid", "chunk_key_encoding", "fill_value")
    return all(one.get(field) == other[field] for field in fields)


def _group(record: journal.Record) -> Document:
    return _stating(record, {"zarr_format": 3, "node_type": "group"})


def _drafts(fields: dict[str, Any], record: journal.Record) -> dict[str, Document]:
    """The metadata of the arrays of an output, as zarr writes them."""
    store = MemoryStore()
    group = zarr.create_group(store, zarr_format=3)
    for name, wanted in fields.items():
        attributes = {**FLAGS, **journal.attributes(record)} if name == "status" else {}
        try:
            group.create_array(name, attributes=attributes, **wanted)
        except Exception as error:  # zarr says what is a codec only once it makes an array
            raise ValueError(
                f"compressors={wanted['compressors']!r} are not bytes-to-bytes codecs of zarr, "
                f"such as [zarr.codecs.ZstdCodec(checksum=True)]: {type(error).__name__}: {error}"
            ) from error
    return documents.members(store)


def _fields(prepared: Prepared, compressors: Any) -> dict[str, dict[str, Any]]:
    """How the arrays of an output are created, by name."""
    plan = prepared.plan
    chosen = [Crc32cCodec()] if compressors is None else compressors
    return {
        field.name: {
            "shape": field.among(plan.batch_shape, field.core),
            "chunks": field.among(plan.block_shape, [max(n, 1) for n in field.core]),
            "dtype": field.dtype,
            "fill_value": fill_value(field),
            "compressors": chosen if field.chosen else _codecs(field),
            "dimension_names": field.names,
        }
        for field in prepared.work.fields
    }


def _codecs(field: Field) -> list[Any]:
    """Codecs of numbers that are not the user's choice: whole ones compress well."""
    if field.dtype.kind == "f":
        return [Crc32cCodec()]
    if field.dtype.itemsize == 1:
        return [ZstdCodec(), Crc32cCodec()]
    # Byte by byte: a quarter of the time, and half of the bytes.
    return [BloscCodec(cname="zstd", clevel=1, shuffle="shuffle"), Crc32cCodec()]
