"""LU with partial pivoting of larger systems, one at a time, rows as vectors.

Block column after block column (as wide as a vector) is brought up to date with all columns to
its left, then factored as a panel. Rows of L stay where they are, so that no row is ever swapped:

        j                             f[order[i]]   row i of P A, then of L
    | U u . . |   u = L⁻¹ P a         u             U, a block column after the other
    | L a . . |   a - L u  → p        p             the panel
    | L a . . |                       order         where row i of P A is in A
"""

import numpy as np

from dasksolve.kernels.compiling.jit import holder, part
from dasksolve.kernels.diagnostics.condition import (
    TRIALS,
    direction,
    norm,
    rough_modulus,
    trial,
    trial_norm,
)
from dasksolve.kernels.diagnostics.verdicts import NONFINITE, OK, reject, weigh
from dasksolve.kernels.language.blocks import (
    ROWS,
    block_lanes,
    block_tile,
    get,
    get_transposed,
    load_first,
    minus_panel,
    minus_panel_transposed,
    prefetch_block,
    put,
    put_number,
    put_transposed,
    rows_at,
    rows_from,
    solved_above,
    solved_above_transposed,
    solved_below,
    solved_below_transposed,
    store_first,
)
from dasksolve.kernels.language.lanes import (
    PANEL,
    any_lane,
    highest,
    lane,
    magnitude,
    splat,
    unsigned_zero,
)
from dasksolve.kernels.lu.panel import factor_panel
from dasksolve.kernels.regimes import single


