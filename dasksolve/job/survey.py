"""Looks through the output of a zarr job, block by block, for what a person wants to see."""

import math
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dasksolve.job import history, journal
from dasksolve.status import Status
from dasksolve.storage import buffers, groups, stores
from dasksolve.storage.internals import Region
from dasksolve.storage.source import Source
from dasksolve.storage.stores import OutputLocation

CELLS = 80
"""Cells of the map along a dimension of the batch, at most."""
NAMED = 100
"""Flagged systems that are named."""
DECADES = (-20, 0)
"""Powers of ten that a histogram spans; what is less counts as the least."""
_AHEAD, _AHEAD_BYTES = 64, 64 << 20
"""Blocks that are on their way at once from a store that is far away, and their bytes, at most."""


@dataclass(frozen=True)
class Histogram:
    """How many systems have a number of each size."""

    counts: NDArray[np.int64]
    """In each half of a decade, the smallest first."""
    zero: int
    """Systems whose number is exactly 0."""
    undefined: int
    """Systems whose number is NaN."""
    least: float
    """The smallest but 0; NaN if there is none."""
    largest: float
    """The largest; NaN if there is none."""

    @staticmethod
    def empty() -> "Histogram":
        """A histogram of no systems."""
        return Histogram(np.zeros(2 * (DECADES[1] - DECADES[0]), np.int64), 0, 0, np.nan, np.nan)

    def plus(self, values: NDArray[np.float64]) -> "Histogram":
        """This histogram with more numbers in it."""
        positive = values[values > 0]
        places = np.floor(2 * (np.log10(positive) - DECADES[0])).astype(np.int64)
        places = np.clip(places, 0, len(self.counts) - 1)
        return Histogram(
            self.counts + np.bincount(places, minlength=len(self.counts)),
            self.zero + int(np.count_nonzero(values == 0)),
            self.undefined + int(np.count_nonzero(np.isnan(values))),
            float(np.fmin.reduce(positive, initial=self.least)),
            float(np.fmax.reduce(positive, initial=self.largest)),
        )


@dataclass(frozen=True)
class Survey:
    """What there is to see in the output of a job."""

    location: str
    """Path or URL of the output."""
    job: dict[str, Any]
    """The journal's record of inputs and options."""
    runs: list[dict[str, Any]]
    """What is kept of the runs, the first one first."""
    regression: bool
    """Whether the job fitted series, and did not solve systems."""
    answers: str
    """Name of the array of answers."""
    shape: tuple[int, ...]
    """Shape of the array of answers."""
    dtype: str
    """The dtype of its numbers."""
    eps: float
    """The machine epsilon of that dtype."""
    names: tuple[str, ...]
    """Names of the dimensions of the batch."""
    batch_shape: tuple[int, ...]
    """Shape of the batch."""
    counts: dict[Status, int]
    """How many systems have each status."""
    flagged: tuple[tuple[int, ...], ...]
    """Places of some systems that are solved and not OK."""
    unread: int
    """Blocks that could not be read."""
    plane: tuple[int, int]
    """Extents of the first two dimensions of the batch; 1 before an only one."""
    maps: dict[Status, NDArray[np.int64]]
    """How many systems of each status but OK are in each cell of the plane."""
    cell: tuple[int, int]
    """Extent of a cell."""
    histograms: dict[str, Histogram]
    """Those of rcond and backward_error, if the job wrote them."""

    @property
    def unit(self) -> str:
        """What the batch consists of."""
        return "series" if self.regression else "systems"

    @property
    def all_ok(self) -> bool:
        """Every system is solved, and OK."""
        return self.counts[Status.OK] == math.prod(self.batch_shape)

    @property
    def flagged_count(self) -> int:
        """How many systems are solved and not OK."""
        return sum(n for status, n in self.counts.items() if status > Status.OK)

    @property
    def flagged_map(self) -> NDArray[np.int64]:
        """How many of them are in each cell of the plane."""
        flags = [cells for status, cells in self.maps.items() if status > Status.OK]
        return np.sum(flags, axis=0)

    def to_dict(self) -> dict[str, Any]:
        """Return what a program may want to know, ready for JSON."""
        grid = len(self.batch_shape) > 1
        systems = math.prod(self.batch_shape)
        values: dict[str, Any] = {
            "out": self.location,
            "systems": systems,
            "batch_shape": self.batch_shape,
            f"{self.answers}_shape": self.shape,
            "dtype": self.dtype,
            "counts": {status.name: n for status, n in self.counts.items()},
            "flagged": [place if grid else (*place, 0)[0] for place in self.flagged],
            "flagged_count": self.flagged_count,
            "blocks_damaged": self.unread,
        }
        for name, histogram in self.histograms.items():
            worst = "least" if name == "rcond" else "largest"
            number = getattr(histogram, worst)
            values[f"{worst}_{name}"] = None if math.isnan(number) else number
        return values | {"job": self.job, "runs": self.runs}


