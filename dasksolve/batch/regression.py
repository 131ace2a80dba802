"""Regressions of NumPy arrays: many series on one design, each on the observations that it has."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dasksolve import kernels
from dasksolve.batch import basis
from dasksolve.batch.arrays import as_observations, as_weights
from dasksolve.batch.careful import Series, solve_carefully
from dasksolve.batch.fit import Fit, FitOptions, describe
from dasksolve.batch.pieces import LANES, PIECE, in_threads, is_plain, pieces, thread_count
from dasksolve.batch.weights import checked_weights, narrowed, unusable_at, without_mask
from dasksolve.solution import Regression
from dasksolve.status import Status
from dasksolve.storage.conventions import Packing

STRIP = 512
"""Series that are read together where they lie side by side."""
Refuse = Callable[[tuple[int, ...]], None]
"""Is told where a weight is negative, and raises."""
RUN = 16 << 20
"""Bytes that the kernel is given at once where nothing is copied: it reads ahead."""


def regress(y: Any, design: Any, weights: Any, options: FitOptions, workers: int = 1) -> Regression:
    """Fit series held in memory; `dasksolve.regress` documents it."""
    threads = thread_count(workers)
    y = as_observations("y", y)
    fit = describe(y.shape, y.dtype, design, options)
    weights = checked_weights(as_weights(weights), fit)

    def refuse(place: tuple[int, ...]) -> None:
        raise ValueError(unusable_at(weights, place))

    return run(y, weights, fit, threads, refuse)


@dataclass(frozen=True)
class Found:
    """Arrays to be filled: coefficients as y lies, the others over the batch."""

    coef: NDArray[Any]
    stderr: NDArray[Any]
    rss: NDArray[Any]
    count: NDArray[np.int32]
    rcond: NDArray[np.float64]
    status: NDArray[np.int8]
    covariance: NDArray[Any]

    def flat(self) -> tuple[NDArray[Any], ...]:
        """As the kernel takes them."""
        return tuple(values.reshape(-1) for values in vars(self).values())


def unfilled(coef_shape: tuple[int, ...], batch: tuple[int, ...], n: int, fit: Fit) -> Found:
    """Memory for what is found of some series; none of them has a status yet."""
    return Found(
        coef=np.empty(coef_shape, fit.dtype),
        stderr=np.empty(coef_shape, fit.dtype),
        rss=np.empty(batch, fit.dtype),
        count=np.empty(batch, np.int32),
        rcond=np.empty(batch, np.float64),
        status=np.full(batch, Status.PENDING, np.int8),
        covariance=np.empty((*batch, n, n) if fit.covariance else (0,), fit.dtype),
    )


def run(
    y: NDArray[Any],
    weights: NDArray[Any],
    fit: Fit,
    threads: int = 1,
    refuse: Refuse | None = None,
    packing: Packing | None = None,
) -> Regression:
    """Fit every series; weights of (P,) or y's shape.

    refuse: what is called where a weight is negative; None: such a series is not finite.
    packing: how y is packed; it is unpacked piece by piece, in the cache.
    """
    weights = without_mask(weights)
    if y.ndim > 1 and y.flags.f_contiguous and not y.flags.c_contiguous:
        turned = replace(fit, shape=fit.shape[::-1], axis=y.ndim - 1 - fit.axis)
        again = refuse and (lambda place: refuse(place[::-1]))
        return _turned(run(y.T, weights.T, turned, threads, again, packing))
    if fit.shape[fit.axis] == 0:  # one that is missing is as good as none
        shape = (*fit.shape[: fit.axis], 1, *fit.shape[fit.axis + 1 :])
        y, weights, packing = np.full(shape, np.nan, fit.dtype), np.ones(1), None
        fit = replace(fit, shape=shape)
    found = unfilled(fit.coef_shape, fit.batch_shape, fit.n, fit)
    done = fit.series == 0 or (fit.fast and _run_fast(y, weights, fit, found, threads, packing))
    if not done or fit.on_deficient == "lstsq":
        _run_carefully(y, weights, fit, found, threads, refuse, packing)
    return as_regression(found, fit)


def as_regression(found: Found, fit: Fit) -> Regression:
    """The same, for people."""
    *values, covariance = vars(found).values()
    return Regression._make([*values, covariance if fit.covariance else None])


def _turned(found: Regression) -> Regression:
    *arrays, covariance = (None if values is None else values.T for values in found)
    if covariance is not None:
        covariance = np.moveaxis(covariance, (0, 1), (-1, -2))
    return Regression._make([*arrays, covariance])


Call = Callable[[NDArray[Any], NDArray[Any], bool, Found, int, int], None]


def _run_fast(
    y: NDArray[Any],
    weights: NDArray[Any],
    fit: Fit,
    found: Found,
    threads: int,
    packing: Packing | None,
) -> bool:
    """Fit by the fast kernel; return whether it left none."""
    below = math.prod(fit.shape[fit.axis + 1 :])
    fills = below >= LANES or (below == 1 and fit.series >= LANES)
    if fills and (weights.ndim == 1 or _is_ready(weights, fit.dtype)):
        if packing is None and _is_ready(y, fit.dtype):
            return _in_place(y, weights, fit, found, threads, _calling(fit, fit.dtype))
        if packing is not None and packing.numbers and _is_ready(y, y.dtype.newbyteorder("=")):
            call = _calling(fit, packing.stored, packing.numbers)
            return _in_place(y.view(packing.stored), weights, fit, found, threads, call)
    return _in_copies(y, weights, fit, found, threads, _calling(fit, fit.dtype), packing)


def _calling(
    fit: Fit, stored: np.dtype[Any], packing: tuple[float, float, float] = (np.nan, 1.0, -0.0)
) -> Call:
    """What calls the kernel for numbers that are stored so."""
    kernel = kernels.regressing(fit.n, fit.dtype, stored)
    constants = basis.table(fit.basis, fit.dtype), fit.basis.packed
    wanted = float(fit.min_count), fit.doubtful

    def call(
        y: NDArray[Any], w: NDArray[Any], along: bool, into: Found, start: int, stop: int
    ) -> None:
        flat = y.reshape(-1), packing, w.reshape(-1)
        kernel(*flat, w.ndim > 1, along, *constants, *wanted, *into.flat(), start, stop)

    return call


def _is_ready(values: NDArray[Any], dtype: np.dtype[Any]) -> bool:
    masked = isinstance(values, np.ma.MaskedArray)
    return not masked and values.dtype == dtype and is_plain(values)


def _size(fit: Fit, nbytes: int = PIECE) -> int:
    """Series in a piece of so many bytes."""
    size = nbytes // (len(fit.design) * fit.dtype.itemsize)
    return size // STRIP * STRIP or size // LANES * LANES or LANES


def _runs(fit: Fit, above: int, series: int, threads: int) -> Iterator[tuple[int, int, int]]:
    """Long runs of series, since the kernel reads ahead; short ones where the threads will end."""
    most, least = _size(fit, RUN), _size(fit)
    for a in range(above):
        start = 0
        while start < series:
            share = ((above - a) * series - start) // threads
            size = min(most, max(least, share // STRIP * STRIP))
            stop = start + size if start + size + STRIP <= series else series  # no rest alone
            yield a, start, stop
            start = stop


def _in_place(
    y: NDArray[Any], weights: NDArray[Any], fit: Fit, found: Found, threads: int, call: Call
) -> bool:
    """Hand y to the kernel as it lies: (A, P, B), where B is 1 or fills the lanes.

    Each thread looks at what it has found itself: to another one it is news of another cache.
    """
    observations, n = fit.shape[fit.axis], fit.n
    below = math.prod(fit.shape[fit.axis + 1 :])
    along = below == 1
    above, series = (1, fit.series) if along else (fit.series // below, below)
    y = y.reshape(above, -1)
    w = narrowed(weights, fit.dtype) if weights.ndim == 1 else weights.reshape(above, -1)
    coef, stderr = (values.reshape(above, n * series) for values in (found.coef, found.stderr))
    others = [
        values.reshape(above, series)
        for values in (found.rss, found.count, found.rcond, found.status)
    ]
    covariance = found.covariance.reshape(above, -1)
    left: list[int] = []

    def work(part: tuple[int, int, int]) -> None:
        a, start, stop = part
        rss, count, rcond, status = (values[a] for values in others)
        into = Found(coef[a], stderr[a], rss, count, rcond, status, covariance[a])
        own = w if weights.ndim == 1 else w[a].reshape(observations, series)
        call(y[a], own, along, into, start, stop)
        if status[start:stop].min() < Status.OK:
            left.append(start)

    in_threads(work, list(_runs(fit, above, series, threads)), threads)
    return not left


def _in_copies(
    y: NDArray[Any],
    weights: NDArray[Any],
    fit: Fit,
    found: Found,
    threads: int,
    call: Call,
    packing: Packing | None,
) -> bool:
    """Hand copies to the kernel, piece by piece, in the cache."""
    source = np.moveaxis(y, fit.axis, -1)
    own = weights if weights.ndim == 1 else np.moveaxis(weights, fit.axis, -1)
    steps = [abs(step) for step in source.strides]
    along = steps[-1] == min(steps)

    def work(part: tuple[tuple[Any, ...], slice]) -> None:
        index, flat = part
        given = padded(unpacked(source[index], packing), fit.dtype, along)
        w = narrowed(own if weights.ndim == 1 else own[index], fit.dtype)
        w = w if weights.ndim == 1 else padded(w, fit.dtype, along)
        count = given.shape[0 if along else 1]
        into = unfilled((count, fit.n) if along else (fit.n, count), (count,), fit.n, fit)
        call(given, w, along, into, 0, count)
        put(into, along, index, flat, fit, found)

    in_threads(work, list(pieces(fit.batch_shape, _size(fit))), threads)
    return bool(found.status.min() >= Status.OK)


def put(
    piece: Found, along: bool, index: tuple[Any, ...], flat: slice, fit: Fit, found: Found
) -> None:
    """Put what was found of a piece into its place; there may be more than has a place there."""
    count = flat.stop - flat.start
    for name in ("coef", "stderr"):
        place = np.moveaxis(getattr(found, name), fit.axis, -1)
        rows = getattr(piece, name) if along else getattr(piece, name).T
        place[index] = rows[:count].reshape(place[index].shape)
    for name in ("rss", "count", "rcond", "status"):
        getattr(found, name).reshape(-1)[flat] = getattr(piece, name)[:count]
    if fit.covariance:
        found.covariance.reshape(-1, fit.n, fit.n)[flat] = piece.covariance[:count]


def unpacked(values: NDArray[Any], packing: Packing | None) -> NDArray[Any]:
    """What packed numbers mean, in memory as they lie."""
    if packing is None:
        return values
    meant = np.empty_like(values, packing.dtype, subok=False)
    packing.unpack(values, meant)
    return meant


def padded(values: NDArray[Any], dtype: np.dtype[Any], along: bool) -> NDArray[Any]:
    """Series (..., P) as (M, P), or (P, M), what is masked as NaN; enough of them for the lanes."""
    values = filled(values, dtype)
    if along:
        flat = np.require(values, dtype, ["C", "A"]).reshape(-1, values.shape[-1])
    else:
        flat = np.require(np.moveaxis(values, -1, 0), dtype, ["C", "A"])
        flat = flat.reshape(values.shape[-1], -1)
    missing = max(0, LANES - flat.shape[0 if along else 1])
    wider = ((0, missing), (0, 0)) if along else ((0, 0), (0, missing))
    return np.pad(flat, wider, constant_values=np.nan) if missing else flat


def filled(values: Any, dtype: np.dtype[Any]) -> NDArray[Any]:
    """An array with NaN for what is masked."""
    if isinstance(values, np.ma.MaskedArray):
        return np.ma.filled(values.astype(dtype), np.nan)
    return np.asarray(values)


def _run_carefully(
    y: NDArray[Any],
    weights: NDArray[Any],
    fit: Fit,
    found: Found,
    threads: int,
    refuse: Refuse | None,
    packing: Packing | None,
) -> None:
    """Fit the series that the fast kernel left, and those without a unique answer."""
    left = left_over(found, fit)
    if not left.any():
        return
    source = np.moveaxis(y, fit.axis, -1)
    own = None if weights.ndim == 1 else np.moveaxis(weights, fit.axis, -1)

    def work(places: NDArray[np.intp]) -> None:
        index = np.unravel_index(places, fit.batch_shape) if fit.batch_shape else (None,)
        w = weights if own is None else own[index]
        values = unpacked(source[index], packing)
        series = Series(filled(values, np.dtype(float)), filled(w, np.dtype(float)))
        if refuse is not None and own is not None:
            negative = (series.weights < 0) & ~np.isnan(series.y)
            if negative.any():
                refuse(_first(negative, index, fit))
        take_care(series, index, fit, found)

    in_threads(work, list(careful_pieces(np.flatnonzero(left), fit)), threads)


def left_over(found: Found, fit: Fit) -> NDArray[np.bool_]:
    """The series that are to be fitted with care."""
    left = found.status == Status.PENDING
    if fit.on_deficient == "lstsq":
        left |= found.status == Status.TOO_FEW
    return left


@np.errstate(all="ignore")
def take_care(series: Series, index: tuple[Any, ...], fit: Fit, found: Found) -> None:
    """Fit some series with care; index: where they stand in the batch."""
    answer = solve_carefully(series, fit)
    for name in ("coef", "stderr"):
        np.moveaxis(getattr(found, name), fit.axis, -1)[index] = getattr(answer, name)
    for name in ("rss", "count", "rcond", "status"):
        getattr(found, name)[index] = getattr(answer, name)
    if fit.covariance:
        found.covariance[index] = answer.covariance


def _first(found: NDArray[np.bool_], index: tuple[Any, ...], fit: Fit) -> tuple[int, ...]:
    """Where in y it stands, of what is found in some series."""
    series, observation = np.argwhere(found)[0]
    place = [int(along[series]) for along in index]
    return (*place[: fit.axis], int(observation), *place[fit.axis :])


def careful_pieces(places: NDArray[np.intp], fit: Fit) -> Iterator[NDArray[np.intp]]:
    """As many at once as take a few pieces of memory."""
    size = max(LANES, PIECE // (8 * fit.design.size))
    for start in range(0, len(places), size):
        yield places[start : start + size]
