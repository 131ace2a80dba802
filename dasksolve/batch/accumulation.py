"""Regressions of series whose observations come a part after the other: all of them, twice."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dasksolve import kernels
from dasksolve.batch import basis
from dasksolve.batch.careful import Series
from dasksolve.batch.fit import Fit
from dasksolve.batch.pieces import LANES, PIECE, in_threads, pieces
from dasksolve.batch.regression import (
    Found,
    as_regression,
    careful_pieces,
    filled,
    left_over,
    padded,
    put,
    take_care,
    unfilled,
    unpacked,
)
from dasksolve.batch.weights import narrowed
from dasksolve.solution import Regression
from dasksolve.storage.conventions import Packing


def state_bytes(fit: Fit, weighed: bool) -> int:
    """Bytes of what is kept of a series between its observations; has each of these a weight?"""
    numbers = fit.n * (fit.n + 1) // 2 + 2 * fit.n + 3
    waiting = kernels.BLOCK * (fit.dtype.itemsize + 8 * weighed)
    return numbers * fit.dtype.itemsize + waiting


class Accumulation:
    """Fits some series, of which no more than some observations are there at once.

    All are given to `add`, in their order, then again after `turn`. Series that are to be fitted
    with care are kept whole, at most `most` at once: while any are left, all are given to `keep`.
    The bits are those of `dasksolve.regress`.
    """

    def __init__(
        self,
        fit: Fit,
        shape: tuple[int, ...],
        rows: int,
        packing: Packing | None,
        most: int,
        threads: int = 1,
    ) -> None:
        """Shape: of all observations of these series; at most `rows` of them are there at once."""
        self.fit, self.packing, self.most = replace(fit, shape=shape), packing, most
        self.threads = threads
        self.kernels = kernels.adding(fit.n, fit.dtype)
        self.basis = fit.basis.packed
        size = max(LANES, PIECE // (rows * fit.dtype.itemsize) // LANES * LANES)
        self.pieces = list(pieces(self.fit.batch_shape, size))
        self.states = [self._begun(flat.stop - flat.start) for _, flat in self.pieces]
        self.waiting: list[NDArray[Any]] = []
        self.turned = False
        self.left: NDArray[np.bool_] = np.zeros(self.fit.series, bool)
        self.kept = np.empty(0, np.intp)
        self.y: NDArray[Any] | None = None
        self.weights: NDArray[Any] | None = None

    def _begun(self, series: int) -> NDArray[Any]:
        """The state of some series before their first observation: G is the ridge's."""
        places, lanes = self.kernels.places, self.kernels.lanes
        tiles = -(-max(series, LANES) // lanes)
        state = np.zeros((tiles, len(places), lanes), self.fit.dtype)
        for i in range(self.fit.n):
            for j in range(i + 1):
                state[:, places[i, j]] = self.fit.basis.shrinkage[i, j]
        return state

    def add(self, y: NDArray[Any], weights: NDArray[Any], start: int) -> None:
        """Take observations from `start` on; weights of their number, or of y's shape."""
        for part in self._in_blocks(y, weights, start):
            self._add(*part)
        if self.turned:
            self.keep(y, weights, start)

    def _in_blocks(
        self, y: NDArray[Any], weights: NDArray[Any], start: int
    ) -> Iterator[tuple[NDArray[Any], NDArray[Any], int]]:
        """The same in whole blocks, as kernels want them; what is left waits for what follows."""
        axis, ends = self.fit.axis, len(self.fit.design)
        count = y.shape[axis]
        stop, before = start + count, start % kernels.BLOCK
        first = min(count, -start % kernels.BLOCK)
        last = 0 if stop == ends else max(0, min(count - first, stop % kernels.BLOCK))

        def rows(values: NDArray[Any], begin: int, end: int) -> NDArray[Any]:
            along = axis if values.ndim > 1 else 0
            return values[(slice(None),) * along + (slice(begin, end),)]

        def wait(begin: int, end: int, at: int) -> None:
            if not self.waiting:  # once: as many again and again would leave holes in memory
                self.waiting = [
                    np.repeat(rows(values, 0, 1), kernels.BLOCK, axis if values.ndim > 1 else 0)
                    for values in (y, weights)
                ]
            for kept, values in zip(self.waiting, (y, weights), strict=True):
                rows(kept, at, at + end - begin)[:] = rows(values, begin, end)

        if before:
            wait(0, first, before)
            if before + first == kernels.BLOCK or stop == ends:
                whole = [rows(kept, 0, before + first) for kept in self.waiting]
                yield whole[0], whole[1], start - before
        if first < count - last:
            middle = (rows(values, first, count - last) for values in (y, weights))
            yield (*middle, start + first)
        if last:
            wait(count - last, count, 0)

    def _add(self, y: NDArray[Any], weights: NDArray[Any], start: int) -> None:
        source = np.moveaxis(y, self.fit.axis, -1)
        own = None if weights.ndim == 1 else np.moveaxis(weights, self.fit.axis, -1)
        rows = slice(start, start + source.shape[-1])
        table = basis.table(self.fit.basis, self.fit.dtype, rows)

        def work(part: tuple[Any, NDArray[Any]]) -> None:
            (index, _), state = part
            given = padded(unpacked(source[index], self.packing), self.fit.dtype, False)
            w = narrowed(weights if own is None else own[index], self.fit.dtype)
            w = w if own is None else padded(w, self.fit.dtype, False)
            self.kernels.add(
                given.reshape(-1),
                w.reshape(-1),
                own is not None,
                table,
                self.basis,
                state.reshape(-1),
                given.shape[1],
                self.turned,
            )

        in_threads(work, list(zip(self.pieces, self.states, strict=True)), self.threads)

    def turn(self) -> None:
        """Go from sums to residuals; choose those that will have to be fitted with care."""
        places, doubtful = self.kernels.places, []
        for (_, flat), state in zip(self.pieces, self.states, strict=True):
            series = flat.stop - flat.start
            padded_to = max(series, LANES)
            self.kernels.turn(self.basis, state.reshape(-1), padded_to, self.fit.doubtful)
            unsafe = state[:, places["rss"]] != 0
            count = state[:, places["count"]]
            if self.fit.on_deficient == "lstsq":
                unsafe |= count < self.fit.min_count
            else:
                unsafe &= count >= self.fit.min_count
            state[:, places["rss"]] = 0
            doubtful.append(flat.start + self._series(unsafe, padded_to)[:series].nonzero()[0])
        self.turned = True
        self._choose(np.concatenate(doubtful) if doubtful else self.kept)

    def _series(self, lanes: NDArray[Any], series: int) -> NDArray[Any]:
        """What stands in the lanes of tiles, the last of which overlaps the one before."""
        over = lanes.size - series
        return np.concatenate([lanes[:-1].reshape(-1), lanes[-1, over:]])

    def _choose(self, places: NDArray[np.intp]) -> None:
        """Series whose observations are kept from now on."""
        self.kept = places[: self.most]
        shape = (len(self.kept), len(self.fit.design))
        self.y, self.weights = np.empty(shape), np.ones(shape)

    def keep(self, y: NDArray[Any], weights: NDArray[Any], start: int) -> None:
        """Keep the observations of the series that are to be fitted with care."""
        if not self.kept.size:
            return
        assert self.y is not None
        assert self.weights is not None
        source = np.moveaxis(y, self.fit.axis, -1)
        rows = slice(start, start + source.shape[-1])
        index = self._index(self.kept)
        self.y[:, rows] = filled(unpacked(source[index], self.packing), np.dtype(float))
        own = weights if weights.ndim == 1 else np.moveaxis(weights, self.fit.axis, -1)[index]
        self.weights[:, rows] = own

    def _index(self, places: NDArray[np.intp]) -> tuple[Any, ...]:
        shape = self.fit.batch_shape
        return np.unravel_index(places, shape) if shape else (None,)

    def answers(self) -> Found:
        """What is found of all but those that are to be fitted with care."""
        fit = self.fit
        found = unfilled(fit.coef_shape, fit.batch_shape, fit.n, fit)
        for (index, flat), state in zip(self.pieces, self.states, strict=True):
            count = max(flat.stop - flat.start, LANES)
            piece = unfilled((fit.n, count), (count,), fit.n, fit)
            wanted = float(fit.min_count), fit.doubtful
            self.kernels.answer(self.basis, state.reshape(-1), False, *wanted, *piece.flat())
            put(piece, False, index, flat, fit, found)
        self.left = left_over(found, fit).reshape(-1)
        return found

    def care(self, found: Found) -> bool:
        """Fit those that are kept; return whether some are left, which are to be kept next."""
        assert self.y is not None
        assert self.weights is not None
        ours = np.flatnonzero(self.left[self.kept])
        for part in careful_pieces(ours, self.fit):
            series = Series(self.y[part], self.weights[part])
            take_care(series, self._index(self.kept[part]), self.fit, found)
        self.left[self.kept] = False
        places = np.flatnonzero(self.left)
        self._choose(places)
        return places.size > 0

    def regression(self, found: Found) -> Regression:
        """What is found, as `dasksolve.regress` gives it."""
        return as_regression(found, self.fit)