def survey(out: OutputLocation) -> Survey:
    """Read what a job wrote but its answers; a few blocks at a time are in memory."""
    store, location, record, group = journal.opened(out)
    regression = journal.is_regression(record)
    answers = "coef" if regression else "x"
    arrays = groups.arrays(store, (answers, "status"), location, ("rcond", "backward_error"))
    x, status = arrays.pop(answers), arrays["status"]
    _refuse_shapes(x, status, record, location)
    plane = _plane(status.shape, 1)
    cell = tuple(max(1, -(-n // CELLS)) for n in plane)
    shape = tuple(-(-n // c) for n, c in zip(plane, cell, strict=True))
    kinds: list[Status] = [status for status in Status if status is not Status.OK]
    maps = {status: np.zeros(shape, np.int64) for status in kinds}
    histograms = {name: Histogram.empty() for name in arrays if name != "status"}
    counts, unread = np.zeros(len(Status), np.int64), 0
    flagged: list[tuple[int, ...]] = []
    for block, read in read_ahead(arrays, _blocks(status.shape, status.chunks)):
        if read is None:
            unread += 1
            continue
        found = read.pop("status")
        known = np.clip(found, min(Status), max(Status))
        counts += np.bincount(known.reshape(-1) + 1, minlength=len(Status))
        origin = [s.start for s in block]
        if len(flagged) < NAMED:
            more = np.argwhere(found > Status.OK)[: NAMED - len(flagged)] + origin
            flagged += [tuple(place) for place in more.tolist()]
        for kind, cells in maps.items():
            here = known == kind
            if here.any():
                _add(cells, cell, here, origin)
        for name, values in read.items():
            histograms[name] = histograms[name].plus(values.reshape(-1))
    names = status.metadata.dimension_names or (None,) * status.ndim
    return Survey(
        location=location,
        job=record,
        runs=history.read(group),
        regression=regression,
        answers=answers,
        shape=x.shape,
        dtype=str(x.dtype),
        eps=float(np.finfo(x.dtype).eps),
        names=tuple(name or f"dimension {i}" for i, name in enumerate(names)),
        batch_shape=status.shape,
        counts=dict(zip(Status, counts.tolist(), strict=True)),
        flagged=tuple(flagged),
        unread=unread,
        plane=plane,
        maps=maps,
        cell=(cell[0], cell[1]),
        histograms=histograms,
    )


def _refuse_shapes(answers: Any, status: Any, record: journal.Record, location: str) -> None:
    """Refuse arrays that cannot be of the job that the record speaks of."""
    block = journal.block_shape(record, status.shape, location)
    extents = iter(answers.shape)  # `in` goes on where the last search ended
    if status.chunks != block or not all(n in extents for n in status.shape):
        raise journal.damaged(
            location,
            f"its blocks have shape {block}, its status shape {status.shape} in chunks of "
            f"{status.chunks}, its answers shape {answers.shape}",
        )


def _blocks(shape: tuple[int, ...], chunks: tuple[int, ...]) -> Iterator[Region]:
    ranges = (range(0, n, c) for n, c in zip(shape, chunks, strict=True))
    for starts in product(*ranges):
        stops = (min(s + c, n) for s, c, n in zip(starts, chunks, shape, strict=True))
        yield tuple(map(slice, starts, stops))


def read_ahead(
    arrays: dict[str, Any], blocks: Iterable[Region]
) -> Iterator[tuple[Region, dict[str, NDArray[Any]] | None]]:
    """Each block, and what is stored of it: None, where that is damaged.

    Of arrays that are far away, the next ones are on their way meanwhile.
    """

    # zarr itself takes five times as long for small blocks.
    sources = [Source.of(name, array) for name, array in arrays.items()]

    def read(block: Region) -> dict[str, NDArray[Any]] | None:
        part = tuple((s.start, s.stop) for s in block)
        try:
            with buffers.lent() as space:
                return {s.name: s.read(part, False, space)[0].copy() for s in sources}
        except Exception:  # the others are worth a look all the same
            return None

    size = sum(math.prod(array.chunks) * array.dtype.itemsize for array in arrays.values())
    far = stores.is_far(arrays["status"].store)
    ahead = max(1, min(_AHEAD, _AHEAD_BYTES // size)) if far else 1
    try:
        with ThreadPoolExecutor(ahead) as pool:
            waiting: deque[tuple[Region, Future[dict[str, NDArray[Any]] | None]]] = deque()
            for block in blocks:
                waiting.append((block, pool.submit(read, block)))
                if len(waiting) >= ahead:
                    first, found = waiting.popleft()
                    yield first, found.result()
            for first, found in waiting:
                yield first, found.result()
    finally:
        buffers.free_all()


def _plane(values: tuple[int, ...], missing: int) -> tuple[int, int]:
    """The first two of the values; `missing` in the place of those that there are not."""
    down, across = (missing, missing, *values)[-2:] if len(values) < 2 else values[:2]
    return down, across


def _add(
    cells: NDArray[np.int64], cell: tuple[int, ...], here: NDArray[np.bool_], origin: list[int]
) -> None:
    """Count the systems that are `here`, in a block at `origin`, into their cells."""
    plane = here.reshape(*_plane(here.shape, 1), -1).sum(axis=2, dtype=np.int64)
    places = []
    for axis, (start, step) in enumerate(zip(_plane(tuple(origin), 0), cell, strict=True)):
        begins = np.arange(start - start % step, start + plane.shape[axis], step)
        plane = np.add.reduceat(plane, np.maximum(begins - start, 0), axis)
        places.append(begins // step)
    cells[np.ix_(*places)] += plane
