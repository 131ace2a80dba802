"""LU factors to keep, in the order in which `reuse` reads them, computed one system a lane."""

import numpy as np
from numba import types

from dasksolve.kernels.compiling.jit import jit, part
from dasksolve.kernels.diagnostics.condition import TRIALS, begin, inverse_norm
from dasksolve.kernels.diagnostics.norms import measurable, norms, workspace
from dasksolve.kernels.diagnostics.verdicts import (
    NONFINITE,
    OK,
    SINGULAR,
    UNBOUNDED,
    finite,
    record,
    undefined,
)
from dasksolve.kernels.language.lanes import PANEL, magnitude, operation, splat
from dasksolve.kernels.language.tiles import lane_count, put_numbers, row_offset
from dasksolve.kernels.lu import interleaved
from dasksolve.kernels.lu.reuse import block_place
from dasksolve.kernels.lu.substitution import exchange, substitute
from dasksolve.kernels.regimes.columns import write


@operation(lambda *_: types.intp)
def swap_of(swaps, k, lane):
    """Where the row begins that is swapped with row k in one lane."""
    return swaps.integer(k, lane)


@part
def finish_rows(t, swaps, n):
    """Swap the rows of each panel of L as the pivots after it say."""
    for stop in range(PANEL, n, PANEL):
        for c in range(stop - PANEL, stop):
            for k in range(stop, n):
                exchange(t, swaps, k, c)


@part
def write_factors(lu, order, first, last, t, swaps):
    """Write the blocks as `reuse` reads them, and where their rows are in a."""
    n = lu.shape[1]
    panels = -(-n // PANEL)
    for s in range(panels):
        for i in range(panels):
            at, high = block_place(n, i, s), min(n - i * PANEL, PANEL)
            for j in range(s * PANEL, min(s * PANEL + PANEL, n)):
                if high == PANEL:
                    write(lu, at, n * n, first, last, t, i * PANEL, j, PANEL, True)
                else:
                    for k in range(high):
                        write(lu, at + k, n * n, first, last, t, i * PANEL + k, j, 1, True)
                at += high
    for m in range(first, min(first + lane_count(lu), last + 1)):
        for k in range(n):
            order[m, k] = k
        for k in range(n):
            other = swap_of(swaps, k, m - first) // row_offset(t, 1)
            order[m, k], order[m, other] = order[m, other], order[m, k]


@part
def rate(a, lu, m, status, rcond, vectors, sums):
    """Replace ‖A⁻¹‖₁ in `rcond` by the condition number's reciprocal; look for lost factors."""
    low, high = measurable(a)
    one, infinity = norms(a, m, vectors, sums)
    bounded = infinity < np.inf and rcond[m] < np.inf
    if status[m] == OK and not (bounded or finite(lu[m])):
        status[m] = NONFINITE
    rcond[m] = 1 / one / rcond[m] if low <= infinity <= high else np.nan


@part
def conclude(a, lu, order, status, rcond):
    """Leave no factors of systems that have none, and say why."""
    for m in range(len(status)):
        if status[m] != OK:
            lu[m] = undefined(lu)
            for k in range(a.shape[1]):  # to assign an array takes 1 s more to compile
                order[m, k] = k
            if not finite(a[m]):
                status[m] = NONFINITE
            elif status[m] == NONFINITE:
                status[m] = UNBOUNDED
            rcond[m] = 0 if status[m] == SINGULAR else np.nan


def factor(a, lu, order, status, rcond):
    """Factor a[m] for every m; row i of L U is row order[m, i] of a[m]."""
    systems, n = a.shape[:2]
    count, last = lane_count(a), systems - 1
    held = interleaved.hold(a, n, TRIALS)
    t, _, swaps = held
    vectors, sums = workspace(a)
    for first in range(0, systems, count):
        sound = magnitude(splat(0, t))
        flaw = interleaved.factor(a, first, last, held, sound)
        record(status, first, last, flaw, sound)
        begin(t, n, n)
        substitute(t, swaps, n, n, n + TRIALS)
        put_numbers(rcond, first, last, inverse_norm(t, swaps, n, n))
        finish_rows(t, swaps, n)
        write_factors(lu, order, first, last, t, swaps)
        for m in range(first, min(first + count, systems)):
            rate(a, lu, m, status, rcond, vectors, sums)
    conclude(a, lu, order, status, rcond)


def kernel(_):
    """The kernel ``factor(a, lu, order, status, rcond)``, for systems of any order."""
    return jit(factor)
