"""LU with partial pivoting of larger systems, one at a time, rows as vectors.

Block column after block column (as wide as a vector) is brought up to date with all columns to
its left, then factored as a panel. Rows of L stay where they are, so that no row is ever swapped:

        j                             f[order[i]]   row i of P A, then of L
    | U u . . |   u = L⁻¹ P a         u             U, a block column after the other
    | L a . . |   a - L u  → p        p             the panel
    | L a . . |                       order         where row i of P A is in A
"""

import numpy as np

from dasksolve.kernels.compiling.jit import jit, part
from dasksolve.kernels.diagnostics.condition import (
    TRIALS,
    direction,
    norm,
    rough_modulus,
    trial,
    trial_norm,
)
from dasksolve.kernels.diagnostics.norms import doubt, measure, workspace
from dasksolve.kernels.diagnostics.verdicts import NONFINITE, OK, UNBOUNDED, reject
from dasksolve.kernels.language.blocks import (
    ROWS,
    get,
    get_transposed,
    lane_count,
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
    tile,
)
from dasksolve.kernels.language.lanes import PANEL, any_lane, highest, lane, splat, unsigned_zero
from dasksolve.kernels.lu.panel import factor_panel


@part
def read_system(a, m, f, order):
    """Put a[m], bordered by the identity, in the rows of f; return whether it is finite."""
    n, last, count = a.shape[1], len(order), lane_count(a)
    check = splat(0, f)
    for i in range(last):
        order[i] = i
    for i in range(n):
        for j in range(last // count):
            x = load_first(a, (m * n + i) * n + j * count, n - j * count, f)
            f[i, j] = x
            check = check + (x - x)
    for i in range(n, last):
        for j in range(last // count):
            f[i, j] = splat(0, f)
        put_number(f, i, i, splat(1, f))
    return not any_lane(check != splat(0, f))


@part
def finite(array, start, stop, f):
    """Whether all numbers array.flat[start:stop] are."""
    check = splat(0, f)
    for i in range(start, stop, lane_count(array)):
        x = load_first(array, i, stop - i, f)
        check = check + (x - x)
    return not any_lane(check != splat(0, f))


@part
def update(f, p, j, order, u, a, ahead):
    """Bring block column j up to date: its rows of U are done then, the others stand in p.

    Meanwhile a share of the next system comes from memory: waiting for it took a sixth of the time.
    """
    last, start = len(order), j * lane_count(f)
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
        prefetch_block(a, ahead + (first + i) * lane_count(f), f)


@part
def keep_multipliers(f, p, j, order):
    """Put L from the panel into block column j."""
    for i in range(j * lane_count(f), len(order), ROWS):
        put(f, rows_at(order, i), j, get_transposed(p, i))


@part
def substitute(f, order, u, inverses, y):
    """Overwrite y by U⁻¹ L⁻¹ y."""
    last, count = len(order), lane_count(f)
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
    last, count = len(order), lane_count(f)
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
def solve_columns(b, x, m, f, order, u, inverses, y):
    """Solve for x[m], a vector of its columns at a time; return whether x is finite."""
    n, columns = b.shape[1:]
    check = splat(0, y)
    for j in range(0, columns, lane_count(b)):
        for i in range(len(order)):
            y[i, 0] = splat(0, y)
            if order[i] < n:
                y[i, 0] = load_first(b, (m * n + order[i]) * columns + j, columns - j, y)
        substitute(f, order, u, inverses, y)
        for i in range(n):
            check = check + (y[i, 0] - y[i, 0])
            store_first(x, (m * n + i) * columns + j, columns - j, unsigned_zero(y[i, 0]))
    return not any_lane(check != splat(0, y))


@part
def inverse_norm(f, order, u, inverses, y, n, sizes):
    """‖A⁻¹‖₁ from the factors, as `condition.inverse_norm` estimates it, columns in lanes."""
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


def solve(a, b, x, status, rcond=None, backward_error=None):
    """Solve a[m] x[m] = b[m] for every m; a (M, N, N), b and x (M, N, K), status (M,)."""
    systems, n, _ = b.shape
    count = lane_count(a)
    blocks = -(-n // count)
    last = blocks * count
    # An odd number of vectors in a row spreads a column over all sets of the cache.
    span = blocks | 1
    f = tile(np.empty((last * span + 1) * count, a.dtype), span, a)
    u = tile(np.empty((last * blocks + 1) * count, a.dtype), 1, a)
    p = tile(np.empty((count * span + 1) * count, a.dtype), span, a)
    y = tile(np.empty((last + 1) * count, a.dtype), 1, a)
    inverses = tile(np.empty((blocks + 1) * count, a.dtype), blocks, a)
    order = np.empty(last, np.intp)
    if rcond is not None:
        vectors, sums = workspace(a)
        sizes = np.empty(last, a.real.dtype)
    failed = False
    for m in range(systems):
        verdict = OK if read_system(a, m, f, order) else NONFINITE
        for j in range(blocks):
            if verdict == OK:
                update(f, p, j, order, u, a, (m + 1) * n * n)
                verdict = factor_panel(p, f, j, order, u, j * (last + count), inverses, blocks)
                keep_multipliers(f, p, j, order)
        if verdict == OK and not solve_columns(b, x, m, f, order, u, inverses, y):
            verdict = UNBOUNDED
        status[m] = verdict
        failed |= verdict != OK
        if rcond is not None and verdict == OK:
            rcond[m] = inverse_norm(f, order, u, inverses, y, n, sizes)
            measure(a, b, x, m, m + 1, rcond, backward_error, vectors, sums)
    if failed:
        reject(a, b, x, status)
    if rcond is not None:
        doubt(a, status, rcond, backward_error)


def kernel(_):
    """The kernel for systems of any order."""
    return jit(solve)
