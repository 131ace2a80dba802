"""The kernels: numbers in, numbers and a status out.

Every kernel is called as ``kernel(a, b, x, status)`` with C-contiguous, native arrays: a (M, N, N)
and b (M, N, K) are read, x (M, N, K) and status (M,) int8 are written, N ≥ 1, M ≥ 0, K ≥ 1, all
of one dtype. It runs serially without the GIL, never raises, and gives the same bits for a system
wherever that stands in the batch. x is NaN where the status is not OK; but of a system that is
NONFINITE for some columns of its b alone, the others are solved. The status `UNBOUNDED` asks the
caller to try once more: `scaling` does.

The arithmetic is fixed, so that every kernel for general matrices gives the same bits. Pivots are
the first of the largest |re| + |im| in their column, and are taken in panels of 8 (the last panel
may be smaller). Rows are swapped in the panel and to its right. Then, with (·) as the sum of
products over k in ascending order, or in descending order where that is said, begun by
`lanes.product` and continued by `lanes.fma`, and r_k = `lanes.reciprocal` of u_kk:

    in a panel that starts at s     u_ij = a_ij - (l_ik u_kj : s ≤ k < i)
                                    l_ij = (a_ij - (l_ik u_kj : s ≤ k < j)) r_j
    after it, right and below       a_ij ← a_ij - (l_ik u_kj : k in the panel)
    b                               as further columns of a, which give y
    x, panels from the last one     x_i = (y_i - (u_ik x_k : i < k in the panel, descending)) r_i
    after each, above               y_i ← y_i - (u_ik x_k : k in the panel)

For real N ≤ 5 and complex N = 2 these are the operations of OpenBLAS's getrf, hence the same
verdicts on singularity.
"""

from functools import cache
from typing import Any

import numpy as np
from numba import from_dtype, types

from dasksolve.kernels import making
from dasksolve.kernels import unpacking as unpack
from dasksolve.kernels.choice import GENERAL, STRUCTURES, is_few, is_wide, pick, pick_shared
from dasksolve.kernels.compiling import forking
from dasksolve.kernels.compiling.child import compiling_apart
from dasksolve.kernels.compiling.jit import NO_CACHE, has_cache
from dasksolve.kernels.diagnostics import errors, structured
from dasksolve.kernels.diagnostics import residuals as extended_residuals
from dasksolve.kernels.factors import determining, elements, factoring, pivots, substituting
from dasksolve.kernels.fits import BLOCK, adding, least_squares, regressing, row_length
from dasksolve.kernels.language.target import FMA
from dasksolve.kernels.making import Kernel, compiled
from dasksolve.kernels.tridiagonal import interleaved as tridiagonal_interleaved

__all__ = [
    "ARITHMETIC",
    "BLOCK",
    "GENERAL",
    "NO_CACHE",
    "STRUCTURES",
    "Kernel",
    "adding",
    "backward_errors",
    "compiled",
    "compiling_apart",
    "determining",
    "elements",
    "factoring",
    "has_cache",
    "is_few",
    "is_wide",
    "least_squares",
    "pick",
    "pick_shared",
    "pivots",
    "regressing",
    "residuals",
    "row_length",
    "structured_errors",
    "substituting",
    "tridiagonal_bands",
    "unpacking",
]

ARITHMETIC = "5" if FMA else "5 without fma"
"""Counted up when any answer changes by a bit: `check_zarr` then compares within bounds."""
forking.register()


@cache
def tridiagonal_bands(dtype: np.dtype[Any]) -> Kernel:
    """The kernel that is called as ``kernel(lower, diagonal, upper, b, x, status)``."""
    read, write = making.arrays(dtype)
    band = types.Array(read.dtype, 2, "C", readonly=True)
    signature = (band, band, band, read, write, making.STATUS)
    return making.ready(tridiagonal_interleaved.band_kernel(0), signature, tridiagonal_bands, dtype)


@cache
def residuals(dtype: np.dtype[Any]) -> Kernel:
    """The kernel ``residuals(a, b, x, r)``: r = b - A x, rounded once."""
    read, write = making.arrays(dtype)
    signature = (read, read, read, write)
    return making.ready(extended_residuals.kernel(0), signature, residuals, dtype)


@cache
def backward_errors(dtype: np.dtype[Any]) -> Kernel:
    """The kernel ``errors(a, b, x, backward_error)``: NaN where norms are out of its range."""
    read, _ = making.arrays(dtype)
    signature = (read, read, read, types.Array(types.float64, 1, "C"))
    return making.ready(errors.kernel(0), signature, backward_errors, dtype)


@cache
def structured_errors(dtype: np.dtype[Any], mirrored: bool, hermitian: bool) -> Kernel:
    """The kernel ``errors(a, b, x, below, above, backward_error)`` of `diagnostics.structured`.

    For float64 and complex128, quick, for `check`.
    """
    read, _ = making.arrays(dtype)
    found = types.Array(types.float64, 1, "C")
    signature = (read, read, read, types.int64, types.int64, found)
    dispatcher = structured.kernel(0, mirrored, hermitian)
    return making.ready(dispatcher, signature, structured_errors, dtype, mirrored, hermitian)


@cache
def unpacking(stored: np.dtype[Any], dtype: np.dtype[Any]) -> Kernel:
    """The kernel ``unpack(stored, meant, missing, number, scaled, scale, shifted, offset)``.

    Flat arrays; scale and offset of the dtype that is meant; three flags say what is to be done.
    """
    number, flag = from_dtype(dtype), types.boolean
    read = types.Array(from_dtype(stored), 1, "C", readonly=True)
    written = types.Array(number, 1, "C")
    signature = (read, written, flag, types.float64, flag, number, flag, number)
    dispatcher = unpack.kernel()
    return making.ready(dispatcher, signature, unpacking, stored, dtype)
