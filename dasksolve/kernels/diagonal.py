"""Division by the diagonal, one system a lane."""

import numpy as np

from dasksolve.kernels.columns import CHUNK, read_columns, write_columns
from dasksolve.kernels.compiling.jit import jit
from dasksolve.kernels.diagnostics.verdicts import judge, record, reject_band
from dasksolve.kernels.language.lanes import magnitude, operation, reciprocal, splat
from dasksolve.kernels.language.tiles import deal, lane_count, systems_of_lanes, tile
from dasksolve.kernels.language.values import loop


def divide_all(column, t, n):
    """Divide the unknowns by the diagonal of t, which holds reciprocals."""
    for i in range(n):
        column[i] = column[i] * t[i, i]


@operation(lambda a, n, first, last, t, i, flaw, wide: flaw)
def divide(a, n, first, last, t, i, flaw, wide):
    """Divide unknown i of `wide` columns; the flaw of each lane."""
    at = i * n + i
    (pivot,) = deal(a, [s * (n * n) + at for s in systems_of_lanes(a, first, last)], 1)
    inverse = reciprocal(pivot)
    with loop(a.builder, 0, wide) as c:
        t[c, i] = t[c, i] * inverse
    return judge(flaw, magnitude(pivot))


def kernel(_):
    """The kernel for systems of any order."""

    @jit
    def solve(a, b, x, status):
        systems, n, columns = b.shape
        count, last = lane_count(a), systems - 1
        chunk = min(columns, CHUNK)
        t = tile(np.empty((n * chunk + 1) * count, a.dtype), n, a)
        failed = False
        for first in range(0, systems, count):
            flaw = check = magnitude(splat(0, t))
            for left in range(0, columns, chunk):
                wide = min(chunk, columns - left)
                read_columns(b, first, last, t, 0, left, wide)
                for i in range(n):
                    flaw = divide(a, n, first, last, t, i, flaw, wide)
                check = write_columns(x, first, last, t, 0, left, wide, check)
            if record(status, first, last, flaw, check):
                failed = True
        if failed:
            reject_band(a, b, x, status, 0, 0, False)

    return solve
