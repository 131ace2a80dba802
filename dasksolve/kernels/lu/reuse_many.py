"""Substitution with LU factors that are kept, as `reuse` has them, for many right-hand sides.

One system at a time: its factors are put where `single` would have left them, and its functions
solve for as many columns at once as a vector has lanes.
"""

import numpy as np

from dasksolve.kernels.compiling.jit import jit, part
from dasksolve.kernels.diagnostics.verdicts import spoil_columns
from dasksolve.kernels.language.blocks import (
    integer,
    lane_count,
    load_first,
    put_number,
    put_numbers,
    store_first,
    tile,
)
from dasksolve.kernels.language.lanes import (
    PANEL,
    any_lane,
    nothing,
    operation,
    splat,
    unsigned_zero,
)
from dasksolve.kernels.language.tiles import load
from dasksolve.kernels.lu import reuse
from dasksolve.kernels.lu.single import solve_columns, substitute_transposed


@operation(nothing)
def put_block(lu, first, n, i, s, t, order, f, u, at, k, rest):
    """Put block (i, s) of a matrix in rows of f, and in rows `at` … of u, from number k on."""
    columns = reuse.block(lu, first + reuse.place(n, i, s), n, i, s, t, rest)
    rows = reuse.transposed(columns)
    for r, row in enumerate(rows):
        put_numbers(f, integer(order, i * PANEL + r), s * PANEL, row)
        put_numbers(u, at + r, k, row)


@operation(nothing)
def put_inverse(lu, first, n, i, inverses):
    """Put the reciprocal of U's number i on the diagonal among the others."""
    at = first + reuse.diagonal_place(n, i, reuse.size(n, i // PANEL))
    put_number(inverses, 0, i, load(lu, at, 1))


@part
def read_factors(lu, rows, m, t, f, order, u, inverses):
    """Put L, U and the reciprocals of its diagonal where `single` would have left them."""
    n, count, last = lu.shape[1], lane_count(lu), len(order)
    panels = -(-n // PANEL)
    for i in range(last):
        order[i] = rows[m, i] if i < n else i
        put_number(inverses, 0, i, splat(1, f))
        if i < n:
            put_inverse(lu, m * n * n, n, i, inverses)
    for s in range(panels):
        for i in range(panels):
            at, k = s * PANEL // count * last + i * PANEL, s * PANEL % count
            if max(i, s) * PANEL + PANEL <= n:
                put_block(lu, m * n * n, n, i, s, t, order, f, u, at, k, False)
            else:
                put_block(lu, m * n * n, n, i, s, t, order, f, u, at, k, True)


@part
def solve_columns_transposed(b, x, m, f, order, u, inverses, y):
    """`solve_columns` with the transposed matrix."""
    n, columns = b.shape[1:]
    check = splat(0, y)
    for j in range(0, columns, lane_count(b)):
        for i in range(len(order)):
            y[i, 0] = splat(0, y)
            if i < n:
                y[i, 0] = load_first(b, (m * n + i) * columns + j, columns - j, y)
        substitute_transposed(f, order, u, inverses, y)
        for i in range(n):
            check = check + (y[i, 0] - y[i, 0])
            at = (m * n + order[i]) * columns + j
            store_first(x, at, columns - j, unsigned_zero(y[i, 0]))
    return not any_lane(check != splat(0, y))


def kernel(_, across):
    """The kernel that `reuse.kernel` makes, for several right-hand sides."""

    @jit
    def solve(lu, rows, b, x):
        systems, n, _ = b.shape
        if not reuse.are_rows(rows):
            return reuse.DAMAGED
        fine = reuse.FINE
        count = lane_count(lu)
        blocks = -(-n // count)
        last, span = blocks * count, blocks | 1
        f = tile(np.zeros((last * span + 1) * count, lu.dtype), span, lu)
        u = tile(np.zeros((last * blocks + 1) * count, lu.dtype), 1, lu)
        y = tile(np.empty((last + 1) * count, lu.dtype), 1, lu)
        inverses = tile(np.empty((blocks + 1) * count, lu.dtype), blocks, lu)
        t = reuse.tile(np.empty(2 * PANEL, lu.dtype), 1, lu)
        order = np.empty(last, np.intp)
        for m in range(systems):
            read_factors(lu, rows, m, t, f, order, u, inverses)
            if across:
                sound = solve_columns_transposed(b, x, m, f, order, u, inverses, y)
            else:
                sound = solve_columns(b, x, m, f, order, u, inverses, y)
            if not sound:
                spoil_columns(x, m)
                fine = reuse.SPOILT
        return fine

    return solve
