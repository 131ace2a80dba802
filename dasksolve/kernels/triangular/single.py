"""Substitution in triangular systems as `interleaved` has it, one at a time: a lane is a column."""

import numpy as np

from dasksolve.kernels.compiling.jit import jit
from dasksolve.kernels.diagnostics.verdicts import OK, UNBOUNDED, reject_band, weigh
from dasksolve.kernels.language.blocks import lane_count, load_first, store_first, tile
from dasksolve.kernels.language.lanes import any_lane, lane, magnitude, splat, unsigned_zero
from dasksolve.kernels.triangular.interleaved import backward_rows, forward_rows


def kernel(_, lower):
    """The kernel for systems of any order from 8 on."""

    @jit
    def solve(a, b, x, status):
        systems, n, columns = b.shape
        count = lane_count(a)
        t = tile(np.empty((n + 1) * count, a.dtype), n, a)
        next_rows = 8 * n if lower else -8 * n
        failed = False
        for m in range(systems):
            flaw = check = magnitude(splat(0, t))
            for j in range(0, columns, count):
                at, left = m * n * columns + j, columns - j
                for i in range(n):
                    t[0, i] = load_first(b, at + i * columns, left, t)
                if lower:
                    flaw = forward_rows(a, n, m, None, t, flaw, 1, next_rows)
                else:
                    flaw = backward_rows(a, n, m, None, t, flaw, 1, next_rows)
                for i in range(n):
                    check = weigh(check, t[0, i])
                    store_first(x, at + i * columns, left, unsigned_zero(t[0, i]))
            status[m] = int(lane(flaw, 0))
            if status[m] == OK and any_lane(check != magnitude(splat(0, t))):
                status[m] = UNBOUNDED
            failed |= status[m] != OK
        if failed:
            below, above = (n, 0) if lower else (0, n)
            reject_band(a, b, x, status, below, above, False)

    return solve
