"""The record that a zarr job leaves in its output, by which a later run knows it again."""

import json
import re
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from dasksolve import kernels
from dasksolve.batch.options import Options
from dasksolve.job.inputs import ARRAYS
from dasksolve.status import Status
from dasksolve.storage import documents, internals, stores
from dasksolve.storage.layout import Block
from dasksolve.storage.source import Source

ATTRIBUTE = "dasksolve"
_VERSION = 1

Record = dict[str, Any]


def identity(a: Source, b: Source, options: Options) -> Record:
    """What a job is known by: its inputs' metadata and its options."""
    return {
        "version": _VERSION,
        "a": _identity(a),
        "b": _identity(b),
        "options": _stated(options),
        "arithmetic": kernels.ARITHMETIC,
    }


def _stated(options: Options) -> Record:
    """The options as the record has them."""
    stated = asdict(options)
    # Raising or not changes no bit of x, so a run may be resumed either way.
    stated["on_singular"] = "lstsq" if options.on_singular == "lstsq" else "nan"
    if stated["rcond"] is None:  # as before there was such an option
        del stated["rcond"]
    return stated


def _identity(source: Source) -> Record:
    array = source.array
    return {
        "shape": list(array.shape),
        "chunks": list(array.chunks),
        "shards": list(array.shards) if array.shards else None,
        "dtype": str(array.dtype),
        "fill_value": str(array.fill_value),
        "packing": str(source.packing) if source.packing else None,
        "location": source.location if stores.has_address(array.store) else None,
    }


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


def read(store: Any, location: str) -> Record:
    """Return the record of an output, or refuse what is not the output of a job."""
    found = find(store, location)
    if is_unfinished(found):
        raise ValueError(
            f"{location} is the output of a job that was stopped while it created it: nothing is "
            "solved yet; resume=True (--resume) begins anew"
        )
    return found


def find(store: Any, location: str) -> Record:
    """The same, of an output that is not created yet, too."""
    found = glance(store)
    if found is None:
        foreign = (documents.read(store) or {}).get("node_type") == "group"
        what = (
            "holds a zarr group that dasksolve did not write"
            if foreign
            else "exists and is not the output of a job"
        )
        raise ValueError(f"{location} {what}; choose another output")
    if found["version"] != _VERSION:
        raise ValueError(
            f"{location} was written by another version of dasksolve (journal version "
            f"{found['version']}, this one writes {_VERSION}); finish it with that version, or "
            "choose another output"
        )
    return found


def glance(store: Any) -> Record | None:
    """The record of an output, if there is one."""
    return first_stated(internals.run(documents.found(store, ("", "status"))))


def first_stated(found: Iterable[Record | None]) -> Record | None:
    """The record that the first of some documents states which states one."""
    return next(filter(None, map(_parsed, found)), None)


def stated(store: Any, member: str) -> Record | None:
    """What an array states of the job: attributes of the group are wiped by who appends to it."""
    return _parsed(documents.read(store, member))


def _parsed(document: Record | None) -> Record | None:
    try:
        found = json.loads((document or {})["attributes"][ATTRIBUTE])
        return {"version": found["version"], **found}
    except (TypeError, ValueError, KeyError, RecursionError):
        return None


def refuse_mixture(record: Record, store: Any, location: str) -> None:
    """Refuse an output whose status is that of another run: somebody has put it there."""
    other = stated(store, "status")
    if other is not None and other.get("run") != record.get("run"):
        raise ValueError(
            f"the status of {location} was written by another run than its journal; start again "
            "with overwrite=True (--overwrite)"
        )


def options(journal: Record, location: str) -> Options:
    """Return the options that the record states, if they can be options."""
    stated = fields(journal, "options", location)
    try:
        found = Options.of(**stated)
    except (TypeError, ValueError):
        found = None
    if found is None or _stated(found) != stated:
        raise ValueError(
            f"the journal of {location} is damaged: its options are {stated}; start again with "
            "overwrite=True (--overwrite)"
        )
    return found


def block_shape(journal: Record, batch_shape: tuple[int, ...], location: str) -> tuple[int, ...]:
    """Return the shape of a block that the record states, if it can be one."""
    shape = journal.get("block_shape")
    if (
        not isinstance(shape, list)
        or len(shape) != len(batch_shape)
        or not all(
            isinstance(n, int) and 0 < n <= max(1, m)
            for n, m in zip(shape, batch_shape, strict=True)
        )
    ):
        raise ValueError(
            f"the journal of {location} is damaged: its blocks have shape {shape}, its batch "
            f"{batch_shape}; start again with overwrite=True (--overwrite)"
        )
    return tuple(shape)


def refuse_changes(old: Record, new: Record, location: str) -> None:
    """Refuse to resume a job whose inputs or options are not what they were, naming each."""
    changes = []
    for part in ("a", "b", "options"):
        was = fields(old, part, location)
        changes += [
            f"{part}.{name} was {was.get(name)!r}, is now {new[part].get(name)!r}"
            for name in {**was, **new[part]}
            if new[part].get(name) != was.get(name)
            and (name != "location" or new[part].get(name) is not None)
        ]
    if changes:
        raise ValueError(
            f"{location} is of another job: {'; '.join(changes)}. Give the inputs and options of "
            "the first run, or start again with overwrite=True (--overwrite)"
        )


def fields(journal: Record, part: str, location: str) -> Record:
    """Return what the record states of an input or of the options, if it is a record itself."""
    fields = journal.get(part)
    if not isinstance(fields, dict) or not fields:
        raise ValueError(
            f"the journal of {location} is damaged: it does not say what {part} was; start again "
            "with overwrite=True (--overwrite)"
        )
    return fields


def unsolved(status: np.ndarray) -> int:
    """How many systems have no status that a solved one can have."""
    return int(np.count_nonzero((status < 0) | (status > max(Status))))


def checksum(x: np.ndarray) -> bytes:
    """What is kept of the numbers of a block whose chunk has no checksum of its own."""
    return zlib.crc32(np.ascontiguousarray(x).reshape(-1).view(np.uint8)).to_bytes(4, "big")


def checksum_file(block: Block, status: Any) -> str:
    """Where it stands, in the array status."""
    return "sums/" + ".".join(map(str, place(block, status)))


def place(block: Block, status: Any) -> tuple[int, ...]:
    """Of a block, in the grid of chunks of status."""
    return tuple(start // c for (start, _), c in zip(block, status.chunks, strict=True))


def finished(
    status: Any, others: Sequence[Any], block: Block, summed: bool = False
) -> list[np.ndarray] | None:
    """Return status and the rest of a block that an earlier run finished; None: solve it (again).

    Others: x, and what was stored beside it. summed: a checksum of x stands beside status.
    """
    region = tuple(slice(*r) for r in block)
    try:
        # After a power cut, a file may be there and empty.
        found = [np.asarray(array[region]) for array in (status, *others)]
    except Exception:  # a damaged chunk of our own is written anew
        return None
    if unsolved(found[0]):
        return None
    chunk = place(block, status)
    for array in others:
        if not stores.holds_chunk(array, chunk):
            return None
    if summed:  # or a file of zeros, in the place of what did not reach the disk, is believed
        kept = internals.run(internals.fetch(status, checksum_file(block, status)))
        if kept is None or kept.tobytes() != checksum(found[1]):
            return None
    return found
