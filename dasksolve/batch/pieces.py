"""How a batch is cut into pieces that fit in the cache, and handed to threads."""

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from typing import Any, NamedTuple

import numpy as np
from dask.system import CPU_COUNT
from numpy.typing import NDArray

from dasksolve.storage.threads import share

# Bytes of a that go to the kernel at once. Much less and the call shows at small N; much more and
# a copy made for the kernel leaves the cache, and Ctrl-C waits.
PIECE = 2 << 20
LANES = 16  # pieces of a multiple of the widest vector leave no lane idle but at the end


class Given(NamedTuple):
    """What a kernel reads: an array that broadcasts over the batch."""

    values: NDArray[Any]
    core: int
    """How many of its axes are not the batch's."""
    dtype: np.dtype[Any]
    """What the kernel wants it in."""


def thread_count(workers: int) -> int:
    """Return how many threads `workers` asks for."""
    if workers == 1 and workers is not True:
        return 1
    if workers == -1:
        return CPU_COUNT
    if not isinstance(workers, int | np.integer) or isinstance(workers, bool) or workers < 1:
        raise ValueError(f"workers={workers!r} must be a positive integer, or -1 for all cores")
    return int(workers)


def pieces(batch_shape: tuple[int, ...], size: int) -> Iterator[tuple[tuple[Any, ...], slice]]:
    """Yield (index, flat slice) of consecutive parts of a batch, each of at most `size` systems."""
    axis, below = len(batch_shape), 1  # below: systems in one step along `axis`
    while axis > 0 and below * batch_shape[axis - 1] <= size:
        axis -= 1
        below *= batch_shape[axis]
    if axis == 0:
        yield (), slice(0, below)
        return
    length, step = batch_shape[axis - 1], max(1, size // below)
    start = 0
    for outer in product(*map(range, batch_shape[: axis - 1])):
        for first in range(0, length, step):
            last = min(first + step, length)
            stop = start + (last - first) * below
            yield (*outer, slice(first, last)), slice(start, stop)
            start = stop


def piece_size(n: int, k: int, itemsize: int) -> int:
    """Systems in a piece: a multiple of the lanes if there are that many."""
    size = PIECE // (n * max(n, k) * itemsize)
    return size // LANES * LANES or max(size, 1)


def in_threads(work: Callable[[Any], None], parts: list[Any], threads: int) -> None:
    """Call `work` on each part, in one or several threads."""
    count = min(threads, len(parts))
    if count > 1:
        share(parts, [work] * count, own=True)
        return
    for part in parts:
        work(part)


def call(
    kernel: Callable[..., Any],
    batch_shape: tuple[int, ...],
    size: int,
    given: Sequence[Given],
    found: Sequence[NDArray[Any]],
    threads: int = 1,
) -> None:
    """Call a kernel on piece after piece, as it wants what is given, to fill in what is found.

    found: C-contiguous arrays, over the whole batch and any core axes.
    """
    axes = len(batch_shape)
    flat = [values.reshape(-1, *values.shape[axes:]) for values in found]
    if math.prod(batch_shape) <= size:  # all that follows takes longer than a few systems
        kernel(*(_whole(values, batch_shape) for values in given), *flat)
        return
    whole = [_over_the_batch(values, batch_shape) for values in given]

    def call_on(part: tuple[tuple[Any, ...], slice]) -> None:
        index, where = part
        systems = where.stop - where.start
        ready = (plain(v.values[index], (systems, *v.values.shape[axes:]), v.dtype) for v in whole)
        kernel(*ready, *(values[where] for values in flat))

    in_threads(call_on, list(pieces(batch_shape, size)), threads)


def _whole(given: Given, batch_shape: tuple[int, ...]) -> NDArray[Any]:
    values, axes = given.values, given.values.ndim - given.core
    core = values.shape[axes:]
    if values.shape[:axes] != batch_shape:
        values = np.empty((*batch_shape, *core), given.dtype)
        values[...] = given.values
    return plain(values, (math.prod(batch_shape), *core), given.dtype)


def _over_the_batch(given: Given, batch_shape: tuple[int, ...]) -> Given:
    values, axes = given.values, given.values.ndim - given.core
    if values.shape[:axes] == batch_shape:  # to broadcast takes 10 µs
        return given
    return given._replace(values=np.broadcast_to(values, (*batch_shape, *values.shape[axes:])))


def broadcast(values: NDArray[Any], batch_shape: tuple[int, ...]) -> NDArray[Any]:
    """Values with two core axes, for a whole batch."""
    core = values.shape[-2:]
    same = values.shape[:-2] == batch_shape
    return values if same else np.broadcast_to(values, (*batch_shape, *core))


def is_plain(values: NDArray[Any]) -> bool:
    """Whether a kernel takes them as they are."""
    flags = values.flags
    return flags.c_contiguous and flags.aligned


def plain(values: NDArray[Any], shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return a stack as the kernel wants it, copied only where it is not so already."""
    if values.dtype != dtype or not is_plain(values):
        given, values = values, np.empty(values.shape, dtype)  # np.require takes 3 µs more
        values[...] = given
    return values.reshape(shape)
