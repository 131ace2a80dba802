"""Substitution with LU factors that are kept, as `reuse` has them, for many right-hand sides.

One system at a time: its factors are put where `single` would have left them, and its functions
solve for as many columns at once as a vector has lanes.
"""

import numpy as np

from dasksolve.kernels.compiling.jit import holder, jit, named, part
from dasksolve.kernels.diagnostics.verdicts import OK, spoil_columns
from dasksolve.kernels.language.blocks import (
    block_lanes,
    integer,
    put_number,
    put_numbers,
    transposed,
)
from dasksolve.kernels.language.lanes import PANEL, nothing, operation, splat
from dasksolve.kernels.language.tiles import cleared, load
from dasksolve.kernels.lu import reuse, single
from dasksolve.kernels.regimes import single as regime


@operation(nothing)
def put_block(lu, first, n, i, s, t, order, f, u, at, k, rest):
    """Put block (i, s) of a matrix in rows of f, and in rows `at` … of u, from number k on."""
    columns = reuse.block(lu, first + reuse.block_place(n, i, s), n, i, s, t, rest)
    rows = transposed(columns)
    for r, row in enumerate(rows):
        put_numbers(f, integer(order, i * PANEL + r), s * PANEL, row)
        put_numbers(u, at + r, k, row)


@operation(nothing)
def put_inverse(lu, first, n, i, inverses):
    """Put the reciprocal of U's number i on the diagonal among the others."""
    at = first + reuse.diagonal_place(n, i, reuse.size(n, i // PANEL))
    put_number(inverses, 0, i, load(lu, at, 1))


@holder
def hold(b, n):
    """What `single.hold` holds of a system and of right-hand sides, and room for a block's edge."""
    f, order, u, inverses, y, _, sizes = single.hold(b, n)
    last, blocks = len(order), len(order) // block_lanes(b)
    f, u = cleared(f, last, blocks), cleared(u, last * blocks, 1)
    return f, order, u, inverses, y, reuse.panel_tile(1, 1, b.dtype, b), sizes


@part
def read_factors(a, m, held, flaw):
    """Put L, U and the reciprocals of its diagonal where `single` would have left them."""
    (lu, rows), (f, order, u, inverses, _, t, _) = a, held
    n, count, last = lu.shape[1], block_lanes(lu), len(order)
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
    return flaw


@part
def spoil(a, b, x, status):
    for m in range(len(status)):
        if status[m] != OK:
            spoil_columns(x, m)


def kernel(_, across):
    """The kernel that `reuse.kernel` makes, for several right-hand sides."""
    solve_one = single.substitute_transposed if across else single.substitute
    substitute = single.substituting(solve_one, across)
    method = regime.Method(f"reuse_many.{across}", hold, substitute, spoil, read_factors)
    solve_all = holder(regime.driver(method))

    def solve(lu, rows, b, x):
        if not reuse.are_rows(rows):
            return reuse.DAMAGED
        status = np.empty(len(b), np.int8)
        solve_all((lu, rows), b, x, status, None, None)
        for verdict in status:
            if verdict != OK:
                return reuse.SPOILT
        return reuse.FINE

    return jit(named(solve, method.name))
