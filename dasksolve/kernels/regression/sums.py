"""The sums over the observations of a tile of series: `gram` says what of.

Each is taken in the order of the observations, so that its bits depend on no other series. Of G,
what four of them add is summed first: series of the same weights have 16 such shares in common, one
for each choice of the observations that they may have, and look them up (the method of the four
Russians: Arlazarov, Dinic, Kronrod and Faradzhev, 1970).
"""

from functools import partial

from numba import types

from dasksolve.kernels.compiling.jit import holder
from dasksolve.kernels.language.control import Variable, empty_registers, loop
from dasksolve.kernels.language.lanes import fma, fnma, nothing, operation, where, width
from dasksolve.kernels.language.target import FEW_REGISTERS, VECTOR_BYTES
from dasksolve.kernels.language.tiles import tiles_of
from dasksolve.kernels.language.transposition import collect, deal
from dasksolve.kernels.language.values import INDEX, Index
from dasksolve.kernels.regression.gram import Basis, pairs

TOGETHER = 24 if VECTOR_BYTES == 64 else 12
"""Registers of sums that stay while the observations pass, beside what they are made of."""
REGISTERS = 2 if FEW_REGISTERS else 1
"""Those that the series of a tile fill."""
BLOCK = 4
"""Observations whose share of G is summed first, and residuals that are computed side by side."""
CHOICES = 2**BLOCK
COUNTED = 20
"""Bits of a share's place; their number stands above."""
CHUNK = 8 << 10
"""Bytes of products that are gone through at once: a quarter of the first cache."""
LOOKED_UP = 4 << 20
"""Bytes of shares up to which it is faster to look them up, or no slower: they stay in a cache."""
ENOUGH = 16
"""Series from which on shares are worth their making."""


def lanes(dtype):
    """How many series there are in a tile."""
    return REGISTERS * width(dtype)


tile, lane_count = tiles_of(lanes)


