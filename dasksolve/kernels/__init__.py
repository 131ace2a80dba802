"""Picks a kernel from (structure, N, dtype) by a table.

Every kernel is called as ``kernel(a, b, x, status)`` with C-contiguous, native arrays: a (M, N, N)
and b (M, N, K) are read, x (M, N, K) and status (M,) int8 are written, N ≥ 1, M ≥ 0, K ≥ 1, all
of one dtype. It runs serially without the GIL, never raises, and gives the same bits for a system
wherever that stands in the batch. x is NaN where the status is not OK.

The arithmetic is fixed, so that every kernel for general matrices gives the same bits. Pivots are
the first of the largest |re| + |im| in their column, and are taken in panels of 8 (the last panel
may be smaller). Rows are swapped in the panel and to its right. Then, with (·) as the sum of
products over k in ascending order, begun by `lanes.product` and continued by `lanes.fma`, and
r_k = `lanes.reciprocal` of u_kk:

    in a panel that starts at s     u_ij = a_ij - (l_ik u_kj : s ≤ k < i)
                                    l_ij = (a_ij - (l_ik u_kj : s ≤ k < j)) r_j
    after it, right and below       a_ij ← a_ij - (l_ik u_kj : k in the panel)
    b                               as further columns of a, which give y
    x, panels from the last one     x_i = (y_i - (u_ik x_k : i < k in the panel)) r_i
    after each, above               y_i ← y_i - (u_ik x_k : k in the panel)

For real N ≤ 5 and complex N = 2 these are the operations of OpenBLAS's getrf, hence the same
verdicts on singularity.
"""

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numba import from_dtype, types

from dasksolve.kernels import (
    blocked,
    cholesky,
    cholesky_blocked,
    diagonal,
    interleaved,
    mirrored,
    small,
    triangular,
    tridiagonal,
    unrolled,
)
from dasksolve.kernels.lanes import width

Kernel = Callable[[Any, Any, Any, Any], None]
STATUS = types.Array(types.int8, 1, "C")


class Limits(NamedTuple):
    """The largest N for which a kernel is the fastest, or takes less than 5 s to compile."""

    unrolled: int
    """N is a constant; one system a lane."""
    interleaved: int
    """One system a lane; beyond, one system at a time."""
    interleaved_wide: int
    """The same for half as many right-hand sides as unknowns, or more."""


# Measured on Zen 4 with AVX-512, by the character of the dtype.
GENERAL = {
    "f": Limits(16, 128, 40),
    "d": Limits(16, 104, 36),
    "F": Limits(12, 144, 56),
    "D": Limits(12, 144, 48),
}


# The same for a triangle alone.
POSITIVE = {
    "f": Limits(16, 160, 160),
    "d": Limits(16, 128, 128),
    "F": Limits(12, 160, 160),
    "D": Limits(12, 128, 128),
}


def pick(
    assume_a: str, n: int, k: int, systems: int, dtype: np.dtype[Any], lower: bool = False
) -> Kernel:
    """The compiled kernel for so many systems of order `n` with `k` right-hand sides."""
    return STRUCTURES[assume_a](n, k, systems, dtype, lower)


def _general(n: int, k: int, systems: int, dtype: np.dtype[Any], lower: bool) -> Kernel:
    limits = GENERAL[dtype.char]
    if n <= limits.unrolled and (n <= 8 or k == 1 or not _is_few(systems, n, _lanes(dtype))):
        return compiled(unrolled.kernel, n, dtype)
    tiled = limits.interleaved_wide if 2 * k >= n else limits.interleaved
    if n > tiled or _is_few(systems, n, _lanes(dtype)):
        return compiled(blocked.kernel, 0, dtype)
    return compiled(interleaved.kernel, 0, dtype)


def _positive(n: int, k: int, systems: int, dtype: np.dtype[Any], lower: bool) -> Kernel:
    limits = POSITIVE[dtype.char]
    if n <= limits.unrolled and (n <= 8 or not _is_few(systems, n, _lanes(dtype))):
        return compiled(small.kernel, n, dtype, "pos", lower)
    tiled = limits.interleaved_wide if 2 * k >= n else limits.interleaved
    if n > tiled or _is_few(systems, n, _lanes(dtype)):
        return compiled(cholesky_blocked.kernel, 0, dtype, lower)
    return compiled(cholesky.kernel, 0, dtype, lower)


