"""Least squares with a design for each system, scaled where its numbers are out of range.

Each column has its power of two, so that nothing is rounded.
"""

import math

import numpy as np

from dasksolve.kernels.compiling.jit import part
from dasksolve.status import Status

SMALL = 2.0**-64
"""A row of numbers, each times it, has no sum that overflows, nor Inf - Inf among their sizes."""
OF_ZERO = -(1 << 20)
"""The exponent of zero: below any other, whatever is added."""
OK, NONFINITE, RANK_DEFICIENT = map(int, (Status.OK, Status.NONFINITE, Status.RANK_DEFICIENT))


@part
def size_of(x):
    """The larger part of a number, which may be complex."""
    return max(abs(x.real), abs(x.imag))


@part
def finite(a, b, roots):
    """Whether the rows of a system that are not missing are."""
    for i in range(len(a)):
        total = SMALL * abs(roots[i].real)
        for x in a[i]:
            total += SMALL * abs(x.real) + SMALL * abs(x.imag)
        for x in b[i]:
            total += SMALL * abs(x.real) + SMALL * abs(x.imag)
        if total == np.inf and roots[i] != 0:
            return False
    return True


@part
def exponent(x):
    """e with 2ᵉ⁻¹ ≤ |x| < 2ᵉ, of the larger part of a complex number; that of 0 is `OF_ZERO`."""
    return math.frexp(size_of(x))[1] if x != 0 else OF_ZERO


@part
def is_missing(a, b, root):
    """Whether a row is, as `read_roots` says it."""
    missing = root == 0 or root != root
    for x in a:
        missing |= x != x
    for x in b:
        missing |= x != x
    return missing


@part
def shifted(x, power):
    """x times a power of two, which need not be a number itself."""
    if x == 0:  # a power that overflows would make NaN of it
        return x
    half = power // 2
    return x * math.ldexp(1.0, half) * math.ldexp(1.0, power - half)


@part
def scale(a, b, roots, one_a, one_b, one_roots, powers):
    """Copy a system, the columns of its weighed rows each times a power of two; their exponents.

    What is missing is left out: it has no say in the powers.
    """
    observations, n = a.shape
    powers[:] = OF_ZERO
    for i in range(observations):
        one_roots[0, i] = 0
        if not is_missing(a[i], b[i], roots[i]):
            root, power = math.frexp(roots[i].real)
            one_roots[0, i] = root
            for j in range(n):
                powers[j] = max(powers[j], exponent(a[i, j]) + power)
            for c in range(b.shape[1]):
                powers[n + c] = max(powers[n + c], exponent(b[i, c]) + power)
    for j in range(len(powers)):
        if powers[j] < OF_ZERO // 2:
            powers[j] = 0
    for i in range(observations):
        if one_roots[0, i] == 0:
            one_a[0, i], one_b[0, i] = 0, 0
            continue
        power = math.frexp(roots[i].real)[1]
        for c in range(b.shape[1]):
            one_b[0, i, c] = shifted(b[i, c], power - powers[n + c])
        for j in range(n):
            one_a[0, i, j] = shifted(a[i, j], power - powers[j])


@part
def unscale(one, powers, found, m):
    """Write what was found of a scaled system: NONFINITE where x overflows.

    It is RANK_DEFICIENT where it is pending still.
    """
    x, rss, variances, rcond, _, status, covariance = found
    n, columns = x.shape[1:]
    status[m] = OK if one[5][0] == OK else RANK_DEFICIENT
    rcond[m] = one[3][0] if one[3][0] == one[3][0] else 0.0
    for j in range(n):
        for c in range(columns):
            x[m, j, c] = shifted(one[0][0, j, c], powers[n + c] - powers[j])
            fits = abs(x[m, j, c].real) < np.inf and abs(x[m, j, c].imag) < np.inf
            if status[m] == OK and not fits:
                status[m], rcond[m] = NONFINITE, np.nan
        variances[m, j] = shifted(one[2][0, j], -2 * powers[j])
        for i in range(n if len(covariance) > 0 else 0):
            covariance[m, i, j] = shifted(one[6][0, i, j], -powers[i] - powers[j])
    for c in range(columns):
        rss[m, c] = shifted(one[1][0, c], 2 * powers[n + c])
