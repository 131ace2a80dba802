"""The group that a zarr job writes: claimed, created, completed."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import Crc32cCodec, ZstdCodec
from zarr.storage import MemoryStore

from dasksolve.job import coordinates, journal
from dasksolve.job.prepare import Prepared
from dasksolve.status import Status
from dasksolve.storage import stores

logger = logging.getLogger(__name__)


DIAGNOSTICS = ("rcond", "backward_error")
FLAGS = {
    "flag_values": [int(status) for status in Status],
    "flag_meanings": " ".join(status.name.lower() for status in Status),
}
"""Attributes of status, by which other programs know what its numbers mean (CF, section 3.5)."""


@contextmanager
def claimed(store: Any, location: str) -> Iterator[None]:
    """Keep other jobs on this machine away from an output; leave no folder where none was."""
    if not stores.lockable(store):  # a mark says whose it is, as on object storage
        yield
        return
    root = Path(store.root)
    made = [path for path in (root, *root.parents) if not path.exists()]
    root.mkdir(parents=True, exist_ok=True)
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
        stores.lock(folder)
    except BlockingIOError:
        raise BlockingIOError(
            f"another job is writing to {location}; wait for it, or choose another output"
        ) from None
    except OSError as error:
        logger.debug("%s cannot be locked: %s", location, error)


def create(prepared: Prepared, compressors: Any) -> tuple[Any, ...]:
    """Create the output, or complete that of an earlier run.

    Return x and status, and rcond and backward_error if they are wanted.
    """
    store, location, group = prepared.store, prepared.location, prepared.earlier
    inputs, plan = prepared.inputs, prepared.plan
    problem = inputs.problem
    core = problem.x_shape[len(problem.batch_shape) :]
    wanted: dict[str, Any] = {
        "shape": problem.x_shape,
        "chunks": (*plan.block_shape, *(max(n, 1) for n in core)),
        "dtype": problem.dtype,
        "fill_value": np.nan,
        "compressors": [Crc32cCodec()] if compressors is None else compressors,
        "dimension_names": inputs.names,
    }
    try:  # zarr says what is a codec only once it makes an array: first one that nobody sees
        zarr.create_array(MemoryStore(), zarr_format=3, **wanted)
    except Exception as error:
        raise ValueError(
            f"compressors={compressors!r} are not bytes-to-bytes codecs of zarr, such as "
            f"[zarr.codecs.ZstdCodec(checksum=True)]: {type(error).__name__}: {error}"
        ) from error
    if prepared.overwrite:
        stores.delete(store)
    stores.sweep(store)
    if group is None:
        attributes = journal.attributes(prepared.identity, plan.block_shape)
        group = zarr.create_group(store, zarr_format=3, attributes=attributes)
    else:
        journal.note_arithmetic(group, location)
    x = stores.require_array(group, "x", location, **wanted)
    along_the_batch: dict[str, Any] = {
        "shape": problem.batch_shape,
        "chunks": plan.block_shape,
        "dimension_names": inputs.names[: len(problem.batch_shape)],
    }
    status = stores.require_array(
        group,
        "status",
        location,
        dtype=np.dtype(np.int8),
        fill_value=int(Status.PENDING),
        compressors=[ZstdCodec(), Crc32cCodec()],
        attributes=FLAGS,
        **along_the_batch,
    )
    diagnostics = [
        stores.require_array(
            group,
            name,
            location,
            dtype=np.dtype(np.float64),
            fill_value=np.nan,
            compressors=[Crc32cCodec()],
            **along_the_batch,
        )
        for name in (DIAGNOSTICS if prepared.options.diagnostics else ())
    ]
    coordinates.write(group, inputs.coordinates)
    stores.consolidate(store)
    return x, status, *diagnostics
