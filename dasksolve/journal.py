"""The record that a zarr job leaves in its output, by which a later run knows it again."""

import json
from typing import Any

import numpy as np

from dasksolve.plan import Block, Plan
from dasksolve.problem import Problem
from dasksolve.stores import Source, exists

ATTRIBUTE = "dasksolve"
_VERSION = 1
_META = ("shape", "chunks", "shards", "dtype", "fill_value", "location")

Record = dict[str, Any]


def record(problem: Problem, a: Source, b: Source, options: Record, plan: Plan) -> Record:
    """What identifies a job: its inputs' metadata, its options and its blocks."""
    return {
        "version": _VERSION,
        "a": _identity(a),
        "b": _identity(b),
        "options": {"assume_a": problem.assume_a, "lower": problem.lower, **options},
        "block_shape": list(plan.block_shape),
    }


def _identity(source: Source) -> Record:
    array = source.array
    values = {
        "shape": list(array.shape),
        "chunks": list(array.chunks),
        "shards": list(array.shards) if array.shards else None,
        "dtype": str(array.dtype),
        "fill_value": str(array.fill_value),
        "location": source.location,
    }
    return {name: values[name] for name in _META}


def attributes(journal: Record) -> dict[str, str]:
    """The attributes of the output group: text, which xarray can write to any format."""
    return {ATTRIBUTE: json.dumps(journal)}


def read(group: Any, location: str) -> Record:
    """Return the record of an output group, or refuse a group that is not the output of a job."""
    text = group.attrs.get(ATTRIBUTE)
    try:
        journal = json.loads(text)
        version = journal["version"]
    except (TypeError, ValueError, KeyError):
        raise ValueError(
            f"{location} holds a zarr group that dasksolve did not write; choose another output"
        ) from None
    if version != _VERSION:
        raise ValueError(
            f"{location} was written by another version of dasksolve (journal version {version}, "
            f"this one writes {_VERSION}); finish it with that version, or choose another output"
        )
    return dict(journal)


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
    changes = [
        f"{part}.{name} was {was!r}, is now {new[part].get(name)!r}"
        for part in ("a", "b", "options")
        for name, was in (old.get(part) or {}).items()
        if new[part].get(name) != was
    ]
    if changes:
        raise ValueError(
            f"cannot resume {location}: {'; '.join(changes)}. Give the inputs and options of the "
            "first run, or start again with overwrite=True (--overwrite)"
        )


def finished(x: Any, status: Any, block: Block) -> np.ndarray | None:
    """Return the status of a block that an earlier run finished; None: solve it (again)."""
    try:
        found = np.asarray(status[tuple(slice(*r) for r in block)])
    except Exception:  # a damaged chunk of our own is written anew
        return None
    if found.size and found.min() < 0:
        return None
    place = tuple(start // c for (start, _), c in zip(block, status.chunks, strict=True))
    place += (0,) * (x.ndim - len(place))
    return found if exists(x, x.metadata.encode_chunk_key(place)) else None
