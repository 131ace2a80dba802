"""LU factors that are kept: computed once, one system a lane, and solved with again and again.

They lie in an array as they stood in the tile: U, the reciprocals of its diagonal on it, and L
below, each panel of 8 columns with its rows in the order that the pivots up to it give them.
"""

import numpy as np
from numba import types

from dasksolve.kernels.blocks import lane_count as lanes_of_blocks
from dasksolve.kernels.condition import TRIALS, begin, inverse_norm
from dasksolve.kernels.flaws import NONFINITE, OK, SINGULAR, finite, record, undefined
from dasksolve.kernels.interleaved import (
    CHUNK,
    EARLY,
    factor_tile,
    read_columns,
    read_row,
    weigh_columns,
    write,
    write_columns,
)
from dasksolve.kernels.jit import jit, part
from dasksolve.kernels.lanes import magnitude, nothing, operation, splat
from dasksolve.kernels.residual import measurable, norms, workspace
from dasksolve.kernels.substitution import substitute, substitute_transposed
from dasksolve.kernels.tiles import SECOND, lane_count, prefetch, put_numbers, row_offset, tile


@operation(lambda *_: types.intp)
def swap_of(swaps, k, lane):
    """Where the row begins that is swapped with row k in one lane."""
    return swaps.integer(k, lane)


@operation(nothing)
def set_swap(swaps, k, lane, begin):
    """`swap_of`, set."""
    number = swaps.fill(begin)
    swaps.store(swaps.offset(k, 0) + lane, number.shuffle(number, [0]))


@part
def write_rows(lu, n, first, last, t):
    """What is to be read again, row by row."""
    for i in range(n):
        if n >= 8:
            for j in range(0, n, 8):
                e = min(j, n - 8)
                write(lu, i * n + e, n * n, first, last, t, i, e, 8, False)
        else:
            for j in range(n):
                write(lu, i * n + j, n * n, first, last, t, i, j, 1, False)


@part
def conclude(a, lu, pivots, status, rcond):
    """Leave no factors of systems that have none, and say why."""
    for m in range(len(status)):
        if status[m] != OK:
            lu[m] = undefined(lu)
            pivots[m] = np.arange(len(a[m]))
            if finite(a[m]):
                rcond[m] = 0 if status[m] == SINGULAR else np.nan
            else:
                status[m], rcond[m] = NONFINITE, np.nan


def factor(a, lu, pivots, status, rcond):
    """Factor a[m] for every m; pivots[m, k] is the row that is swapped with row k."""
    systems, n = a.shape[:2]
    count, last = lane_count(a), systems - 1
    span = (n + TRIALS) | 1
    t = tile(np.empty((n * span + 1) * count, a.dtype), span, a)
    swaps = tile(np.empty((n + 1) * count, np.int64), 1, a)
    vectors, sums = workspace(a)
    blocks = -(-n // lanes_of_blocks(a))
    low, high = measurable(a)
    for first in range(0, systems, count):
        flaw = factor_tile(a, n, first, last, t, swaps)
        write_rows(lu, n, first, last, t)
        record(status, first, last, flaw, magnitude(splat(0, t)))
        begin(t, n, n)
        substitute(t, swaps, n, n, n + TRIALS)
        put_numbers(rcond, first, last, inverse_norm(t, swaps, n, n))
        for m in range(first, min(first + count, systems)):
            for k in range(n):
                pivots[m, k] = swap_of(swaps, k, m - first) // row_offset(t, 1)
            one, infinity = norms(a, m, vectors, sums, blocks)
            bounded = infinity < np.inf and rcond[m] < np.inf
            if status[m] == OK and not (bounded or finite(lu[m])):
                status[m] = NONFINITE
            rcond[m] = 1 / one / rcond[m] if low <= infinity <= high else np.nan
    conclude(a, lu, pivots, status, rcond)


def solve(lu, pivots, b, x, transposed):
    """Solve with the factors, or with the transposed ones; x is NaN where it is not finite."""
    systems, n, columns = b.shape
    count, last = lane_count(lu), systems - 1
    chunk = min(columns, CHUNK)
    span = (n + chunk) | 1
    t = tile(np.empty((n * span + 1) * count, lu.dtype), span, lu)
    swaps = tile(np.empty((n + 1) * count, np.int64), 1, lu)
    status = np.empty(systems, np.int8)
    early = n * n * count * lu.itemsize <= EARLY
    for first in range(0, systems, count):
        for i in range(n):
            if early:
                following = ((first + count) * n + i * count) * n
                for number in range(following, following + count * n, 64 // lu.itemsize):
                    prefetch(lu, number, SECOND)
            read_row(lu, n, i, n, first, last, t)
        for lane in range(count):
            m = min(first + lane, last)
            for k in range(n):
                set_swap(swaps, k, lane, pivots[m, k] * row_offset(t, 1))
        check = magnitude(splat(0, t))
        for left in range(0, columns, chunk):
            wide = min(chunk, columns - left)
            read_columns(b, left, wide, first, last, t)
            if transposed:
                substitute_transposed(t, swaps, n, n, n + wide)
            else:
                substitute(t, swaps, n, n, n + wide)
            check = weigh_columns(check, t, n, wide)
            write_columns(x, left, wide, first, last, t)
        if record(status, first, last, magnitude(splat(0, t)), check):
            for m in range(first, min(first + count, systems)):
                if status[m] != OK:
                    x[m] = undefined(x)


def factor_kernel(_):
    """The kernel ``factor(a, lu, pivots, status, rcond)``, for systems of any order."""
    return jit(factor)


def solve_kernel(_):
    """The kernel ``solve(lu, pivots, b, x, transposed)``."""
    return jit(solve)
