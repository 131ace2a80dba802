"""The record that a zarr job leaves in its output, by which a later run knows it again."""

import json
import os
import re
import socket
import zlib
from collections.abc import Iterable
from concurrent.futures import Future
from itertools import filterfalse
from typing import Any

import numpy as np
from zarr.storage import ZipStore

from dasksolve import kernels
from dasksolve.status import Status
from dasksolve.storage import documents, groups, internals, locations, marks, stores
from dasksolve.storage.documents import Document
from dasksolve.storage.stores import OutputLocation

ATTRIBUTE = "dasksolve"
ARRAYS = ("x", "status", "rcond", "backward_error")
"""Names of the arrays in the output of a job that solves systems."""
STATING = ("", "status")
"""The members of an output whose documents state its record."""
_VERSION = 1
_OF_THE_FIRST_RUN = (
    "Give the inputs and options of the first run, or start again with overwrite=True (--overwrite)"
)
_IF_MOVED = "If it is the same data, moved, make a link to it where it was, or move it back"

Record = dict[str, Any]
Stating = list[Document | None]
"""Their documents, in this order; None: it is not there."""


def identity(work: Record) -> Record:
    """What a job is known by: what it reads, with which options, and how it computes."""
    return {"version": _VERSION, **work, "arithmetic": kernels.ARITHMETIC}


def record(job: Record, block_shape: tuple[int, ...], run: str, members: Iterable[str]) -> Record:
    """What an output says of the job that writes it.

    run: what no other output has, so that none is taken for this one.
    members: the names of the arrays that are the job's own, and may be deleted.
    """
    return {**job, "block_shape": list(block_shape), "run": run, "members": sorted(members)}


def continued(record: Record) -> Record:
    """The record of a job that is gone on with: perhaps with another arithmetic than it began."""
    if record.get("arithmetic") == kernels.ARITHMETIC:
        return record
    return {**record, "arithmetic": "several"}


def refuse_other_arithmetic(wanted: str) -> None:
    """Refuse to work for a job whose record would speak of other bits than this process finds."""
    if wanted != kernels.ARITHMETIC:
        raise RuntimeError(
            f"process {os.getpid()} on {socket.gethostname()} computes with arithmetic "
            f"{kernels.ARITHMETIC}, the one that started the job with {wanted}, which gives other "
            "last bits: start both with the same dasksolve, NUMBA_CPU_NAME and NUMBA_CPU_FEATURES"
        )


def unfinished(record: Record, members: Iterable[str]) -> Record:
    """What it says while it is created, or what was there is deleted: that nothing in it counts."""
    return {**record, "members": sorted(members), "creating": True}


def is_unfinished(record: Record) -> bool:
    """Whether a job was stopped while it created its output, or deleted an earlier one."""
    return bool(record.get("creating"))


def attributes(record: Record) -> dict[str, Any]:
    """A record as attributes: text, which xarray can write to any format."""
    return {ATTRIBUTE: json.dumps(record)}


def members(record: Record) -> list[str]:
    """The names that a record states of what is the job's own, if they can be names."""
    options = record.get("options")
    diagnostics = isinstance(options, dict) and options.get("diagnostics")
    names = record.get("members", ARRAYS if diagnostics else ARRAYS[:2])
    if not isinstance(names, list | tuple):
        names = ARRAYS[:2]
    return [
        name
        for name in names
        if isinstance(name, str)
        and re.fullmatch(r"[^/\\\0]+", name)
        and name not in (".", "..", documents.NAME)
    ]


def opened(out: OutputLocation) -> tuple[Any, str, Record, Document]:
    """The store of an output that is read, what it is called, its record and its document."""
    store, location = stores.open_store(out, read_only=True)
    if groups.is_empty(store):
        raise FileNotFoundError(f"there is no output at {location}; solve or regress writes it")
    seen = see(store).result()
    found = find(store, location, seen, "give what solve or regress wrote")
    if is_unfinished(found):
        raise ValueError(
            f"{location} is the output of a job that was stopped while it created it: nothing is "
            "solved yet; resume=True (--resume) begins anew"
        )
    return store, location, found, seen[0] or {}


def find(store: Any, location: str, seen: Stating, advice: str = "choose another output") -> Record:
    """The record of an output, which may not be whole yet; refuse what is not a job's."""
    found = glance(store, seen)
    if found is None:
        foreign = (seen[0] or {}).get("node_type") == "group"
        what = (
            "holds a zarr group that dasksolve did not write"
            if foreign
            else "exists and is not the output of a job"
        )
        if isinstance(store, ZipStore):
            advice += ", packed so that its zarr.json is at the top of the archive"
        raise ValueError(f"{location} {what}; {advice}")
    if found["version"] != _VERSION:
        raise ValueError(
            f"{location} was written by another version of dasksolve (journal version "
            f"{found['version']}, this one writes {_VERSION}); finish it with that version, or "
            "choose another output"
        )
    return found


def see(store: Any) -> Future[Stating]:
    """Begin to read the documents of an output that state a record: of the group and of status."""
    return internals.begin(documents.found(store, STATING))


def glance(store: Any, seen: Stating) -> Record | None:
    """The record of an output of which these documents were seen, if there is one.

    Its status has one, too: who appends to a group may wipe the attributes of that.
    """
    return first_stated(seen) or (None if any(seen) else _begun(store))


def _begun(store: Any) -> Record | None:
    """The record of an output of which there is nothing yet but documents of other arrays.

    A copy that somebody made of an array has chunks, and is not ours to replace.
    """
    record = None
    for name in filterfalse(marks.PARTIAL.search, internals.names(store)):
        inside = filterfalse(marks.PARTIAL.search, internals.names(store, name))
        record = _parsed(documents.read(store, name))
        if record is None or name not in members(record) or [*inside] != [documents.NAME]:
            return None
    return record


