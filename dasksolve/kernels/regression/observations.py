"""The observations of series, and their weights, as tiles of one series a lane.

Where the series lie side by side, y (P, M), a strip of tiles is copied first: rows of 64 bytes, far
apart, would take twice the time to read. The next strip is copied while this one is worked on.
Where registers are few it is a tile, if the cache holds its rows, which are asked for while the one
before is worked on: that takes 0.8 to 0.9 of the time.
"""

import numpy as np

from dasksolve.kernels.compiling.jit import part
from dasksolve.kernels.language.control import Variable
from dasksolve.kernels.language.lanes import nothing, operation, splat, where
from dasksolve.kernels.language.prefetching import SECOND, prefetch
from dasksolve.kernels.language.target import FEW_REGISTERS
from dasksolve.kernels.language.transposition import deal
from dasksolve.kernels.language.values import Index
from dasksolve.kernels.regression.sums import lane_count

STRIP = (128 if FEW_REGISTERS else 256) << 10
"""Bytes of a strip: in the second level of the cache."""
SETS = 1024
"""Those that its lines fall in, by their addresses."""


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


def prepared(w):
    """Weights as they are kept: a negative one spoils all sums."""
    return where(w < w.fill(0), w.fill(-np.inf), w)


class Observations:
    """Emitted access to the observations of a tile of series: in a column each of two tiles."""

    def __init__(self, y, weights, scratch, own, weighed, row=0, column=0):
        """Row and column: of the first one; and of its weight, if each series has its `own`.

        scratch: tiles for what does not stay in registers; weighed: whether any weight is not 1.
        """
        self.y, self.weights, self.place, self.weighed = y, weights, (row, column), weighed
        self.of_weight = tuple((own == 1).choose(x, 0) for x in self.place)
        self.builder, self.fill, (self.spare, self.sums, self.rows) = y.builder, y.fill, scratch

    def __getitem__(self, i):
        """Observation i; NaN where it is missing, or its weight is."""
        return self.y[self.place[0] + i, self.place[1]]

    def weight(self, i):
        """Its weight."""
        return self.weights[self.of_weight[0] + i, self.of_weight[1]]


class Lines:
    """Emitted walk over the vectors of a strip, and where it begins."""

    def __init__(self, lanes, start, row, column, wide, step):
        """wide, step: how many vectors stand in a row, and how many numbers apart the rows are."""
        self.builder, self.wide, self.step, self.lanes = start.builder, wide, step, lanes
        self.place = [Variable(index) for index in (start, row, column)]

    def following(self):
        """The place of a vector, its row and its column; next time, those of the next."""
        start, row, column = (Index(self.builder, v.get().value) for v in self.place)
        last = column + 1 == self.wide
        beyond = start + self.step - (self.wide - 1) * self.lanes
        self.place[0].set(last.choose(beyond, start + self.lanes))
        self.place[1].set(last.choose(row + 1, row))
        self.place[2].set(last.choose(0, column + 1))
        return start, row, column


def asking(ahead, lanes, level=SECOND):
    """A function that asks for one vector after the other of what is read next."""
    y, *lines = ahead
    walk = Lines(lanes, *lines)
    return lambda _=None: prefetch(y, walk.following()[0], level)


def copying(following, kept, weights):
    """A function of a number that copies one vector of the next strip, while there are any."""
    y, packing, w, own, count, *lines = following
    walk = Lines(kept.lanes.count, *lines)
    builder = kept.builder

    def copy(i):
        with builder.if_then((i < count).value):
            place = walk.following()
            with builder.if_else((own == 1).value) as (weighed, alone):
                with weighed:
                    put_weighed(y, packing, w, *place, kept, weights)
                with alone:
                    put_observation(y, packing, *place, kept)

    return copy


@operation(nothing)
def put_observation(y, packing, start, row, column, kept):
    """kept[row, column] = a vector of y, unpacked."""
    kept[row, column] = Packed(y, packing, kept.fill(0)).load(start, kept.lanes.count)


