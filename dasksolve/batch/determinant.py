"""Signs and logarithms of determinants from kept factors, with the same bits on every processor.

Only operations that IEEE 754 rounds correctly, each an array operation of its own and in a fixed
order: a logarithm, a modulus or a product of complex numbers of NumPy's has other bits where
vectors are wider.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dasksolve import kernels

Floats = NDArray[np.float64]

# Of log(1 + f), from fdlibm's e_log.c (Sun Microsystems): error below one unit in the last place.
_LN2_HIGH, _LN2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10
_ODD = (0.6666666666666735130, 0.2857142874366239149, 0.1818357216161805012, 0.1479819860511658591)
_EVEN = (0.3999999999940941908, 0.2222219843214978396, 0.1531383769920937332)
_FEW = 8  # rows of which to compare all pairs is faster than to follow the cycles


@np.errstate(all="ignore")
def slogdet(lu: NDArray[Any], order: NDArray[np.int32]) -> tuple[NDArray[Any], Floats]:
    """Sign, and logarithm of the absolute value, of factors (M, N, N) in an order (M, N)."""
    n = lu.shape[-1]
    diagonal = lu.reshape(len(lu), n * n).T[kernels.pivots(n)]  # the inverses of the pivots
    odd = _is_odd(order)
    if lu.dtype.kind == "c":
        sign, log = _complex(diagonal.real, diagonal.imag)
    else:
        sign, log = _real(diagonal)
    sign[odd] = -sign[odd]
    return sign.astype(lu.dtype), log


def _real(inverses: NDArray[Any]) -> tuple[NDArray[Any], Floats]:
    product, exponent = _product(inverses)
    return np.sign(product), 0.0 - _log(np.abs(product), exponent)  # not -0 for 1


def _complex(real: NDArray[Any], imag: NDArray[Any]) -> tuple[NDArray[Any], Floats]:
    real, imag = real.astype(np.float64), imag.astype(np.float64)
    scale = np.frexp(np.maximum(np.abs(real), np.abs(imag)))[1]
    real, imag = np.ldexp(real, -scale), np.ldexp(imag, -scale)
    squares = real * real + imag * imag
    sizes = np.sqrt(squares)
    cosines, sines = real / sizes, -imag / sizes  # of the pivots, not of their inverses
    sign = np.ones(real.shape[1:], np.complex128)
    for cosine, sine in zip(cosines, sines, strict=True):
        left, right = sign.real * cosine, sign.imag * sine
        sign.imag = sign.real * sine + sign.imag * cosine
        sign.real = left - right
    product, exponent = _product(squares)
    return sign, (0.0 - _log(product, exponent + 2 * scale.sum(axis=0))) / 2


def _product(factors: NDArray[Any]) -> tuple[Floats, NDArray[np.int64]]:
    """The product over the first axis, as mantissas in (2⁻⁵⁰⁰, 1) and exponents of two."""
    product = np.ones(factors.shape[1:])
    exponent = np.zeros(factors.shape[1:], np.int64)
    for i, factor in enumerate(factors, 1):
        mantissa, power = np.frexp(factor.astype(np.float64))
        product *= mantissa
        exponent += power
        if i % 500 == 0:
            product, power = np.frexp(product)
            exponent += power
    return product, exponent


def _log(mantissa: Floats, exponent: NDArray[np.int64]) -> Floats:
    """The natural logarithm of mantissa · 2^exponent, a mantissa in (0, 1]."""
    mantissa, power = np.frexp(mantissa)
    small = mantissa < np.sqrt(0.5)
    f = np.where(small, 2 * mantissa, mantissa) - 1
    k = (exponent + power - small).astype(np.float64)
    s = f / (2 + f)
    z = s * s
    w = z * z
    odd = z * (_ODD[0] + w * (_ODD[1] + w * (_ODD[2] + w * _ODD[3])))
    even = w * (_EVEN[0] + w * (_EVEN[1] + w * _EVEN[2]))
    half = 0.5 * f * f
    return k * _LN2_HIGH - ((half - (s * (half + (odd + even)) + k * _LN2_LOW)) - f)


def _is_odd(order: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Which permutations are odd."""
    n = order.shape[-1]
    if n <= _FEW:
        rows = list(order.T)
        odd = np.zeros(len(order), bool)
        for i, row in enumerate(rows):
            for later in rows[i + 1 :]:
                odd ^= later < row
        return odd
    # N minus the number of cycles is odd.
    least, ahead = np.broadcast_to(np.arange(n), order.shape), order
    for _ in range(n.bit_length()):  # the least of 1, 2, 4, … elements of each cycle
        least = np.minimum(least, np.take_along_axis(least, ahead, -1))
        ahead = np.take_along_axis(ahead, ahead, -1)
    return np.count_nonzero(least != np.arange(n), axis=-1) % 2 == 1