@part
def read_system(a, m, f, order):
    """Put a[m], bordered by the identity, in the rows of f; return whether it is finite."""
    n, last, count = a.shape[1], len(order), block_lanes(a)
    zero = magnitude(splat(0, f))
    check = zero
    for i in range(last):
        order[i] = i
    for i in range(n):
        for j in range(last // count):
            x = load_first(a, (m * n + i) * n + j * count, n - j * count, f)
            f[i, j] = x
            check = weigh(check, x)
    for i in range(n, last):
        for j in range(last // count):
            f[i, j] = splat(0, f)
        put_number(f, i, i, splat(1, f))
    return not any_lane(check != zero)


@part
def update(f, p, j, order, u, a, ahead):
    """Bring block column j up to date: its rows of U are done then, the others stand in p.

    Meanwhile a share of the next system comes from memory: waiting for it took a sixth of the time.
    """
    last, start = len(order), j * block_lanes(f)
    first = j * last
    for i in range(0, last, ROWS):
        rows = rows_at(order, i)
        block = get(f, rows, j)
        for k in range(0, min(i, start), PANEL):
            block = minus_panel(block, f, rows, k, u, first + k)
        if i < start:
            put(u, rows_from(first + i), 0, solved_below(block, f, rows, i))
        else:
            put(f, rows, j, block)
            put_transposed(p, i, block)
        prefetch_block(a, ahead + (first + i) * block_lanes(f), f)


@part
def keep_multipliers(f, p, j, order):
    """Put L from the panel into block column j."""
    for i in range(j * block_lanes(f), len(order), ROWS):
        put(f, rows_at(order, i), j, get_transposed(p, i))


@part
def substitute(f, order, u, inverses, y):
    """Overwrite y by U⁻¹ L⁻¹ y."""
    last, count = len(order), block_lanes(f)
    for i in range(0, last, ROWS):
        rows, here = rows_at(order, i), rows_from(i)
        block = get(y, here, 0)
        for k in range(0, i, PANEL):
            block = minus_panel(block, f, rows, k, y, k)
        put(y, here, 0, solved_below(block, f, rows, i))
    for i in range(last - ROWS, -1, -ROWS):
        here = rows_from(i)
        block = get(y, here, 0)
        for k in range(last - PANEL, i, -PANEL):
            rows = rows_from(k // count * last + i)
            block = minus_panel(block, u, rows, k % count, y, k)
        rows = rows_from(i // count * last + i)
        put(y, here, 0, solved_above(block, u, rows, i % count, inverses, i))


@part
def substitute_transposed(f, order, u, inverses, y):
    """Overwrite y by L⁻ᵀ U⁻ᵀ y."""
    last, count = len(order), block_lanes(f)
    for i in range(0, last, ROWS):
        here, column = rows_from(i), i // count * last
        block = get(y, here, 0)
        for k in range(0, i, PANEL):
            block = minus_panel_transposed(block, u, rows_from(column + k), i % count, y, k)
        rows = rows_from(column + i)
        put(y, here, 0, solved_above_transposed(block, u, rows, i % count, inverses, i))
    for i in range(last - ROWS, -1, -ROWS):
        here = rows_from(i)
        block = get(y, here, 0)
        for k in range(i + PANEL, last, PANEL):
            block = minus_panel_transposed(block, f, rows_at(order, k), i, y, k)
        put(y, here, 0, solved_below_transposed(block, f, rows_at(order, i), i))


@part
def inverse_norm(n, held):
    """‖A⁻¹‖₁ from the factors, as `condition.inverse_norm` estimates it, columns in lanes."""
    f, order, u, inverses, y, _, sizes = held
    for i in range(len(order)):
        row = order[i]
        y[i, 0] = splat(0, y)
        if row < n:
            for c in range(TRIALS):
                put_number(y, i, c, splat(trial(row, c, n), y))
    substitute(f, order, u, inverses, y)
    total = norm(y, n, 0)
    one, two = lane(total, 0) / trial_norm(0, n), lane(total, 1) / trial_norm(1, n)
    for i in range(n):
        y[i, 0] = direction(splat(lane(y[i, 0], 1 if two > one else 0), y))
    substitute_transposed(f, order, u, inverses, y)
    for i in range(len(order)):
        sizes[order[i]] = lane(rough_modulus(y[i, 0]), 0)
    first = second = -1
    for j in range(n):
        if first < 0 or sizes[j] > sizes[first]:
            first, second = j, first
        elif second < 0 or sizes[j] > sizes[second]:
            second = j
    for i in range(len(order)):
        y[i, 0] = splat(0, y)
        if order[i] == first or order[i] == second:
            put_number(y, i, 0 if order[i] == first else 1, splat(1, y))
    substitute(f, order, u, inverses, y)
    return max(one, two, highest(norm(y, n, 0)))


@holder
def hold(b, n):
    """The rows of a system, their order, U, 1 / its diagonal, right-hand sides, a panel, sizes."""
    count = block_lanes(b)
    blocks = -(-n // count)
    last, span = blocks * count, blocks | 1  # odd: it spreads a column over the sets of the cache
    f, u = block_tile(last, span, b.dtype, b), block_tile(last * blocks, 1, b.dtype, b)
    p, y = block_tile(count, span, b.dtype, b), block_tile(last, 1, b.dtype, b)
    inverses, order = block_tile(1, blocks, b.dtype, b), np.empty(last, np.intp)
    return f, order, u, inverses, y, p, np.empty(last, b.real.dtype)


@part
def factor(a, m, held, flaw):
    f, order, u, inverses, _, p, _ = held
    n, last, count = a.shape[1], len(order), block_lanes(a)
    if not read_system(a, m, f, order):
        return splat(NONFINITE, flaw)
    for j in range(last // count):
        if lane(flaw, 0) == OK:
            update(f, p, j, order, u, a, (m + 1) * n * n)
            at = j * (last + count)
            flaw = factor_panel(p, f, j, order, u, at, inverses, last // count, flaw)
            keep_multipliers(f, p, j, order)
    return flaw


def substituting(solve, across):
    """The part that solves for columns of x, by a part for L U or, if `across`, its transpose."""

    @part
    def substitute_columns(a, b, x, m, j, held, flaw, check):
        f, order, u, inverses, y, _, _ = held
        n, columns = b.shape[1:]
        for i in range(len(order)):
            row = i if across else order[i]
            y[i, 0] = splat(0, y)
            if row < n:
                y[i, 0] = load_first(b, (m * n + row) * columns + j, columns - j, y)
        solve(f, order, u, inverses, y)
        for i in range(n):
            row = order[i] if across else i
            check = weigh(check, y[i, 0])
            store_first(x, (m * n + row) * columns + j, columns - j, unsigned_zero(y[i, 0]))
        return flaw, check

    return substitute_columns


METHOD = single.Method("lu", hold, substituting(substitute, False), reject, factor, inverse_norm)


def kernel(_):
    """The kernel for systems of any order."""
    return single.kernel(METHOD)
