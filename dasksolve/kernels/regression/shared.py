"""Regressions of many series on one design, each on the observations that it has; one in a lane.

A series that is not safely solved by `gram` is left PENDING.
"""

from dasksolve.kernels.compiling.jit import jit, named, part
from dasksolve.kernels.language.control import Variable, align_stack
from dasksolve.kernels.language.lanes import any_lane, nothing, operation
from dasksolve.kernels.language.prefetching import FIRST
from dasksolve.kernels.language.target import FEW_REGISTERS
from dasksolve.kernels.regression.answers import (
    Observed,
    Place,
    Wanted,
    answered,
    ask_to_write,
    put_covariance,
)
from dasksolve.kernels.regression.gram import Basis, factored, solved
from dasksolve.kernels.regression.observations import (
    STRIP,
    Observations,
    asking,
    copying,
    leave_out,
    lines_held,
    pad,
    spread_weights,
    stage_across,
    stage_along,
    stage_lines,
    strip,
)
from dasksolve.kernels.regression.sums import (
    BLOCK,
    accumulate,
    fill_shares,
    lane_count,
    largest_observation,
    residuals,
    tile,
    tiles_for,
)


@operation(nothing)
def fit(design, kept, weights, scratch, at, s, meanwhile, n, sizes, wanted, found, along, first):
    """Fit the series of a tile, and write what is found; `s` gets what covariances need.

    design: its table, basis and shares, and whether these are filled; at: where the observations
    are kept, whether their weights are, too, and whether any is not 1; meanwhile: what is asked
    for, and what is copied, as `asking` and `copying` take them.
    """
    builder = kept.builder
    align_stack(builder)
    (table, basis, shares, looked_up), (series, observations) = design, sizes
    (row, column, own, weighed), (ahead, copied) = at, meanwhile
    basis, zero = Basis(basis, n), kept.fill(0)
    t = Observations(kept, weights, scratch, own, weighed, row, column)
    design, place = (table, basis, shares, looked_up), Place(series, along, first)
    if FEW_REGISTERS:
        ask_to_write(found[:2], n, place, zero.count)
    g, count = accumulate(design, t, observations, n, asking(ahead, zero.count))
    factors = factored(g, n)
    c = solved(factors, [g[(k,)] for k in range(n)], n)
    if FEW_REGISTERS:
        y, *_, start, next_row, next_column, wide, step = copied
        then = asking((y, start, next_row, next_column, wide, step), zero.count, FIRST)
    else:
        then = copying(copied, kept, weights)
    rss, gradient = residuals(table, t, observations, c, n, then)

    def largest(wanted):
        found = Variable(zero)
        with builder.if_then(any_lane(wanted).value):
            found.set(largest_observation(t, observations, zero))
        return found.get()

    observed = Observed(rss, gradient, count, largest)
    answered(basis, s, factors, c, observed, Wanted(*wanted), found, place)


def fitting(n):
    """The part that fits series on n columns, one tile after the other."""

    @part
    def fit_all(
        given, own, along, design, wanted, found, covariance, kept, weights, scratch, s, most, ends
    ):
        """Fit the series start … stop, tile by tile."""
        y, packing, w = given
        table, basis, shares, looked_up = design
        rss, (start, stop) = found[2], ends
        series, lanes = len(rss), lane_count(rss)
        observations = len(y) // series
        rows = -(-observations // BLOCK) * BLOCK
        sizes, weighed = (series, observations), 1
        if not own:
            weighed = spread_weights(w, observations, weights)
            if looked_up:
                fill_shares(table, basis, weights, shares, observations, n)
        tiles, left = strip(start, stop, most, lanes)
        if most > 1:
            stage_across(y, packing, w, own, left, series, tiles, observations, kept, weights)
        room = shared = 0
        if most == 1 and not along and stop - start > 8 * lanes:  # then tiles begin with a line
            shared = (y.ctypes.data // y.itemsize + start) % lanes
        while tiles:
            following, beyond = strip(left + tiles * lanes - shared, stop, most, lanes)
            shared = 0
            lines, wide, other = observations * following, max(following, 1), rows - room
            for number in range(tiles):
                first = left + number * lanes
                if most == 1:
                    if along:
                        stage_along(y, packing, w, own, first, observations, kept, weights)
                        place, step = beyond * observations, lanes
                    else:
                        stage_across(
                            y, packing, w, own, first, series, 1, observations, kept, weights
                        )
                        place, step = beyond + lanes - 1, series  # the rest of a line has come
                    at = (0, 0, own, weighed)
                    copied = (y, packing, w, own, 0, place, 0, 0, 1, step)
                    ahead = (y, place, 0, 0, 1, step)
                else:
                    at = (room, number, own, weighed)
                    begin, end = lines * number // tiles, lines * (number + 1) // tiles
                    row, column = divmod(begin, wide)
                    place = beyond + row * series + column * lanes
                    copied = (
                        y, packing, w, own, end - begin, place, other + row, column, wide, series
                    )  # fmt: skip
                    row, column = divmod(end, wide)
                    place = beyond + row * series + column * lanes
                    ahead = (y, place, row, column, wide, series)
                if weighed and not own:
                    leave_out(w, observations, kept, at[0], at[1])
                meanwhile = (ahead, copied)
                fit(
                    design, kept, weights, scratch, at, s, meanwhile, n, sizes, wanted, found,
                    along, first,
                )  # fmt: skip
                if FEW_REGISTERS:
                    stage_lines(copied, kept, weights)
                if len(covariance):
                    put_covariance(s, basis, covariance, first, n)
            tiles, left, room = following, beyond, other

    return fit_all


def kernel(n):
    """The kernel for n columns."""
    fit_all, (scratch_for, room_for) = fitting(n), tiles_for(n)

    def regress(
        y, packing, w, own, along, table, basis, min_count, threshold,
        coef, stderr, rss, count, rcond, status, covariance, start, stop,
    ):  # fmt: skip
        observations = len(y) // len(rss)
        height = -(-observations // BLOCK) * BLOCK
        room = height * lane_count(rss) * rss.itemsize
        single = FEW_REGISTERS and lines_held(len(rss) * y.itemsize) >= observations
        most = 1 if along or single else max(8, min(32, STRIP // room))
        rows, span = min(most, 2) * height, most | 1  # odd: no sets of cache shared
        kept = tile(rows, span, rss.dtype, rss)
        for top in range(0, rows, height):
            pad(kept, top + observations, top + height, span)
        weights = tile(rows if own else height, span if own else 1, rss.dtype, rss)
        scratch = scratch_for(height, rss)
        shares, looked_up = room_for(height, 0 if own else stop - start, rss)
        s = tile(n + 3, n, rss.dtype, rss)
        fit_all(
            (y, packing, w), own, along, (table, basis, shares, looked_up),
            (min_count, threshold, int(len(covariance) > 0)),
            (coef, stderr, rss, count, rcond, status), covariance,
            kept, weights, scratch, s, most, (start, stop),
        )  # fmt: skip

    return jit(named(regress, f"regress.{n}"))
