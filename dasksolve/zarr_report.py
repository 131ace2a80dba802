"""`read_report`: what the output of a zarr job says of itself, without its inputs."""

import math
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dasksolve import journal, stores
from dasksolve.plan import Block
from dasksolve.report import FLAGGED, Report
from dasksolve.status import Status
from dasksolve.stores import Location
from dasksolve.tally import count


def read_report(out: Location) -> Report:
    """Count the statuses in an output, block by block.

    Parameters
    ----------
    out : str or pathlib.Path
        Path or URL of the zarr group that `solve_zarr` wrote, or still writes.

    Returns
    -------
    Report
        Counts and flagged systems as they are stored now; time, bytes and peak memory as the runs
        that came to an end recorded them, 0 if none did.

    Raises
    ------
    FileNotFoundError, ValueError
        There is nothing at `out`, or it is not the output of a job, or is damaged.
    """
    store, location = stores.open_store(out)
    if stores.is_empty(store):
        raise FileNotFoundError(f"there is no output at {location}; dasksolve solve writes it")
    group = stores.open_group(store, location, mode="r")
    record = journal.read(group, location)
    array = stores.required_array(group, "status", location)
    steps = journal.block_shape(record, array.shape, location)
    counts, flagged, blocks, done = np.zeros(len(Status), np.int64), list[int](), 0, 0
    for block in product(*map(_ranges, array.shape, steps)):
        status = _read(array, block, location)
        counted, first = count(status, tuple(start for start, _ in block), array.shape)
        counts += counted
        if first:
            flagged = sorted({*flagged, *first})[:FLAGGED]
        blocks, done = blocks + 1, done + (Status.PENDING not in status)
    return Report(
        out=location,
        systems=math.prod(array.shape),
        batch_shape=tuple(array.shape),
        counts=dict(zip(Status, counts.tolist(), strict=True)),
        flagged=tuple(flagged),
        blocks=blocks,
        blocks_done=done,
        blocks_resumed=0,
        **journal.totals(group, location),
    )


def _ranges(length: int, step: int) -> list[tuple[int, int]]:
    return [(start, min(start + step, length)) for start in range(0, length, step)]


def _read(array: Any, block: Block, location: str) -> NDArray[np.int8]:
    """The statuses of a block, where a value that no solver writes is not solved."""
    try:
        status = np.asarray(array[tuple(slice(*r) for r in block)])
    except Exception as error:
        place = ", ".join(f"{start}:{stop}" for start, stop in block)
        raise OSError(
            f"cannot read the status of [{place}] in {location}: {type(error).__name__}: {error}; "
            "resume=True (--resume) solves it again"
        ) from error
    return np.where(journal.is_unsolved(status), np.int8(Status.PENDING), status)