def row_length(n, dtype):
    """Numbers in a row of products, one for each of the `pairs`: whole vectors."""
    return -(-len(pairs(n)) // width(dtype)) * width(dtype)


def pieces(count, registers=REGISTERS):
    """Cut 0 … count into as few pieces of one length as stay in registers: how many, how long."""
    many = -(-count // (TOGETHER // registers))
    return many, -(-count // many)


def in_blocks(observations):
    """How many observations whole blocks have."""
    return (observations + (BLOCK - 1)) // BLOCK * BLOCK


def pieces_of_g(n):
    """The same of the elements of G, whose shares are in registers, too."""
    return pieces(len(pairs(n)), 2 * REGISTERS)


@operation(lambda array, n: types.UniTuple(types.intp, 2))
def scratch_rows(array, n):
    """Of the tiles for sums, by element and by series."""
    dtype, builder = array.lanes.dtype, array.builder
    many, wide = pieces_of_g(n)
    return tuple(Index(builder, INDEX(rows)) for rows in (many * wide, row_length(n, dtype)))


def tiles_for(n):
    """What makes `Observations` their scratch, and what makes room for `fill_shares`."""

    @holder
    def scratch(observations, like):
        """For choices and weighed residuals; for sums by element, and by series."""
        by_element, by_series = scratch_rows(like, n)
        return (
            tile(observations, 1, like.dtype, like),
            tile(by_element, 1, like.dtype, like),
            tile(by_series, 1, like.dtype, like),
        )

    @holder
    def room(observations, series, like):
        """And 1; or none, and 0, where shares are not to be looked up."""
        numbers = (observations // BLOCK * CHOICES + 1) * scratch_rows(like, n)[1]
        if series < ENOUGH or numbers * like.itemsize > LOOKED_UP:
            numbers = 0
        return tile(-(-numbers // lane_count(like)), 1, like.dtype, like), int(numbers > 0)

    return scratch, room


class Table:
    """Emitted access to q, and behind it to the products of each two elements of a row."""

    def __init__(self, array, observations, n):
        self.array, self.n, self.behind = array, n, in_blocks(observations) * n
        self.length = row_length(n, array.lanes.dtype)

    def q(self, i, k):
        return self.array.load(i * self.n + k, 1).lane(0)

    def products(self, i, e, count=1):
        return self.array.load(self.behind + i * self.length + e, count)


@operation(nothing)
def fill_shares(table, basis, weights, shares, observations, n):
    """What G begins with, then what each choice from each block of observations adds to it."""
    table, basis = Table(table, observations, n), Basis(basis, n)
    count, length = width(shares.lanes.dtype), table.length
    zero = table.products(0, 0, count).fill(0)
    for e in range(0, length, count):
        shares.store(e, zero)
    for e, place in enumerate(pairs(n)):
        shares.put_number(e, zero.fill(basis.ridge(*place)).lane(0))
    with (
        loop(shares.builder, 0, in_blocks(observations) // BLOCK) as block,
        loop(shares.builder, 0, length // count) as part,
    ):
        sums = [zero]
        for i in (block * BLOCK + row for row in range(BLOCK)):
            w = weights.load(weights.offset(i, 0), count)
            x = table.products(i, part * count, count)
            sums += [fma(x, w, total) for total in sums]
        for choice, total in enumerate(sums):
            shares.store(((block * CHOICES + choice) + 1) * length + part * count, total, count)


def either_way(t, emit):
    """Emit for weights that all are 1, and for others; emit(weigh): weigh(i, x) is w x."""
    with t.builder.if_else((t.weighed == 0).value) as (without, with_weights):
        with without:
            emit(lambda _, x: x)
        with with_weights:
            emit(lambda i, x: t.weight(i) * x)


class Choices:
    """Emitted: which observations of a block each series has, as the place of their share."""

    def __init__(self, t, length):
        self.t, self.length, self.none = t, length, t.fill(0).bits.fill(0)
        self.count = Variable(self.none)

    def choose(self, block, meanwhile=lambda i, y, known: None):
        """Write down those of a block; meanwhile is called with each observation."""
        choice = self.none
        for row in range(BLOCK):
            i = block * BLOCK + row
            y = self.t[i]
            known = y == y
            place = self.none.fill((1 << COUNTED) + (self.length << row))
            choice = choice + where(known, place, self.none)
            meanwhile(i, y, known)
        self.count.set(self.count.get() + (choice >> COUNTED))
        self.t.spare[block, 0] = choice.low(COUNTED).numbers(self.t.fill(0))

    def counted(self):
        """How many observations each series has."""
        return self.count.get().as_numbers(self.t.fill(0), True)


def right_side(table, t, blocks, begun, meanwhile):
    """b, and the number of observations; their choices are written down."""
    zero, choices, b = t.fill(0), Choices(t, table.length), [Variable(x) for x in begun]
    _, wide = pieces(len(b))
    at_once = len(b) * REGISTERS <= TOGETHER // 2  # else there are not enough for both

    def emit(weigh, start):
        def add(i, y, known):
            product = where(known, weigh(i, y), zero)
            for k in range(start, min(start + wide, len(b))):
                b[k].set(fma(t.fill(table.q(i, k)), product, b[k].get()))
            if start == 0:
                meanwhile()

        if at_once:
            with loop(t.builder, 0, blocks) as block:
                choices.choose(block, add)
            return
        with loop(t.builder, 0, blocks * BLOCK) as i:
            y = t[i]
            add(i, y, y == y)

    if not at_once:
        with loop(t.builder, 0, blocks) as block:
            choices.choose(block)
    for start in range(0, len(b), wide):
        either_way(t, partial(emit, start=start))
    return [total.get() for total in b], choices.counted()


def accumulate(design, t, observations, n, meanwhile, begun=None):
    """G and b over the observations, and their number; or on with those that are begun.

    meanwhile: what is emitted besides for each of them.
    """
    table, basis, shares, looked_up = design
    zero, table = t.fill(0), Table(table, observations, n)
    blocks, builder = in_blocks(observations) // BLOCK, t.builder
    b = [zero if begun is None else begun[(k,)] for k in range(n)]
    b, count = right_side(table, t, blocks, b, meanwhile)
    if begun is not None:
        count = begun["count"] + count
    of_g = {p: t.fill(basis.ridge(*p)) if begun is None else begun[p] for p in pairs(n)}
    with builder.if_else((looked_up == 1).value) as (yes, no):
        with yes:
            look_up(shares, t, blocks, n, begun and of_g)
        with no:
            add_up(table, t, blocks, n, of_g)
    found = {place: t.sums[e, 0] for e, place in enumerate(pairs(n))}
    return found | {(k,): x for k, x in enumerate(b)}, count


def look_up(shares, t, blocks, n, begun):
    """G of the shares that stand in the choices of each series."""
    dtype, lanes = t.sums.lanes.dtype, t.sums.lanes.count
    count, length = width(dtype), row_length(n, dtype)
    if begun is not None:
        collect(list(begun.values()), t.rows, [lane * length for lane in range(lanes)])
    source, step = (shares, 0) if begun is None else (t.rows, length)
    _, wide = pieces(length // count, 1)
    for start in range(0, length // count, wide):
        vectors = range(start, min(start + wide, length // count))
        abreast = min(lanes, 1 << (TOGETHER // wide).bit_length() - 1)
        with loop(t.builder, 0, lanes // abreast) as group:
            first, sums = group * abreast, {}
            for series in range(abreast):
                for v in vectors:
                    row = (first + series) * step + v * count
                    sums[series, v] = Variable(source.load(row, count, count))
            with loop(t.builder, 0, blocks) as block:
                at = (block * CHOICES + 1) * length
                for series in range(abreast):
                    chosen = at + t.spare.whole(block, 0, first + series)
                    for v in vectors:
                        total = sums[series, v]
                        total.set(total.get() + shares.load(chosen + v * count, count, count))
            for (series, v), total in sums.items():
                t.rows.store((first + series) * length + v * count, total.get(), count)
    starts = [lane * length for lane in range(lanes)]
    for e, x in enumerate(deal(t.rows, starts, len(pairs(n)))):
        t.sums[e, 0] = x


def add_up(table, t, blocks, n, begun):
    """G of the products of all observations, times the weights that each series has."""
    zero = t.fill(0)
    many, wide = pieces_of_g(n)
    for e in range(many * wide):
        t.sums[e, 0] = zero
    for e, total in enumerate(begun.values()):
        t.sums[e, 0] = total
    with loop(t.builder, 0, blocks * BLOCK) as i:
        y = t[i]
        t.spare[i, 0] = where(y == y, t.weight(i), zero)
    size = t.y.lanes.real.dtype.bitwidth // 8
    chunk = max(1, CHUNK // (BLOCK * table.length * size))
    with (
        loop(t.builder, 0, (blocks + (chunk - 1)) // chunk) as part,
        loop(t.builder, 0, many) as piece,
    ):
        places = [piece * wide + e for e in range(wide)]
        totals = [Variable(t.sums[place, 0]) for place in places]
        with loop(t.builder, part * chunk, ((part + 1) * chunk).at_most(blocks)) as block:
            share = [zero] * wide
            for row in range(BLOCK):
                i = block * BLOCK + row
                w = t.spare[i, 0]
                x = [t.fill(table.products(i, place).lane(0)) for place in places]
                share = [fma(q, w, so_far) for q, so_far in zip(x, share, strict=True)]
            for total, more in zip(totals, share, strict=True):
                total.set(total.get() + more)
        for place, total in zip(places, totals, strict=True):
            t.sums[place, 0] = total.get()


def residuals(table, t, observations, c, n, meanwhile, begun=None):
    """Σ w r² and Σ w q r; or on with those that are begun."""
    table = Table(table, observations, n)
    first, others = begun or (t.fill(0), [t.fill(0)] * n)
    rss, sums = Variable(first), [Variable(other) for other in others]
    if FEW_REGISTERS:
        return _residuals_apart(table, t, in_blocks(observations), c, rss, sums, meanwhile)
    zero = t.fill(0)

    def emit(weigh):
        with loop(t.builder, 0, in_blocks(observations)) as i:
            q = [t.fill(table.q(i, k)) for k in range(n)]
            r = t[i]
            for x, unknown in zip(q, c, strict=True):
                r = fnma(x, unknown, r)
            known = r == r
            r, weighted = where(known, r, zero), where(known, weigh(i, r), zero)
            rss.set(fma(weighted, r, rss.get()))
            for x, total in zip(q, sums, strict=True):
                total.set(fma(x, weighted, total.get()))
            meanwhile(i)

    either_way(t, emit)
    return rss.get(), [total.get() for total in sums]


def _residuals_apart(table, t, observations, c, rss, sums, meanwhile):
    """The same, one after the other: not all of it stays in few registers."""
    zero = t.fill(0)
    for k, x in enumerate(c):
        t.sums[k, 0] = -x
    empty_registers(t.builder)

    def emit(weigh):
        with loop(t.builder, 0, observations // BLOCK) as block:
            rows = [block * BLOCK + row for row in range(BLOCK)]
            found = [t[i] for i in rows]
            for k in range(len(c)):
                x = t.sums[k, 0]
                q = [t.fill(table.q(i, k)) for i in rows]
                found = [fma(one, x, r) for one, r in zip(q, found, strict=True)]
            for i, r in zip(rows, found, strict=True):
                known = r == r
                r, weighted = where(known, r, zero), where(known, weigh(i, r), zero)
                t.spare[i, 0] = weighted
                rss.set(fma(weighted, r, rss.get()))

    either_way(t, emit)
    t.sums[0, 0] = rss.get()
    empty_registers(t.builder)
    with loop(t.builder, 0, observations) as i:
        for k, total in enumerate(sums):
            total.set(fma(t.fill(table.q(i, k)), t.spare[i, 0], total.get()))
        meanwhile(i)
    empty_registers(t.builder)
    return t.sums[0, 0], [total.get() for total in sums]


def largest_observation(t, observations, begun):
    """max |y|; or on with what is begun."""
    largest = Variable(begun)
    with loop(t.builder, 0, observations) as i:
        y, most = abs(t[i]), largest.get()
        largest.set(where(y > most, y, most))  # NaN is not
    return largest.get()
