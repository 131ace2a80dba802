"""LU with partial pivoting of larger systems, one at a time, rows as vectors.

Block column after block column (as wide as a vector) is brought up to date with all columns to
its left, then factored as a panel. Rows of L stay where they are, so that no row is ever swapped:

        j                             f[order[i]]   row i of P A, then of L
    | U u . . |   u = L⁻¹ P a         u             U, a block column after the other
    | L a . . |   a - L u  → p        p             the panel
    | L a . . |                       order         where row i of P A is in A
"""

import numpy as np

from dasksolve.kernels.blocks import (
    ROWS,
    get,
    get_transposed,
    load_first,
    minus_product,
    plus,
    prefetch_block,
    put,
    put_number,
    put_transposed,
    rows_at,
    rows_from,
    solved_above,
    solved_below,
    store_first,
    zeros,
)
from dasksolve.kernels.flaws import undefined
from dasksolve.kernels.jit import jit, part
from dasksolve.kernels.lanes import any_lane, splat
from dasksolve.kernels.panel import factor_panel
from dasksolve.kernels.tiles import lane_count, tile
from dasksolve.status import Status

OK, NONFINITE = int(Status.OK), int(Status.NONFINITE)


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
def minus_products(block, left, rows, right, first, stop):
    """block - left[rows, :stop] right[first : first + stop]."""
    for k in range(stop):
        block = minus_product(block, left, rows, k, right[first + k, 0])
    return block


@part
def update(f, p, j, order, u, a, ahead):
    """Bring block column j up to date: its rows of U are done then, the others stand in p.

    Meanwhile a share of the next system comes from memory: waiting for it took a sixth of the time.
    """
    last, start = len(order), j * lane_count(f)
    first = j * last
    for i in range(0, last, ROWS):
        rows = rows_at(order, i)
        less = minus_products(zeros(u), f, rows, u, first, min(i, start))
        if i < start:
            put(u, rows_from(first + i), 0, solved_below(get(f, rows, j), less, f, rows, i))
        else:
            block = plus(get(f, rows, j), less)
            put(f, rows, j, block)
            put_transposed(p, i, block)
        prefetch_block(a, ahead + (first + i) * lane_count(f), f)


@part
def keep_multipliers(f, p, j, order):
    """Put L from the panel into block column j."""
    for i in range(j * lane_count(f), len(order), ROWS):
        put(f, rows_at(order, i), j, get_transposed(p, i))


@part
def substitute(f, order, u, diagonal, y):
    """Overwrite y by U⁻¹ L⁻¹ y."""
    last, count = len(order), lane_count(f)
    for i in range(0, last, ROWS):
        rows, here = rows_at(order, i), rows_from(i)
        block = minus_products(get(y, here, 0), f, rows, y, 0, i)
        put(y, here, 0, solved_below(zeros(y), block, f, rows, i))
    for i in range(last - ROWS, -1, -ROWS):
        here, diagonal_block = rows_from(i), i // count
        block = get(y, here, 0)
        for j in range(last // count - 1, diagonal_block - 1, -1):
            start, rows = j * count, rows_from(j * last + i)
            for k in range(start + count - 1, max(start, i + ROWS) - 1, -1):
                block = minus_product(block, u, rows, k - start, y[k, 0])
        rows = rows_from(diagonal_block * last + i)
        put(y, here, 0, solved_above(block, u, rows, i % count, diagonal, i))


@part
def solve_columns(b, x, m, f, order, u, diagonal, y):
    """Solve for x[m], a vector of its columns at a time; return whether x is finite."""
    n, columns = b.shape[1:]
    check = splat(0, y)
    for j in range(0, columns, lane_count(b)):
        for i in range(len(order)):
            y[i, 0] = splat(0, y)
            if order[i] < n:
                y[i, 0] = load_first(b, (m * n + order[i]) * columns + j, columns - j, y)
        substitute(f, order, u, diagonal, y)
        for i in range(n):
            check = check + (y[i, 0] - y[i, 0])
            store_first(x, (m * n + i) * columns + j, columns - j, y[i, 0])
    return not any_lane(check != splat(0, y))


@jit
def solve(a, b, x, status):
    """Solve a[m] x[m] = b[m] for every m; a (M, N, N), b and x (M, N, K), status (M,)."""
    systems, n, columns = b.shape
    count = lane_count(a)
    blocks = -(-n // count)
    last = blocks * count
    # An odd number of vectors in a row spreads a column over all sets of the cache.
    span = blocks | 1
    f = tile(np.empty((last * span + 1) * count, a.dtype), span, a)
    u = tile(np.empty((last * blocks + 1) * count, a.dtype), 1, a)
    p = tile(np.empty((count * span + 1) * count, a.dtype), span, a)
    y = tile(np.empty((last + 1) * count, a.dtype), 1, a)
    diagonal = tile(np.empty((2 * blocks + 1) * count, a.dtype), blocks, a)
    order = np.empty(last, np.intp)
    for m in range(systems):
        sound = read_system(a, m, f, order)
        sound &= finite(b, m * n * columns, (m + 1) * n * columns, f)
        verdict = OK if sound else NONFINITE
        for j in range(blocks):
            if verdict == OK:
                update(f, p, j, order, u, a, (m + 1) * n * n)
                verdict = factor_panel(p, f, j, order, u, j * (last + count), diagonal, blocks)
                keep_multipliers(f, p, j, order)
        if verdict == OK and not solve_columns(b, x, m, f, order, u, diagonal, y):
            verdict = NONFINITE
        if verdict != OK:
            x[m] = undefined(x)
        status[m] = verdict
