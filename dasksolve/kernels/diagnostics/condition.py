"""Estimates ‖A⁻¹‖₁ from the factors, as Hager, Higham and Tisseur do, in steps that never vary.

Two vectors are solved for; the transposed solution for the directions of the elements of the
larger answer points at two columns of A⁻¹, and the largest norm met is the estimate: a lower
bound, seldom below half of the norm (Higham and Tisseur, SIAM J. Matrix Anal. Appl. 21, 2000,
1185-1201; LAPACK's gecon repeats such steps with one column until nothing changes).
"""

from dasksolve.kernels.compiling.jit import part
from dasksolve.kernels.language.lanes import fma, operation, splat, where
from dasksolve.kernels.language.values import Pair
from dasksolve.kernels.lu.substitution import substitute, substitute_transposed

TRIALS = 2
# |z| ≥ (|re| + |im|) / √2, of which these are the first digits.
SLANT = 0.7071


@part
def trial(i, c, n):
    """Element i of the vectors to begin with.

    The first is of ones. The second has alternating signs and grows from 1 to 2: LAPACK's gecon
    tries it last, against matrices that were made to mislead the other steps.
    """
    return (1 + i / max(n - 1, 1)) * (1 - 2 * (i & 1)) if c else 1.0


@part
def trial_norm(c, n):
    """‖trial(:, c)‖₁."""
    return 1.5 * n if c and n > 1 else 1.0 * n


@operation(lambda x: x.real)
def modulus(x):
    """|x|, without overflow on the way."""
    if not isinstance(x, Pair):
        return abs(x)
    upright = abs(x.real) >= abs(x.imag)
    large, small = where(upright, x.real, x.imag), where(upright, x.imag, x.real)
    ratio = small / where(large == large.fill(0), large.fill(1), large)
    return abs(large) * fma(ratio, ratio, ratio.fill(1)).call("sqrt")


@operation(lambda x, y: x)
def larger(x, y):
    """The larger one; x once it is NaN."""
    return where((y <= x) | (x != x), x, y)


@operation(lambda x: x.real)
def rough_modulus(x):
    """Between 0.92 |x| and |x|, without a root or a division: all that an estimate needs."""
    if not isinstance(x, Pair):
        return abs(x)
    real, imag = abs(x.real), abs(x.imag)
    slanted = (real.fill(SLANT) * real) + (real.fill(SLANT) * imag)
    return larger(larger(real, imag), slanted)


@operation(lambda x: x)
def direction(x):
    """The conjugate of x over its `rough_modulus`; 1 where x is 0."""
    if not isinstance(x, Pair):
        return where(x < x.fill(0), x.fill(-1), x.fill(1))
    size = rough_modulus(x)
    none, one = size == size.fill(0), size.fill(1)
    size = where(none, one, size)
    return Pair(where(none, one, x.real / size), -(x.imag / size))


@part
def norm(t, n, c):
    """‖·‖₁ of a column by `rough_modulus`."""
    total = rough_modulus(t[0, c])
    for i in range(1, n):
        total = total + rough_modulus(t[i, c])
    return total


@part
def point_at_largest(t, n, c):
    """Overwrite columns c and c + 1 by the unit vectors of the two largest elements of c."""
    zero = rough_modulus(splat(0, t))
    first, second, at_first, at_second = zero, zero, zero, zero
    for i in range(n):
        size, here = rough_modulus(t[i, c]), splat(float(i), zero)
        leads, follows = size > first, size > second
        second = where(leads, first, where(follows, size, second))
        at_second = where(leads, at_first, where(follows, here, at_second))
        first, at_first = where(leads, size, first), where(leads, here, at_first)
    for i in range(n):
        here = splat(float(i), zero)
        t[i, c] = where(at_first == here, splat(1, t), splat(0, t))
        t[i, c + 1] = where(at_second == here, splat(1, t), splat(0, t))


@part
def begin(t, n, left):
    """Put the vectors to begin with in columns from `left` on, to be solved for."""
    for i in range(n):
        for c in range(TRIALS):
            t[i, left + c] = splat(trial(i, c, n), t)


@part
def inverse_norm(t, pivots, n, left):
    """‖A⁻¹‖₁ in each lane, from the factors in the tile and the answers to what `begin` put there.

    The columns are overwritten.
    """
    right = left + 1
    one, two = norm(t, n, left), norm(t, n, right)
    one, two = one * splat(1 / trial_norm(0, n), one), two * splat(1 / trial_norm(1, n), two)
    for i in range(n):
        t[i, left] = direction(where(two > one, t[i, right], t[i, left]))
    substitute_transposed(t, pivots, n, left, right)
    point_at_largest(t, n, left)
    substitute(t, pivots, n, left, left + TRIALS)
    return larger(larger(one, two), larger(norm(t, n, left), norm(t, n, right)))
