"""LU factors to keep, in the order in which `reuse` reads them, one larger matrix at a time."""

import numpy as np

from dasksolve.kernels.compiling.jit import jit, part
from dasksolve.kernels.diagnostics.norms import measurable, norms, workspace
from dasksolve.kernels.diagnostics.verdicts import NONFINITE, OK
from dasksolve.kernels.language.blocks import (
    ROWS,
    get,
    lane_count,
    planes,
    rows_at,
    rows_from,
    same,
    spread,
    store_first,
    tile,
    united,
)
from dasksolve.kernels.language.lanes import PANEL, nothing, operation, where
from dasksolve.kernels.language.tiles import transpose
from dasksolve.kernels.language.values import Pair, lane_numbers
from dasksolve.kernels.lu.factor_interleaved import conclude
from dasksolve.kernels.lu.panel import factor_panel
from dasksolve.kernels.lu.reuse import place, size
from dasksolve.kernels.lu.single import finite, inverse_norm, keep_multipliers, read_system, update


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


@part
def tiles(a):
    """Room for a system: its rows, U, a panel, right-hand sides, 1 / U's diagonal, and order."""
    n, count = a.shape[1], lane_count(a)
    blocks = -(-n // count)
    last, span = blocks * count, blocks | 1
    f = tile(np.empty((last * span + 1) * count, a.dtype), span, a)
    u = tile(np.empty((last * blocks + 1) * count, a.dtype), 1, a)
    p = tile(np.empty((count * span + 1) * count, a.dtype), span, a)
    y = tile(np.empty((last + 1) * count, a.dtype), 1, a)
    inverses = tile(np.empty((blocks + 1) * count, a.dtype), blocks, a)
    return f, u, p, y, inverses, np.empty(last, np.intp)


@operation(nothing)
def store_columns(lu, at, n, i, j, rows):
    """Store the rows i … and the columns j … of a system where `reuse` reads them."""
    parts = [transpose(plane) for plane in planes(rows)]
    panel = i // PANEL
    high = size(n, panel)
    for k in range(parts[0][0].count):
        lanes = range(k // ROWS * ROWS, k // ROWS * ROWS + ROWS)
        column = united([[plane[k % ROWS].shuffle(plane[k % ROWS], lanes)] for plane in parts])
        there = at + place(n, panel, (j + k) // PANEL) + high * (k % PANEL)
        store_first(lu, there, high.at_most((n - j - k) * ROWS), *column)


@part
def write_factors(lu, m, f, u, inverses, order):
    """Put the factors of a system in lu[m]."""
    n, count, last = lu.shape[1], lane_count(lu), len(order)
    for j in range(last // count):
        for i in range(0, last, ROWS):
            left, right = get(f, rows_at(order, i), j), get(u, rows_from(j * last + i), 0)
            block = merged(left, right, inverses, i, j * count)
            store_columns(lu, m * n * n, n, i, j * count, block)


def factor(a, lu, order, status, rcond):
    """Factor a[m] for every m; row i of L U is row order[m, i] of a[m]."""
    n, count = a.shape[1], lane_count(a)
    blocks = -(-n // count)
    f, u, p, y, inverses, rows = tiles(a)
    last = len(rows)
    sizes = np.empty(last, a.real.dtype)
    vectors, sums = workspace(a)
    low, high = measurable(a)
    for m in range(len(a)):
        verdict = OK if read_system(a, m, f, rows) else NONFINITE
        for j in range(blocks):
            if verdict == OK:
                update(f, p, j, rows, u, a, (m + 1) * n * n)
                verdict = factor_panel(p, f, j, rows, u, j * (last + count), inverses, blocks)
                keep_multipliers(f, p, j, rows)
        if verdict == OK:
            write_factors(lu, m, f, u, inverses, rows)
            for i in range(n):
                order[m, i] = rows[i]
            if not finite(lu, m * n * n, (m + 1) * n * n, f):
                verdict = NONFINITE
        status[m] = verdict
        if verdict == OK:
            one, infinity = norms(a, m, vectors, sums)
            inverse = inverse_norm(f, rows, u, inverses, y, n, sizes)
            rcond[m] = 1 / one / inverse if low <= infinity <= high else np.nan
    conclude(a, lu, order, status, rcond)


def kernel(_):
    """The kernel ``factor(a, lu, order, status, rcond)``, for systems of any order."""
    return jit(factor)
