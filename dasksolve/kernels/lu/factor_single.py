"""LU factors to keep, in the order in which `reuse` reads them, one larger matrix at a time."""

from dasksolve.kernels.compiling.jit import jit, part
from dasksolve.kernels.diagnostics.norms import workspace
from dasksolve.kernels.diagnostics.verdicts import OK
from dasksolve.kernels.language.blocks import (
    ROWS,
    block_lanes,
    get,
    planes,
    rows_at,
    rows_from,
    same,
    spread,
    store_first,
    united,
)
from dasksolve.kernels.language.lanes import (
    PANEL,
    lane,
    magnitude,
    nothing,
    operation,
    splat,
    where,
)
from dasksolve.kernels.language.transposition import transpose
from dasksolve.kernels.language.values import Pair, lane_numbers
from dasksolve.kernels.lu import single
from dasksolve.kernels.lu.factor_interleaved import conclude, rate
from dasksolve.kernels.lu.reuse import block_place, size


def merged_row(left, right, inverses, i, start):
    """Row i of L, of U, and 1 / its diagonal: of each what belongs in the columns from `start`."""
    builder = left.builder
    count = left.real.count if isinstance(left, Pair) else left.count
    column = lane_numbers(builder, count)
    here = column.fill(i + start * -1)
    below, diagonal = column < here, column == here
    return where(below, left, where(diagonal, spread(inverses, 0, i), right))


@operation(same)
def merged(left, right, inverses, i, start):
    """`merged_row` for the rows i … of a block."""
    rows = enumerate(zip(left, right, strict=True))
    return tuple(merged_row(*row, inverses, i + r, start) for r, row in rows)


@operation(nothing)
def store_columns(lu, at, n, i, j, rows):
    """Store the rows i … and the columns j … of a system where `reuse` reads them."""
    parts = [transpose(plane) for plane in planes(rows)]
    panel = i // PANEL
    high = size(n, panel)
    for k in range(parts[0][0].count):
        lanes = range(k // ROWS * ROWS, k // ROWS * ROWS + ROWS)
        column = united([[plane[k % ROWS].shuffle(plane[k % ROWS], lanes)] for plane in parts])
        there = at + block_place(n, panel, (j + k) // PANEL) + high * (k % PANEL)
        store_first(lu, there, high.at_most((n - j - k) * ROWS), *column)


@part
def write_factors(lu, m, f, u, inverses, order):
    """Put the factors of a system in lu[m]."""
    n, count, last = lu.shape[1], block_lanes(lu), len(order)
    for j in range(last // count):
        for i in range(0, last, ROWS):
            left, right = get(f, rows_at(order, i), j), get(u, rows_from(j * last + i), 0)
            block = merged(left, right, inverses, i, j * count)
            store_columns(lu, m * n * n, n, i, j * count, block)


def factor(a, lu, order, status, rcond):
    """Factor a[m] for every m; row i of L U is row order[m, i] of a[m]."""
    n = a.shape[1]
    held = single.hold(a, n)
    f, rows, u, inverses, _, _, _ = held
    vectors, sums = workspace(a)
    for m in range(len(a)):
        flaw = single.factor(a, m, held, magnitude(splat(0, f)))
        status[m] = int(lane(flaw, 0))
        if status[m] != OK:
            continue
        write_factors(lu, m, f, u, inverses, rows)
        for i in range(n):
            order[m, i] = rows[i]
        rcond[m] = single.inverse_norm(n, held)
        rate(a, lu, m, status, rcond, vectors, sums)
    conclude(a, lu, order, status, rcond)


def kernel(_):
    """The kernel ``factor(a, lu, order, status, rcond)``, for systems of any order."""
    return jit(factor)
