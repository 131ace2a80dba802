"""The factors of a batch in a zarr group: written, and found again as lazy dask arrays."""

import json
from collections.abc import Iterator, Sequence
from itertools import islice, zip_longest
from typing import Any

import dask.array as da
import numpy as np
import zarr
from dask import local, threaded
from dask.base import get_scheduler
from dask.system import CPU_COUNT
from numpy.typing import NDArray
from zarr.codecs import Crc32cCodec, ZstdCodec

from dasksolve.batch.factors import LOST
from dasksolve.batch.problem import describe_inverses
from dasksolve.errors import naming
from dasksolve.status import Status
from dasksolve.storage import groups, locations, marks, stores
from dasksolve.storage.stores import OutputLocation

_ATTRIBUTE = "dasksolve_factorization"
_VERSION = 4
# What zarr takes a chunk for that was lost: never for factors that look sound.
_MISSING = {
    "lu": np.nan,
    "order": -1,
    "status": int(Status.PENDING),
    "rcond": np.nan,
    "scales": LOST,
}


def write(path: OutputLocation, *arrays: Any) -> None:
    """Write factors, given in the order of `_MISSING`, to a new group, block by block."""
    store, location = stores.open_store(path)
    with naming(location), marks.claimed(store, location):
        if not groups.is_empty(store):
            raise FileExistsError(f"{location} exists; choose another path, or delete it")
        _write(store, location, arrays)


def _write(store: Any, location: str, arrays: Sequence[Any]) -> None:
    group = zarr.create_group(store, zarr_format=3)
    sources = []
    for (name, missing), values in zip(_MISSING.items(), arrays, strict=True):
        source = da.asarray(values)
        chunks = tuple(max(1, *c) if c else 1 for c in source.chunks)
        array = group.create_array(
            name,
            shape=source.shape,
            chunks=chunks,
            dtype=source.dtype,
            fill_value=missing,
            compressors=[ZstdCodec(), Crc32cCodec()],
            config={"write_empty_chunks": name == "status"},  # then those that lack are elsewhere
        )
        if source.size:
            sources.append((source.rechunk(chunks), array))
    written = [_written(*source) for source in sources]
    if not any(isinstance(values, da.Array) for values in arrays):
        da.compute(*written, scheduler=threaded.get)  # a cluster need not see the place
    elif get_scheduler(collections=written) in (threaded.get, local.get_sync):
        da.compute(*written)
    elif locations.is_in_memory(store) or locations.has_one_writer(store):
        # Workers would write to copies of their own, and to none of what has one writer.
        _write_here(sources)
    else:
        da.compute(*written)
        _refuse_elsewhere(group["status"], location)
    group.attrs[_ATTRIBUTE] = json.dumps({"version": _VERSION})  # last: it is whole


def read(path: OutputLocation) -> tuple[da.Array, ...]:
    """The arrays that were written, in the same order."""
    store, location = stores.open_store(path, read_only=True)
    if groups.is_empty(store):
        raise FileNotFoundError(
            f"there are no factors at {location}; Factorization.to_zarr writes them"
        )
    group = _group(store, location)
    try:
        version = json.loads(group.attrs[_ATTRIBUTE])["version"]
        arrays = [group[name] for name in _MISSING if name != "scales" or version >= _VERSION]
        lu, order, status, rcond, *scales = (  # not from_zarr: array.query-planning has none
            da.from_array(array, chunks=array.chunks, inline_array=True) for array in arrays
        )
    except (KeyError, TypeError, ValueError):
        raise ValueError(
            f"{location} does not hold the whole of a factorization; factor and write it again"
        ) from None
    whole = (
        version == _VERSION
        and describe_inverses(lu.shape, lu.dtype).dtype == lu.dtype
        and lu.shape[:-1] == order.shape
        and lu.shape[:-2] == status.shape == rcond.shape
        and (*order.shape, 2) == scales[0].shape
        and (order.dtype, status.dtype, rcond.dtype) == (np.int32, np.int8, np.float64)
        and scales[0].dtype == np.int16
    )
    if not whole:
        raise ValueError(
            f"{location} holds factors of version {version}, lu {lu.shape} {lu.dtype}, order "
            f"{order.shape} {order.dtype}, status {status.shape}: factor and write them again"
        )
    return lu, order, status, rcond, scales[0]


def _group(store: Any, location: str) -> Any:
    """The group that a store holds, if any part of it can be one of factors."""
    cause = None
    try:
        group = zarr.open_group(store, mode="r", zarr_format=3, use_consolidated=False)
        if _ATTRIBUTE in group.attrs or any(name in group for name in ("lu", "order")):
            return group
    except Exception as error:
        cause = error
    raise ValueError(
        f"{location} exists and does not hold factors; give what Factorization.to_zarr wrote"
    ) from cause


def _refuse_elsewhere(status: Any, location: str) -> None:
    """Refuse what workers say that they have written, and is not there."""
    if status.nchunks_initialized < status.nchunks:
        raise OSError(
            f"the workers wrote factors that are not at {location}, which they see as another "
            "place: give a path or URL that all see as one"
        )


def _write_here(sources: list[tuple[da.Array, Any]]) -> None:
    """Write what workers compute, a few blocks of every array at once."""
    rows = zip_longest(*(_blocks(*source) for source in sources))
    while few := [block for row in islice(rows, CPU_COUNT) for block in row if block]:
        computed = da.compute(*(values for values, _, _ in few))
        for values, (_, array, place) in zip(computed, few, strict=True):
            array[place] = values


def _blocks(values: da.Array, array: Any) -> Iterator[tuple[da.Array, Any, tuple[slice, ...]]]:
    """The blocks of values, and the place of each in an array."""
    for block_id in np.ndindex(values.numblocks):
        place = _place(array, block_id)
        yield values[place], array, place  # the arrays of array.query-planning have no `blocks`


def _written(values: da.Array, array: Any) -> da.Array:
    """What writes each block to its chunk of a zarr array: no two tasks write to one."""
    # da.store does so too, but not for the arrays of array.query-planning.
    ones = tuple((1,) * blocks for blocks in values.numblocks)
    return da.map_blocks(
        _write_block, values, array, chunks=ones, dtype=bool, meta=np.empty(0, bool)
    )


def _write_block(
    values: NDArray[Any], array: Any, *, block_id: tuple[int, ...]
) -> NDArray[np.bool_]:
    array[_place(array, block_id)] = values
    return np.ones((1,) * values.ndim, bool)


def _place(array: Any, block_id: tuple[int, ...]) -> tuple[slice, ...]:
    """Where a chunk lies in a zarr array."""
    return tuple(slice(i * n, (i + 1) * n) for i, n in zip(block_id, array.chunks, strict=True))