@operation(nothing)
def put_weighed(y, packing, w, start, row, column, kept, weights):
    """Likewise, and of weights: one of 0, or NaN, leaves the observation out."""
    y = Packed(y, packing, kept.fill(0)).load(start, kept.lanes.count)
    keep(y, w.load(start, kept.lanes.count), (row, column), kept, weights)


def keep(y, w, place, kept, weights):
    """Put observations, and their weights, in a place of two tiles."""
    zero = w.fill(0)
    kept[place] = where((w < zero) | (w > zero), y, w.fill(np.nan))
    weights[place] = prepared(w)


@operation(nothing)
def spread_weight(w, i, weights):
    """weights[i, 0] = one weight for all series."""
    weights[i, 0] = prepared(weights.fill(w.load(i, 1).lane(0)))


@part
def spread_weights(w, observations, weights):
    """Weights of all series, in the first column; return whether any is not 1."""
    weighed = 0
    for i in range(observations):
        spread_weight(w, i, weights)
        if w[i] != 1:
            weighed = 1
    return weighed


@part
def leave_out(w, observations, kept, row, column):
    """Put NaN for the observations whose weight for all series is 0, or NaN."""
    for i in range(observations):
        if not (w[i] < 0 or w[i] > 0):
            kept[row + i, column] = splat(np.nan, kept)


@part
def pad(kept, observations, rows, columns):
    """Fill the last block of observations with missing ones."""
    for i in range(observations, rows):
        for column in range(columns):
            kept[i, column] = splat(np.nan, kept)


@part
def stage_across(y, packing, w, own, first, series, tiles, observations, kept, weights):
    """Copy a strip of y (P, M)."""
    lanes = lane_count(kept)
    for i in range(observations):
        for column in range(tiles):
            start = i * series + first + column * lanes
            if own:
                put_weighed(y, packing, w, start, i, column, kept, weights)
            else:
                put_observation(y, packing, start, i, column, kept)


@part
def stage_lines(following, kept, weights):
    """Copy some vectors of the next strip, row by row: what `copying` does where registers are few.

    There it would drive sums out of them, one vector for each observation.
    """
    y, packing, w, own, count, start, row, column, wide, series = following
    lanes = lane_count(kept)
    while count > 0:
        many = min(wide - column, count)
        for c in range(many):
            if own:
                put_weighed(y, packing, w, start + c * lanes, row, column + c, kept, weights)
            else:
                put_observation(y, packing, start + c * lanes, row, column + c, kept)
        count -= many
        start += series - column * lanes
        row += 1
        column = 0


@operation(nothing)
def put_observations(y, packing, w, own, first, observations, i, length, kept, weights):
    """Observations i, i + 1, … from y (M, P)."""
    starts = [(first + lane) * observations + i for lane in range(kept.lanes.count)]
    dealt = deal(Packed(y, packing, kept.fill(0)), starts, length)
    if own:
        for e, (x, of_x) in enumerate(zip(dealt, deal(w, starts, length), strict=True)):
            keep(x, of_x, (i + e, 0), kept, weights)
        return
    for e, x in enumerate(dealt):
        kept[i + e, 0] = x


@part
def stage_along(y, packing, w, own, first, observations, kept, weights):
    """Copy a tile of y (M, P)."""
    if observations < 8:
        for i in range(observations):
            if own:
                put_observations(y, packing, w, True, first, observations, i, 1, kept, weights)
            else:
                put_observations(y, packing, w, False, first, observations, i, 1, kept, weights)
        return
    for start in range(0, observations, 8):
        i = min(start, observations - 8)
        if own:
            put_observations(y, packing, w, True, first, observations, i, 8, kept, weights)
        else:
            put_observations(y, packing, w, False, first, observations, i, 8, kept, weights)


@part
def strip(place, stop, most, lanes):
    """How many tiles the strip has that begins with a series, and where: the last may overlap."""
    left = stop - place
    if left <= 0:
        return 0, place
    return max(1, min(most, left // lanes)), place if left >= lanes else stop - lanes


@part
def lines_held(step):
    """How many lines, so many bytes apart, stay in the cache: two in each set that they fall in.

    A power of two is the worst: N = 6 takes a third longer tile by tile where all fall in a few.
    """
    return 2 * (SETS * 64) // max(64, step & -step)