def first_stated(found: Iterable[Document | None]) -> Record | None:
    """The first record that any of these documents states."""
    return next(filter(None, map(_parsed, found)), None)


def _parsed(document: Document | None) -> Record | None:
    try:
        found = json.loads((document or {})["attributes"][ATTRIBUTE])
        return {"version": found["version"], **found}
    except (TypeError, ValueError, KeyError, RecursionError):
        return None


def run_of(attributes: Any) -> str | None:
    """Which run wrote an array with these attributes, if one did."""
    return (_parsed({"attributes": attributes}) or {}).get("run")


def runs(store: Any, record: Record) -> set[Any]:
    """Those that wrote what a record speaks of: what was begun anew may hold an earlier one's."""
    found = internals.run(documents.found(store, members(record)))
    return {record.get("run"), *((_parsed(each) or {}).get("run") for each in found)} - {None}


def refuse_mixture(record: Record, status: Document | None, location: str) -> None:
    """Refuse an output whose status, of this document, is another run's: somebody put it there."""
    other = _parsed(status)
    if other is not None and other.get("run") != record.get("run"):
        raise ValueError(
            f"the status of {location} was written by another run than its journal; start again "
            "with overwrite=True (--overwrite)"
        )


def damaged(location: str, what: str) -> ValueError:
    """The error of a record that no job writes."""
    return ValueError(
        f"the journal of {location} is damaged: {what}; start again with "
        "overwrite=True (--overwrite)"
    )


def block_shape(record: Record, batch_shape: tuple[int, ...], location: str) -> tuple[int, ...]:
    """Return the shape of a block that a record states, if it can be one."""
    shape = record.get("block_shape")
    if (
        not isinstance(shape, list)
        or len(shape) != len(batch_shape)
        or not all(
            isinstance(n, int) and 0 < n <= max(1, m)
            for n, m in zip(shape, batch_shape, strict=True)
        )
    ):
        raise damaged(location, f"its blocks have shape {shape}, its batch {batch_shape}")
    return tuple(shape)


def refuse_changes(
    old: Record, new: Record, location: str, advice: str = _OF_THE_FIRST_RUN
) -> None:
    """Refuse a job whose inputs or options are not what they were, naming each."""
    kinds = [_kind(record) for record in (old, new)]
    if kinds[0] != kinds[1]:
        raise ValueError(
            f"{location} holds {kinds[0]}, not {kinds[1]}; choose another output, or start again "
            "with overwrite=True (--overwrite)"
        )
    changes: dict[tuple[str, str], str] = {}
    for part in parts(new):
        was, now = fields(old, part, location), new[part]
        if part == "weights" and _are_for_other_rows(was, now):
            continue  # as many as the design has rows, which is named, and none if none were given
        if part == "weights" and ("digest" in was) != ("digest" in now):
            changes[part, ""] = f"weights were {_whose(was)}, are now {_whose(now)}"
            continue
        before, place = was.get("location"), now.get("location")  # None: it does not matter
        moved = place not in (None, before) and not locations.are_one(before, place)
        changes |= {
            (part, name): f"the numbers of {part} are not those that it had{_from(old, part)}"
            if name == "digest" and name in was and name in now
            else f"{part}.{name} was {was.get(name)!r}, is now {now.get(name)!r}"
            for name in {**was, **now}
            if (moved if name == "location" else now.get(name) != was.get(name))
        }
    if changes:
        if all(name == "location" for _, name in changes):
            advice = f"{_IF_MOVED}. {advice}"
        raise ValueError(f"{location} is of another job: {'; '.join(changes.values())}. {advice}")


def _are_for_other_rows(was: Record, weights: Record) -> bool:
    """Whether both are weights in memory, one for each observation, of other numbers of them."""
    return "digest" in was and "digest" in weights and was.get("shape") != weights["shape"]


def _whose(weights: Record) -> str:
    """Whether there is a weight for each number, or for each observation if there are any."""
    if "digest" in weights:
        return "one for each observation, or none"
    return f"one for each number in y ({weights.get('location') or 'a zarr array'})"


def _from(record: Record, part: str) -> str:
    """Where a record says that numbers came from, if they came from a file."""
    files = record.get("files")
    place = files.get(part) if isinstance(files, dict) else None
    return f", from {place}" if isinstance(place, str) else ""


def is_regression(record: Record) -> bool:
    """Whether the job fits series, and does not solve systems."""
    return "design" in record


def _kind(record: Record) -> str:
    return "regressions" if is_regression(record) else "solutions of systems"


def parts(identity: Record) -> list[str]:
    """What of an identity is compared: what the job reads, and its options."""
    return [name for name in identity if name not in ("version", "files", "arithmetic")]


def fields(record: Record, part: str, location: str) -> Record:
    """Return what a record states of an input or of the options, if it is a record itself."""
    fields = record.get(part)
    if not isinstance(fields, dict) or not fields:
        raise damaged(location, f"it does not say what {part} was")
    return fields


def unsolved(status: np.ndarray) -> int:
    """How many systems have no status that a solved one can have."""
    return int(np.count_nonzero((status < 0) | (status > max(Status))))


def checksum(values: Iterable[np.ndarray]) -> bytes:
    """What is kept of the numbers of a block whose chunks have no checksum of their own."""
    found = 0
    for numbers in values:
        found = zlib.crc32(np.ascontiguousarray(numbers).reshape(-1).view(np.uint8), found)
    return found.to_bytes(4, "big")


def checksum_file(place: tuple[int, ...]) -> str:
    """The file of a block's checksum, in the array status; place: of the block in their grid."""
    return "/".join(("sums", *([".".join(map(str, place))] if place else ())))
