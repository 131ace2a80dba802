"""The observations of series, and their weights, as tiles of one series a lane.

Where the series lie side by side, y (P, M), a strip of tiles is copied first: rows of 64 bytes, far
apart, would take twice the time to read. The next strip is copied while this one is worked on.
"""

import numpy as np

from dasksolve.kernels.compiling.jit import part
from dasksolve.kernels.language.lanes import nothing, operation, splat, where
from dasksolve.kernels.language.tiles import deal, lane_count

STRIP = 256 << 10
"""Bytes of a strip: in the second level of the cache."""


@operation(lambda array, index, t: t.lanes)
def lanes_at(array, index, t):
    """array.flat[index + l] in lane l."""
    return array.load(index, t.lanes.count)


class Packed:
    """Emitted access to an array of numbers, or of integers as the numbers that they mean."""

    parts = 1

    def __init__(self, array, packing, like):
        """packing: which integer is missing, what the others are multiplied by, what is added."""
        self.array, self.packing, self.like = array, packing, like

    def load(self, place, count):
        x = self.array.load(place, count)
        if not x.integer:
            return x
        x = x.as_numbers(self.like, self.array.lanes.dtype.signed)
        missing, scale, offset = (x.fill(number) for number in self.packing)
        return where(x == missing, x.fill(np.nan), x * scale + offset)


@operation(nothing)
def put_observation(t, i, y, w):
    """t[i] = y and its weight, 0 both where one is missing; NaN for a weight that is negative."""
    zero = y.fill(0)
    known = (y == y) & (w == w) & (w != zero)
    t[i, 0] = where(known, y, zero)
    t[i, 1] = where(known, where(w < zero, w.fill(np.nan), w), zero)


@operation(nothing)
def move(source, packing, start, target, place, t):
    """Copy a vector, unpacked."""
    target.store(place, Packed(source, packing, t.fill(0)).load(start, t.lanes.count))


@part
def copy_lines(values, packing, left, series, tiles, begin, end, t, kept, base):
    """Copy lines begin … end of a strip of values (P, M), which has `tiles` to a row."""
    lanes, (row, column) = lane_count(kept), divmod(begin, max(tiles, 1))
    for _ in range(begin, end):
        place = base + (row * (tiles + 1) + column) * lanes
        move(values, packing, left + row * series + column * lanes, kept, place, t)
        column += 1
        if column == tiles:
            row, column = row + 1, 0


@part
def stage_across(y, w, own, base, tiles, observations, t):
    """Read the observations of a tile from a strip."""
    lanes = lane_count(y)
    for i in range(observations):
        at = base + i * (tiles + 1) * lanes
        weights = lanes_at(w, at, t) if own else splat(w[i], t)
        put_observation(t, i, lanes_at(y, at, t), weights)


@operation(nothing)
def put_observations(y, packing, w, own, first, observations, i, length, t):
    """Observations i, i + 1, … from y (M, P)."""
    starts = [(first + lane) * observations + i for lane in range(t.lanes.count)]
    values = deal(Packed(y, packing, t.fill(0)), starts, length)
    weights = (
        deal(w, starts, length)
        if own
        else [t.fill(w.load(i + e, 1).lane(0)) for e in range(length)]
    )
    for e in range(length):
        put_observation(t, i + e, values[e], weights[e])


@part
def stage_along(y, packing, w, own, first, observations, t):
    """Read the observations of a tile from y (M, P)."""
    if observations < 8:
        for i in range(observations):
            if own:
                put_observations(y, packing, w, True, first, observations, i, 1, t)
            else:
                put_observations(y, packing, w, False, first, observations, i, 1, t)
        return
    for start in range(0, observations, 8):
        i = min(start, observations - 8)
        if own:
            put_observations(y, packing, w, True, first, observations, i, 8, t)
        else:
            put_observations(y, packing, w, False, first, observations, i, 8, t)


@part
def strip(place, stop, most, lanes):
    """How many tiles the strip has that begins with a series, and where: the last may overlap."""
    left = stop - place
    if left <= 0:
        return 0, place
    return max(1, min(most, left // lanes)), place if left >= lanes else stop - lanes