def _triangular(n: int, k: int, systems: int, dtype: np.dtype[Any], lower: bool) -> Kernel:
    if n <= 8:
        word = "lower triangular" if lower else "upper triangular"
        return compiled(small.kernel, n, dtype, word, lower)
    return compiled(triangular.kernel, 0, dtype, lower)


def _upper(n: int, k: int, systems: int, dtype: np.dtype[Any], lower: bool) -> Kernel:
    return _triangular(n, k, systems, dtype, False)


def _lower(n: int, k: int, systems: int, dtype: np.dtype[Any], lower: bool) -> Kernel:
    return _triangular(n, k, systems, dtype, True)


def _diagonal(n: int, k: int, systems: int, dtype: np.dtype[Any], lower: bool) -> Kernel:
    if n <= 8:
        return compiled(small.kernel, n, dtype, "diagonal", False)
    return compiled(diagonal.kernel, 0, dtype)


def _tridiagonal(n: int, k: int, systems: int, dtype: np.dtype[Any], lower: bool) -> Kernel:
    return compiled(tridiagonal.kernel, 0, dtype)


def _symmetric(n: int, k: int, systems: int, dtype: np.dtype[Any], lower: bool) -> Kernel:
    return _mirrored(_general(n, k, systems, dtype, lower), dtype, lower, False)


def _hermitian(n: int, k: int, systems: int, dtype: np.dtype[Any], lower: bool) -> Kernel:
    return _mirrored(_general(n, k, systems, dtype, lower), dtype, lower, dtype.kind == "c")


STRUCTURES = {
    "gen": _general,
    "pos": _positive,
    "sym": _symmetric,
    "her": _hermitian,
    "upper triangular": _upper,
    "lower triangular": _lower,
    "diagonal": _diagonal,
    "tridiagonal": _tridiagonal,
}


def _is_few(systems: int, n: int, lanes: int) -> bool:
    """Whether idle lanes cost more than solving one at a time, 1 + 5 lanes / N times as slow."""
    tiles = -(-systems // lanes)
    return systems * (n + 5 * lanes) <= tiles * lanes * n


@cache  # 3 µs saved of the 10 that one system of N = 20 takes
def _lanes(dtype: np.dtype[Any]) -> int:
    return width(dtype)


@cache
def _mirrored(general: Kernel, dtype: np.dtype[Any], lower: bool, hermitian: bool) -> Kernel:
    element = from_dtype(dtype)
    read, write = types.Array(element, 3, "C", readonly=True), types.Array(element, 3, "C")
    return mirrored.kernel(_compiled(mirrored.copy(0, lower, hermitian), (read, write)), general)


@cache
def compiled(
    make: Callable[..., Any], n: int, dtype: np.dtype[Any], *structure: str | bool
) -> Kernel:
    """The kernel that `make` makes, compiled for one dtype; n is 0 where it takes any order."""
    element = from_dtype(dtype)
    read, write = types.Array(element, 3, "C", readonly=True), types.Array(element, 3, "C")
    return _compiled(make(n, *structure), (read, read, write, STATUS))


@cache
def tridiagonal_bands(dtype: np.dtype[Any]) -> Callable[..., None]:
    """The kernel that is called as ``kernel(lower, diagonal, upper, b, x, status)``."""
    element = from_dtype(dtype)
    band = types.Array(element, 2, "C", readonly=True)
    read, write = types.Array(element, 3, "C", readonly=True), types.Array(element, 3, "C")
    return _compiled(tridiagonal.band_kernel(0), (band, band, band, read, write, STATUS))


def _compiled(dispatcher: Any, arguments: tuple[Any, ...]) -> Any:
    dispatcher.compile(arguments)
    dispatcher.disable_compile()  # numba would rather compile another one for writable a and b
    return dispatcher
