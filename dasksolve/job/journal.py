"""The record that a zarr job leaves in its output, by which a later run knows it again."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from dasksolve import kernels
from dasksolve.batch.options import Options
from dasksolve.status import Status
from dasksolve.storage.layout import Block
from dasksolve.storage.source import Source
from dasksolve.storage.stores import holds_chunk

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
        "location": source.location,
    }


def attributes(job: Record, block_shape: tuple[int, ...]) -> dict[str, str]:
    """The attributes of the output group: text, which xarray can write to any format."""
    return {ATTRIBUTE: json.dumps({**job, "block_shape": list(block_shape)})}


def note_arithmetic(group: Any, location: str) -> None:
    """Take back what the record says of the arithmetic, where another goes on with the job."""
    record = read(group, location)
    if record.get("arithmetic") != kernels.ARITHMETIC:
        group.attrs[ATTRIBUTE] = json.dumps({**record, "arithmetic": "several"})


def read(group: Any, location: str) -> Record:
    """Return the record of an output group, or refuse a group that is not the output of a job."""
    text = group.attrs.get(ATTRIBUTE)
    try:
        journal = json.loads(text)
        version = journal["version"]
    except (TypeError, ValueError, KeyError, RecursionError):
        raise ValueError(
            f"{location} holds a zarr group that dasksolve did not write; choose another output"
        ) from None
    if version != _VERSION:
        raise ValueError(
            f"{location} was written by another version of dasksolve (journal version {version}, "
            f"this one writes {_VERSION}); finish it with that version, or choose another output"
        )
    return dict(journal)


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


def finished(status: Any, others: Sequence[Any], block: Block) -> list[np.ndarray] | None:
    """Return status and the rest of a block that an earlier run finished; None: solve it (again).

    Others: x, and what was stored beside it.
    """
    region = tuple(slice(*r) for r in block)
    try:
        # After a power cut, a file may be there and empty.
        found = [np.asarray(array[region]) for array in (status, *others)]
    except Exception:  # a damaged chunk of our own is written anew
        return None
    if unsolved(found[0]):
        return None
    place = tuple(start // c for (start, _), c in zip(block, status.chunks, strict=True))
    for array in others:
        if not holds_chunk(array, place + (0,) * (array.ndim - len(place))):
            return None
    return found
