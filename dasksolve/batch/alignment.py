"""Chunks of dask arrays aligned: whole systems, and alike along the batch."""

import math
from typing import Any

import dask
import dask.array as da
import numpy as np
from dask.utils import format_bytes, parse_bytes
from numpy.typing import DTypeLike, NDArray

from dasksolve.batch.problem import Problem
from dasksolve.errors import PerformanceWarning, warn

Chunks = tuple[int, ...]


def batch_chunks(batch_shape: tuple[int, ...], *arrays: Any) -> tuple[Chunks, ...]:
    """Chunks of x along the batch: those of the first array that does not broadcast there.

    Lazy arrays come before the others.
    """
    lazy_first = sorted(arrays, key=lambda values: not isinstance(values, da.Array))
    chunks: list[Chunks] = []
    for axis, length in zip(range(-len(batch_shape), 0), batch_shape, strict=True):
        followed = next(
            values
            for values in lazy_first
            if values.ndim - 2 >= -axis and values.shape[axis - 2] == length
        )
        chunks.append(_chunks(followed)[axis - 2])
    return tuple(chunks)


def split(chunks: tuple[Chunks, ...], problem: Problem, a: Any, b: Any) -> tuple[Chunks, ...]:
    """Split the batch so that merging the core dimensions makes no block too large."""
    limit = parse_bytes(dask.config.get("array.chunk-size"))
    system = problem.n * max(problem.n, b.shape[-1]) * problem.dtype.itemsize
    most = limit // max(1, system)
    sizes = [max(c, default=1) for c in chunks]
    for axis in range(len(sizes)):  # the leading axes first: a block stays contiguous
        others = math.prod(sizes[:axis] + sizes[axis + 1 :])
        sizes[axis] = min(sizes[axis], max(1, most // max(1, others)))
    split = tuple(
        tuple(part for length in c for part in _parts(length, size))
        for c, size in zip(chunks, sizes, strict=True)
    )
    chunked = " and ".join(
        f"{name} has chunks of {tuple(map(max, values.chunks))}"
        for name, values in (("a", a), ("b", b))
        if core_is_chunked(values)
    )
    warn(
        f"the systems themselves are chunked: {chunked}, "
        f"where a block must hold whole systems of {format_bytes(system)}. They are merged, in "
        f"blocks of at most {format_bytes(math.prod(sizes) * system)}: every block then reads "
        f"several chunks. Chunk along the batch alone to avoid it: "
        f"{'a' if core_is_chunked(a) else 'b'}.rechunk({{-1: -1, -2: -1, 0: 'auto'}})",
        PerformanceWarning,
    )
    return split


def _parts(length: int, size: int) -> list[int]:
    """Split `length` into equal parts of at most `size`, the last perhaps smaller."""
    if length == 0:
        return [0]
    step = -(-length // -(-length // size))
    return [min(step, length - start) for start in range(0, length, step)]


def follow(
    values: Any, batch_chunks: tuple[Chunks, ...], problem: Problem | None = None
) -> da.Array:
    """Chunk `values` in whole systems and as the batch is, save where it broadcasts.

    problem: given if the values are its b, whose columns may stay in chunks.
    """
    own = values.ndim - 2
    wanted = [
        chunks if sum(chunks) == length else (length,)
        for chunks, length in zip(
            batch_chunks[len(batch_chunks) - own :], values.shape[:-2], strict=True
        )
    ]
    wanted += [(length,) for length in values.shape[-2:]]
    if problem is not None:
        wanted[-1] = _column_chunks(values, problem.n)
    if not isinstance(values, da.Array):
        return da.from_array(values, chunks=tuple(wanted))
    return values if values.chunks == tuple(wanted) else values.rechunk(tuple(wanted))


def _chunks(values: Any) -> tuple[Chunks, ...]:
    if isinstance(values, da.Array):
        return values.chunks
    if values.size == 0:  # dask divides by its bytes
        return tuple((length,) for length in values.shape)
    wanted = ("auto",) * (values.ndim - 2) + values.shape[-2:]
    return da.core.normalize_chunks(wanted, values.shape, dtype=values.dtype)


def core_is_chunked(values: Any) -> bool:
    return any(map(is_chunked, _chunks(values)[-2:]))


def rows_are_chunked(b: Any) -> bool:
    return is_chunked(_chunks(b)[-2])


def is_chunked(chunks: Chunks) -> bool:
    """Whether an axis is in several chunks; those of length 0 count as none."""
    return sum(map(bool, chunks)) > 1


def _column_chunks(b: Any, n: int) -> Chunks:
    """Chunks of the columns, so wide that to eliminate anew for each takes little more."""
    columns = tuple(filter(None, _chunks(b)[-1])) or (0,)
    if len(columns) == 1 or min(columns[:-1]) >= n:
        return columns
    width = -(-n // columns[0]) * columns[0] if columns[0] else n
    whole, rest = divmod(sum(columns), width)
    return (*(width,) * whole, *((rest,) if rest else ()))


def matrices(b: Any, ndim: int) -> Any:
    """Return vectors as matrices of one column, with axes enough that a block cannot tell."""
    # A (M, N, N) beside b (N,): a block b of (N, 1) would read as vectors. Not `new_axis` for the
    # leading axes: where those broadcast, dask 2026.8 loses blocks when it fuses.
    b = b[(None,) * (ndim - 1 - b.ndim)]
    if not isinstance(b, da.Array):
        return _as_columns(b)
    return da.map_blocks(
        _as_columns, b, new_axis=b.ndim, chunks=(*b.chunks, (1,)), meta=meta(b.ndim + 1, b.dtype)
    )


def _as_columns(b: NDArray[Any]) -> NDArray[Any]:
    return b[..., None]


def meta(ndim: int, dtype: DTypeLike) -> NDArray[Any]:
    return np.empty((0,) * ndim, dtype)  # spares dask from calling the kernel to learn the dtype
