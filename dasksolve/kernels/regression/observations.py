"""The observations of series, and their weights, as tiles of one series a lane.

Where the series lie side by side, y (P, M), a strip of tiles is copied first: rows of 64 bytes, far
apart, would take twice the time to read. The next strip is copied while this one is worked on.
"""

import numpy as np

from dasksolve.kernels.compiling.jit import holder, part
from dasksolve.kernels.language.control import Variable, loop, overwriting
from dasksolve.kernels.language.lanes import nothing, operation, where
from dasksolve.kernels.language.prefetching import SECOND, prefetch
from dasksolve.kernels.language.target import FEW_REGISTERS
from dasksolve.kernels.language.transposition import deal
from dasksolve.kernels.language.values import Index
from dasksolve.kernels.regression.gram import lane_count, tile

STRIP = (128 if FEW_REGISTERS else 256) << 10
"""Bytes of a strip: in the second level of the cache."""


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
    """Weights as they are kept: NaN leaves an observation out; a negative one spoils all sums."""
    zero = w.fill(0)
    return where(w < zero, w.fill(-np.inf), where(w == zero, w.fill(np.nan), w))


class Observations:
    """Emitted access to the observations of a tile of series: in a column each of two tiles."""

    def __init__(self, y, weights, spare, own, row=0, column=0):
        """Row and column: of the first one; and of its weight, if each series has its `own`.

        spare: a tile for what does not stay in registers where these are few.
        """
        self.y, self.weights, self.place, self.own = y, weights, (row, column), own
        self.weight = tuple(own.choose(x, 0) for x in self.place)
        self.builder, self.fill, (self.used, self.sums) = y.builder, y.fill, spare

    def __getitem__(self, i):
        """Observation i, its weight, and where there are both."""
        y = self.y[self.place[0] + i, self.place[1]]
        w = self.weights[self.weight[0] + i, self.weight[1]]
        return y, w, (y == y) & (w == w)

    def mask(self, observations, then=lambda *_: None):
        """Put 0 for each observation and weight of which the other is missing, or it itself.

        then: is called with the number of each, the weight, its product, and where both were there.
        """

        def put(i, y, w):
            known = (y == y) & (w == w)
            y, w = (where(known, x, x.fill(0)) for x in (y, w))
            self.y[self.place[0] + i, self.place[1]] = overwriting(y)
            self.used[i, 0] = w
            then(i, w, w * y, known)

        with self.builder.if_else(self.own.value) as (yes, no):
            with yes, loop(self.builder, 0, observations) as i:
                y, w, _ = self[i]
                put(i, y, w)
            with no, loop(self.builder, 0, observations) as i:
                y, _, _ = self[i]
                put(i, y, self.fill(self.weights.load(i, 1).lane(0)))

    def masked(self, i):
        """Observation i and its weight after `mask`."""
        return self.y[self.place[0] + i, self.place[1]], self.used[i, 0]

    def weigh(self, i, weighted):
        """Put something in place of that weight."""
        self.used[i, 0] = weighted


@holder
def spare_tiles(observations, n, like):
    """What `Observations` has to spare: for weights, and for the sums that are taken of them."""
    rows = observations if FEW_REGISTERS else 1
    return tile(rows, 1, like.dtype, like), tile(n + n * (n + 1) // 2, 1, like.dtype, like)


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


def asking(ahead, lanes):
    """A function that asks for one vector after the other of what is read next."""
    y, *lines = ahead
    walk = Lines(lanes, *lines)
    return lambda: prefetch(y, walk.following()[0], SECOND)


def copying(following, kept, weights):
    """A function of a number that copies one vector of the next strip, while there are any."""
    y, packing, w, own, count, *lines = following
    walk = Lines(kept.lanes.count, *lines)
    builder = kept.builder

    def copy(i):
        with builder.if_then((i < count).value):
            place = walk.following()
            put_observation(y, packing, *place, kept)
            with builder.if_then((own == 1).value):
                put_weight(w, *place, weights)

    return copy


@operation(nothing)
def put_observation(y, packing, start, row, column, kept):
    """kept[row, column] = a vector of y, unpacked."""
    kept[row, column] = Packed(y, packing, kept.fill(0)).load(start, kept.lanes.count)


@operation(nothing)
def put_weight(w, start, row, column, weights):
    """Likewise of weights."""
    weights[row, column] = prepared(w.load(start, weights.lanes.count))


@operation(nothing)
def spread_weight(w, i, weights):
    """One weight for all series: weights[i, 0], or a number where few registers are loaded so."""
    x = prepared(weights.fill(w.load(i, 1).lane(0)))
    if FEW_REGISTERS:
        weights.put_number(i, x.lane(0))
    else:
        weights[i, 0] = x


@part
def spread_weights(w, observations, weights):
    """Weights of all series, in the first column."""
    for i in range(observations):
        spread_weight(w, i, weights)


@part
def stage_across(y, packing, w, own, first, series, tiles, observations, kept, weights):
    """Copy a strip of y (P, M)."""
    lanes = lane_count(kept)
    for i in range(observations):
        for column in range(tiles):
            start = i * series + first + column * lanes
            put_observation(y, packing, start, i, column, kept)
            if own:
                put_weight(w, start, i, column, weights)


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
            put_observation(y, packing, start + c * lanes, row, column + c, kept)
            if own:
                put_weight(w, start + c * lanes, row, column + c, weights)
        count -= many
        start += series - column * lanes
        row += 1
        column = 0


@operation(nothing)
def put_observations(y, packing, w, own, first, observations, i, length, kept, weights):
    """Observations i, i + 1, … from y (M, P)."""
    starts = [(first + lane) * observations + i for lane in range(kept.lanes.count)]
    for e, x in enumerate(deal(Packed(y, packing, kept.fill(0)), starts, length)):
        kept[i + e, 0] = x
    if own:
        for e, x in enumerate(deal(w, starts, length)):
            weights[i + e, 0] = prepared(x)


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
