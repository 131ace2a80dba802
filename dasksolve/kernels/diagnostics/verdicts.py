"""What is wrong with the system in each lane, and what becomes of its x and status."""

import numpy as np
from numba import types

from dasksolve.kernels.compiling.jit import part
from dasksolve.kernels.language.lanes import any_lane, fma, operation, where
from dasksolve.kernels.language.values import Pair
from dasksolve.status import Status

OK, SINGULAR, NONFINITE = int(Status.OK), int(Status.SINGULAR), int(Status.NONFINITE)
NOT_POSITIVE_DEFINITE = int(Status.NOT_POSITIVE_DEFINITE)
UNBOUNDED = -2
"""A kernel's own: A and a column of b are finite, but elimination or x over- or underflowed."""


def finfo(real):
    """What the numbers in the lanes may be."""
    return np.finfo(np.float32 if str(real.value.type.element) == "float" else np.float64)


def bounded(pivot):
    """Whether nothing is wrong with the magnitude of a pivot."""
    least = 2.0 ** -finfo(pivot).maxexp  # of this and of less the reciprocal is infinite
    return (pivot > pivot.fill(least)) & (pivot < pivot.fill(np.inf))


def first_flawed(earlier, pivot):
    """The magnitude of the next pivot, unless an earlier one shows a flaw: what is to be judged."""
    return where(bounded(earlier), pivot, earlier)


@operation(lambda flaw, pivot: flaw)
def judge(flaw, pivot):
    """`flaw`, or the first that the magnitude of a pivot shows."""
    sound = where(bounded(pivot), pivot.fill(OK), pivot.fill(NONFINITE))
    found = where(pivot == pivot.fill(0), pivot.fill(SINGULAR), sound)
    return where(flaw == flaw.fill(OK), found, flaw)


@operation(lambda flaw, pivot: flaw)
def judge_positive(flaw, pivot):
    """`flaw`, or the first that a pivot shows which is to be positive."""
    least = finfo(pivot).tiny
    sound = (pivot >= pivot.fill(least)) & (pivot < pivot.fill(np.inf))
    found = where(pivot <= pivot.fill(0), pivot.fill(NOT_POSITIVE_DEFINITE), pivot.fill(NONFINITE))
    return where(~sound & (flaw == flaw.fill(OK)), found, flaw)


@operation(lambda check, x: check)
def weigh(check, x):
    """`check` + 0 x, which stays 0 as long as every x is finite."""
    for number in (x.real, x.imag) if isinstance(x, Pair) else (x,):
        check = fma(number, number.fill(0), check)
    return check


@operation(lambda status, first, last, flaw, check: types.boolean)
def record(status, first, last, flaw, check, full=False):
    """Write the status of each system of a tile, `full` or not; whether any of them is not OK."""
    unbounded = (flaw == flaw.fill(OK)) & (check != check.fill(0))
    flaw = where(unbounded, flaw.fill(UNBOUNDED), flaw)
    if full:
        status.store(first, status.integers(flaw))
    else:
        status.put([(first + lane).at_most(last) for lane in range(flaw.count)], flaw)
    return any_lane(flaw != flaw.fill(OK))


@operation(lambda x: x.dtype)
def undefined(x):
    """NaN as a number of the array x: in both parts of a complex one."""
    return x.number(np.nan)


@part
def finite(values):
    total = 0.0
    for value in values.flat:
        total += abs(value - value)
    return total == 0


@part
def finite_column(values, m, j):
    """Whether all of values[m, :, j] is."""
    total = 0.0
    for i in range(values.shape[1]):
        total += abs(values[m, i, j] - values[m, i, j])
    return total == 0


@part
def spoil_column(x, m, j):
    for i in range(x.shape[1]):
        x[m, i, j] = undefined(x)


@part
def spoil_columns(x, m):
    """Make NaN the columns of x[m] that are not finite."""
    for j in range(x.shape[2]):
        if not finite_column(x, m, j):
            spoil_column(x, m, j)


@part
def reject_system(b, x, m, verdict, given):
    """Leave no number in x[m] that is no answer, where `given` says whether A is finite.

    Returns the status. The verdict UNBOUNDED says that elimination is sound: then columns of x that
    are finite stay. A column of b that is not finite can blame nothing but itself, so that the
    verdict on A stands if there is another.
    """
    lost = False
    for j in range(b.shape[2]):
        if not given or verdict != UNBOUNDED or not finite_column(x, m, j):
            spoil_column(x, m, j)
            lost |= finite_column(b, m, j)
    if not given or not lost:
        return NONFINITE
    return UNBOUNDED if verdict == NONFINITE else verdict


@part
def finite_band(a, below, above, hermitian):
    """`finite` for so many diagonals below and above the main one, real if `hermitian`."""
    n = len(a)
    total = 0.0
    for i in range(n):
        for j in range(max(0, i - below), min(n, i + above + 1)):
            x = a[i, j] - a[i, j]
            total += abs(x.real) if hermitian and i == j else abs(x)
    return total == 0


def rejecting(below, above, hermitian=False):
    """The part that gives what is no answer the value NaN, and a system's own NaN or Inf the blame.

    It looks at so many diagonals below and above the main one, since nothing else is read.
    """

    @part
    def reject(a, b, x, status):
        for m in range(len(status)):
            if status[m] != OK:
                given = finite_band(a[m], below, above, hermitian)
                status[m] = reject_system(b, x, m, status[m], given)

    return reject


def rejecting_triangle(lower, hermitian=False):
    """`rejecting` where one triangle is read."""
    return rejecting(ALL * lower, ALL * (not lower), hermitian)


ALL = 1 << 30
reject = rejecting(ALL, ALL)
