"""LU factors that are kept, of larger matrices: one at a time.

They lie in an array as LAPACK's getrf leaves them, but for the reciprocals on U's diagonal.
"""

import numpy as np
from llvmlite import ir

from dasksolve.kernels.blocked import (
    finite,
    inverse_norm,
    keep_multipliers,
    read_system,
    solve_columns,
    substitute_transposed,
    update,
)
from dasksolve.kernels.blocks import (
    lane_count,
    load_first,
    put_number,
    same,
    spread,
    store_first,
    tile,
)
from dasksolve.kernels.emitted import INDEX, Bits, Pair, Vector
from dasksolve.kernels.factored import conclude
from dasksolve.kernels.flaws import NONFINITE, OK, undefined
from dasksolve.kernels.jit import jit, part
from dasksolve.kernels.lanes import any_lane, operation, splat, where
from dasksolve.kernels.panel import factor_panel
from dasksolve.kernels.residual import measurable, norms, workspace


@operation(same)
def merged(left, right, inverses, i, start):
    """Row i of L, of U, and 1 / its diagonal: of each what belongs in the columns from `start`."""
    builder = left.builder
    count = left.real.count if isinstance(left, Pair) else left.count
    indices = ir.VectorType(INDEX, count)
    ramp = ir.Constant(indices, list(range(count)))
    here = Vector(builder, ir.Constant(indices, ir.Undefined)).fill(i + start * -1)
    below = Bits(builder, builder.icmp_signed("<", ramp, here.value))
    diagonal = Bits(builder, builder.icmp_signed("==", ramp, here.value))
    return where(below, left, where(diagonal, spread(inverses, 0, i), right))


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


@part
def write_factors(lu, pivots, m, f, u, inverses, order, places):
    """Put the factors of a system in lu[m], and the swaps that lead to its order in pivots[m]."""
    n, count, last = lu.shape[1], lane_count(lu), len(order)
    rows = np.arange(n)
    places[:n] = rows
    for i in range(n):
        for j in range(last // count):
            row = merged(f[order[i], j], u[j * last + i, 0], inverses, i, j * count)
            store_first(lu, (m * n + i) * n + j * count, n - j * count, row)
        chosen = places[order[i]]
        pivots[m, i] = chosen
        rows[chosen] = rows[i]
        places[rows[chosen]] = chosen


@part
def read_factors(lu, pivots, m, f, u, inverses, order):
    """What `write_factors` wrote."""
    n, count, last = lu.shape[1], lane_count(lu), len(order)
    for i in range(last):
        order[i] = i
    for i in range(n):
        chosen = pivots[m, i]
        order[i], order[chosen] = order[chosen], order[i]
    for i in range(last):
        for j in range(last // count):
            row = splat(0, f)
            if i < n:
                row = load_first(lu, (m * n + i) * n + j * count, n - j * count, f)
            f[order[i], j] = row
            u[j * last + i, 0] = row
        put_number(inverses, 0, i, splat(lu[m, i, i] if i < n else lu.dtype.type(1), f))


def factor(a, lu, pivots, status, rcond):
    """Factor a[m] for every m; pivots[m, k] is the row that is swapped with row k."""
    n, count = a.shape[1], lane_count(a)
    blocks = -(-n // count)
    f, u, p, y, inverses, order = tiles(a)
    last = len(order)
    places, sizes = np.empty(last, np.intp), np.empty(last, a.real.dtype)
    vectors, sums = workspace(a)
    low, high = measurable(a)
    for m in range(len(a)):
        verdict = OK if read_system(a, m, f, order) else NONFINITE
        for j in range(blocks):
            if verdict == OK:
                update(f, p, j, order, u, a, (m + 1) * n * n)
                verdict = factor_panel(p, f, j, order, u, j * (last + count), inverses, blocks)
                keep_multipliers(f, p, j, order)
        if verdict == OK:
            write_factors(lu, pivots, m, f, u, inverses, order, places)
            if not finite(lu, m * n * n, (m + 1) * n * n, f):
                verdict = NONFINITE
        status[m] = verdict
        if verdict == OK:
            one, infinity = norms(a, m, vectors, sums, blocks)
            inverse = inverse_norm(f, order, u, inverses, y, n, sizes)
            rcond[m] = 1 / one / inverse if low <= infinity <= high else np.nan
    conclude(a, lu, pivots, status, rcond)


@part
def solve_transposed(b, x, m, f, order, u, inverses, y):
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
            store_first(x, (m * n + order[i]) * columns + j, columns - j, y[i, 0])
    return not any_lane(check != splat(0, y))


def solve(lu, pivots, b, x, transposed):
    """Solve with the factors, or with the transposed ones; x is NaN where it is not finite."""
    f, u, _, y, inverses, order = tiles(lu)
    for m in range(len(lu)):
        read_factors(lu, pivots, m, f, u, inverses, order)
        if transposed:
            sound = solve_transposed(b, x, m, f, order, u, inverses, y)
        else:
            sound = solve_columns(b, x, m, f, order, u, inverses, y)
        if not sound:
            x[m] = undefined(x)


def factor_kernel(_):
    """The kernel ``factor(a, lu, pivots, status, rcond)``, for systems of any order."""
    return jit(factor)


def solve_kernel(_):
    """The kernel ``solve(lu, pivots, b, x, transposed)``."""
    return jit(solve)
