"""LU with partial pivoting of a panel: as many columns as a vector has lanes, standing as rows.

 panel            tile p
| a b c |      | a d g j … |     so that a vector holds a piece of a column: the search for a
| d e f |  →   | b e h k … |     pivot and all updates of a column run along it.
| g h i |      | c f i l … |
  …
"""

from dasksolve.kernels.diagnostics.verdicts import judge
from dasksolve.kernels.language.blocks import integer, offsets_of, put_number, spread
from dasksolve.kernels.language.control import Variable, loop
from dasksolve.kernels.language.lanes import (
    PANEL,
    inner,
    magnitude,
    operation,
    reciprocal,
    where,
)
from dasksolve.kernels.language.values import INDEX, Index, Pair, Vector


def index_of_largest(size, index):
    """The index of the largest size, the least of several."""
    while size.count > 1:
        half = size.count // 2
        low, high = range(half), range(half, size.count)
        sizes = [size.shuffle(size, lanes) for lanes in (low, high)]
        indices = [index.shuffle(index, lanes) for lanes in (low, high)]
        later = (sizes[1] > sizes[0]) | ((sizes[1] == sizes[0]) & (indices[1] < indices[0]))
        size, index = where(later, sizes[1], sizes[0]), where(later, indices[1], indices[0])
    return Index(index.builder, index.builder.sext(index.lane(0).value, INDEX))


def every_lane(x, lane):
    """The number in one lane, in all of them."""
    if isinstance(x, Pair):
        return Pair(every_lane(x.real, lane), every_lane(x.imag, lane))
    return x.shuffle(x, [lane] * x.count)


def minus_products(x, left, right):
    """x - Σ left right, a panel's sum at a time."""
    for start in range(0, len(left), PANEL):
        x = x - inner(left[start : start + PANEL], right[start : start + PANEL])
    return x


def search(p, q, above, inverse, k, first, last):
    """Bring column q up to date, scale the one before it; return where to find pivot k."""
    zero = magnitude(p.fill(0)).bits
    index, top = Variable(zero.ramp + zero.fill(first * zero.count)), zero.fill(k)
    largest, chosen = Variable(zero.fill(-1)), Variable(zero)
    with loop(p.builder, first, last) as i:
        x = p[q, i]
        if q:
            # The multipliers of the last pivot wait for this pass, which loads them anyway.
            p[q - 1, i] = p[q - 1, i] * inverse
            x = p[q, i] = minus_products(x, [p[s, i] for s in range(q)], above)
        size, here = magnitude(x).bits, index.get()  # as integers NaN stands above all numbers
        larger = (size > largest.get()) & (here >= top)
        largest.set(where(larger, size, largest.get()))
        chosen.set(where(larger, here, chosen.get()))
        index.set(here + zero.fill(zero.count))
    return index_of_largest(largest.get(), chosen.get())


def exchange(memory, one, other):
    first, second = memory.load(one, 1), memory.load(other, 1)
    memory.store(one, second)
    memory.store(other, first)


@operation(lambda *kinds: kinds[-1])
def factor_panel(p, f, j, order, u, first, inverses, last, flaw):
    """Factor the columns in p, which are block column j of the system; return the flaw.

    L stays in p, the rows of U go to u[first], …, 1 / its diagonal to `inverses`.
    """
    builder, count = p.builder, p.lanes.count
    rows: list[Vector | Pair] = []
    inverse = None
    for q in range(count):
        k = j * count + q
        other = search(p, q, [every_lane(row, q) for row in rows], inverse, k, j, last)
        pivot = spread(p, q, other)
        inverse = reciprocal(pivot)
        left = [spread(p, s, other) for s in range(q)]
        rows.append(minus_products(f[integer(order, other), j], left, rows))
        u[first + q, 0] = rows[-1]
        for s in range(count):
            for one, two in zip(offsets_of(p, s, k), offsets_of(p, s, other), strict=True):
                exchange(p, one, two)
        exchange(order, k, other)
        put_number(inverses, 0, k, inverse)
        flaw = judge(flaw, magnitude(pivot))
    with loop(builder, j, last) as i:
        p[count - 1, i] = p[count - 1, i] * inverse
    return flaw
