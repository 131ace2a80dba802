"""Regressions of many series on one design, each on the observations that it has; one in a lane.

A series that is not safely solved by `gram` is left PENDING.
"""

import numpy as np

from dasksolve.kernels.compiling.jit import jit
from dasksolve.kernels.language.lanes import any_lane, nothing, operation
from dasksolve.kernels.language.tiles import FIRST, lane_count, prefetch, tile
from dasksolve.kernels.language.values import Index, Variable, align_stack
from dasksolve.kernels.regression.answers import answered, put_covariance
from dasksolve.kernels.regression.gram import (
    Basis,
    accumulate,
    factored,
    largest_observation,
    residuals,
    solved,
)
from dasksolve.kernels.regression.observations import (
    STRIP,
    copy_lines,
    stage_across,
    stage_along,
    strip,
)


def asking(ahead, lanes):
    """A function that asks for one cache line after the other of what is read next.

    They stand `wide` in a row, and the rows `step` apart; the first is the one in `column`.
    """
    y, start, column, step, wide = ahead
    builder = start.builder
    place, column = Variable(start), Variable(column)

    def ask():
        here, following = (Index(builder, v.get().value) for v in (place, column))
        prefetch(y, here, FIRST)
        following = following + 1
        last = following == wide
        place.set(last.choose(here + step - (wide - 1) * lanes, here + lanes))
        column.set(last.choose(0, following))

    return ask


@operation(nothing)
def fit(design, t, s, ahead, sizes, n, along, wanted, found, first):
    """Fit the series of a tile, and write what is found; `s` gets what covariances need."""
    builder = t.builder
    align_stack(builder)
    (table, basis), (series, observations) = design, sizes
    basis, zero = Basis(basis, n), t.fill(0)
    g, count = accumulate(table, basis, t, observations, n, asking(ahead, zero.count))
    factors = factored(g, n)
    c = solved(factors, [g[(k,)] for k in range(n)], n)
    sums = residuals(table, t, observations, c, n)

    def largest(wanted):
        found = Variable(zero)
        with builder.if_then(any_lane(wanted).value):
            found.set(largest_observation(t, observations, zero))
        return found.get()

    place = series, along, first
    answered(basis, s, factors, c, (*sums, count, largest), n, wanted, found, place)


def kernel(n):
    """The kernel for n columns."""

    @jit
    def regress(
        y, packing, w, own, along, table, basis, min_count, threshold,
        coef, stderr, rss, count, rcond, status, covariance, start, stop,
    ):  # fmt: skip
        series, observations = len(rss), len(table) // (n + n * (n + 1) // 2)
        sizes, lanes = (series, observations), lane_count(rss)
        design, wanted = (table, basis), (min_count, threshold)
        found = (coef, stderr, rss, count, rcond, status)
        t = tile(observations, 2, rss.dtype, rss)
        s = tile(n + 2, n, rss.dtype, rss)
        most = 1 if along else max(8, min(32, STRIP // (observations * lanes * rss.itemsize)))
        room = 1 if along else observations * (most + 1) * lanes
        kept_y, kept_w = np.empty(2 * room, rss.dtype), np.empty(2 * room if own else 1, rss.dtype)
        tiles, left = strip(start, stop, most, lanes)
        if not along:
            copy_lines(y, packing, left, series, tiles, 0, observations * tiles, t, kept_y, 0)
            if own:
                copy_lines(w, packing, left, series, tiles, 0, observations * tiles, t, kept_w, 0)
        base = 0
        while tiles:
            following, beyond = strip(left + tiles * lanes, stop, most, lanes)
            lines, wide = observations * following, max(following, 1)
            for number in range(tiles):
                first = left + number * lanes
                if along:
                    stage_along(y, packing, w, own, first, observations, t)
                    ahead = (y, beyond * observations, 0, lanes, 1)
                else:
                    begin, end = lines * number // tiles, lines * (number + 1) // tiles
                    other = room - base
                    copy_lines(y, packing, beyond, series, following, begin, end, t, kept_y, other)
                    if own:
                        copy_lines(
                            w, packing, beyond, series, following, begin, end, t, kept_w, other
                        )
                    at = base + number * lanes
                    stage_across(kept_y, kept_w if own else w, own, at, tiles, observations, t)
                    row, column = divmod(end, wide)
                    place = beyond + row * series + column * lanes
                    ahead = (y, place, column, series, wide)
                fit(design, t, s, ahead, sizes, n, along, wanted, found, first)
                if len(covariance):
                    put_covariance(s, basis, covariance, first, n)
            tiles, left, base = following, beyond, room - base

    return regress
