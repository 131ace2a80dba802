"""Signs and logarithms of determinants from kept factors, with the same bits on every processor.

Only operations that IEEE 754 rounds correctly, in a fixed order: the logarithm of a C library has
other bits in another one.
"""

import math

import numpy as np

from dasksolve.kernels.compiling.jit import jit, named, part

# Of log(1 + f), from fdlibm's e_log.c (Sun Microsystems): error below one unit in the last place.
LN2_HIGH, LN2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10
ODD = 0.6666666666666735130, 0.2857142874366239149, 0.1818357216161805012, 0.1479819860510311658591
EVEN = 0.3999999999940941908, 0.2222219843214978396, 0.1531383769920937332
FIELD, HALF = 0x7FF << 52, 0x3FE << 52  # where a double has its exponent, and that of 0.5


@part
def split(x):
    """math.frexp(x), without a call where the bits of x say it at once."""
    bits = np.float64(x).view(np.int64)
    field = bits & FIELD
    if field == 0 or field == FIELD:
        mantissa, power = math.frexp(x)
        return mantissa, np.int64(power)
    return np.int64(bits ^ field ^ HALF).view(np.float64), np.int64((field >> 52) - 1022)


@part
def logarithm(mantissa, exponent):
    """The natural logarithm of mantissa · 2^exponent, a mantissa in (0, 1]."""
    mantissa, power = split(mantissa)
    small = mantissa < math.sqrt(0.5)
    f = (2 * mantissa if small else mantissa) - 1
    k = float(exponent + power - small)
    s = f / (2 + f)
    z = s * s
    w = z * z
    odd = z * (ODD[0] + w * (ODD[1] + w * (ODD[2] + w * ODD[3])))
    even = w * (EVEN[0] + w * (EVEN[1] + w * EVEN[2]))
    half = 0.5 * f * f
    return k * LN2_HIGH - ((half - (s * (half + (odd + even)) + k * LN2_LOW)) - f)


@part
def times(product, exponent, i, factor):
    """Take factor number i into a product, of mantissas in (2⁻⁵⁰⁰, 1) and exponents of two."""
    mantissa, power = split(factor)
    product *= mantissa
    exponent += power
    if i % 500 == 499:
        product, power = split(product)
        exponent += power
    return product, exponent


@part
def of_real(lu, m, places):
    """Sign and logarithm from the reciprocals of real pivots, which are at these places."""
    product, exponent = 1.0, 0
    for i in range(len(places)):
        product, exponent = times(product, exponent, i, float(lu[m, 0, places[i]]))
    return np.sign(product), 0.0 - logarithm(abs(product), exponent)  # not -0 for 1


@part
def of_complex(lu, m, places):
    """The same of complex ones."""
    product, exponent, sign = 1.0, 0, 1 + 0j
    for i in range(len(places)):
        inverse = np.complex128(lu[m, 0, places[i]])
        scale = split(max(abs(inverse.real), abs(inverse.imag)))[1]
        real, imag = math.ldexp(inverse.real, -scale), math.ldexp(inverse.imag, -scale)
        square = real * real + imag * imag
        size = math.sqrt(square)
        cosine, sine = real / size, -imag / size  # of the pivot, not of its inverse
        sign = complex(sign.real * cosine - sign.imag * sine, sign.real * sine + sign.imag * cosine)
        product, exponent = times(product, exponent, i, square)
        exponent += 2 * scale
    return sign, (0.0 - logarithm(product, exponent)) / 2


@part
def cycles(order, m, seen):
    """How many cycles the permutation order[m] has; -1 where it names rows that are not there."""
    count, n = 0, len(seen)
    for start in range(n):
        row = start
        count += seen[start] != m
        while seen[row] != m:
            seen[row] = m
            row = order[m, row]
            if not 0 <= row < n:
                return -1
    return count


def kernel(of_pivots):
    """The kernel ``determine(lu, order, places, seen, sign, logabsdet)``: whether it could."""

    def determine(lu, order, places, seen, sign, logabsdet):
        for m in range(len(sign)):
            count = cycles(order, m, seen)
            if count < 0:
                return False
            unit, logabsdet[m] = of_pivots(lu, m, places)
            sign[m] = -unit if (len(places) - count) % 2 else unit
        return True

    return jit(named(determine, of_pivots.__name__))
