"""Kernels that fit: one design to many series, or a design to each."""

from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numba import from_dtype, types

from dasksolve.kernels import making
from dasksolve.kernels.making import Kernel
from dasksolve.kernels.regression import parts, separate, shared, sums


@cache
def regressing(n: int, dtype: np.dtype[Any], stored: np.dtype[Any]) -> Kernel:
    """The kernel for regressions on n columns, of a real dtype; at least as many series as lanes.

    It is called as ``kernel(y, packing, w, own, along, table, basis, min_count, threshold, coef,
    stderr, rss, count, rcond, status, covariance, start, stop)``, all arrays flat: y (P, M), or
    (M, P) if `along`, `stored` in that dtype or in integers of 16 bits at most, of which three
    numbers of `packing` say which is missing, what they are multiplied by and what is added; w of
    y's shape if `own`, else (P,); `table` and `basis` as `batch.basis` makes them; coef and stderr
    (N, M), or (M, N) if `along`; covariance (M, N, N) or empty. It does the series start … stop.
    """
    numbers, doubles = (types.Array(e, 1, "C") for e in (from_dtype(dtype), types.float64))
    read, constants = (types.Array(v.dtype, 1, "C", readonly=True) for v in (numbers, doubles))
    index, number, counts = types.intp, types.float64, types.Array(types.int32, 1, "C")
    y = types.Array(from_dtype(stored), 1, "C", readonly=True)
    given = (y, types.UniTuple(number, 3), read, index, index, read, constants, number, number)
    found = (numbers, numbers, numbers, counts, doubles, making.STATUS, numbers)
    dispatcher, signature = shared.kernel(n), (*given, *found, index, index)
    return making.ready(dispatcher, signature, regressing, n, dtype, stored)


def row_length(n: int, dtype: np.dtype[Any]) -> int:
    """Numbers in a row of products of a `table`: there may be more than there are products."""
    return sums.row_length(n, dtype)


BLOCK = sums.BLOCK
"""Observations that the kernels take at once: a `table` has rows for whole blocks."""


class Adding(NamedTuple):
    """The kernels for regressions whose observations come a part after the other."""

    places: dict[Any, int]
    """What stands where in the state of a tile of series, each a vector."""
    lanes: int
    """Series in a tile; the last one may overlap the one before."""
    add: Kernel
    """``add(y, w, own, table, basis, state, series, residuals)``: y (P, M) of some observations."""
    turn: Kernel
    """``turn(basis, state, series, threshold)``, between sums and residuals."""
    answer: Kernel
    """``answer(basis, state, along, min_count, threshold, coef, …)``, as that of `regressing`."""


@cache
def adding(n: int, dtype: np.dtype[Any]) -> Adding:
    """The kernels for n columns, of a real dtype; all arrays are flat."""
    numbers, doubles = (types.Array(e, 1, "C") for e in (from_dtype(dtype), types.float64))
    read, constants = (types.Array(v.dtype, 1, "C", readonly=True) for v in (numbers, doubles))
    index, number, counts = types.intp, types.float64, types.Array(types.int32, 1, "C")
    found = (numbers, numbers, numbers, counts, doubles, making.STATUS, numbers)
    signatures = (
        (read, read, index, read, constants, numbers, index, index),
        (constants, numbers, index, number),
        (constants, numbers, index, number, number, *found),
    )
    made = []
    for make, signature in zip(
        (parts.adding, parts.turning, parts.answering), signatures, strict=True
    ):
        made.append(making.ready(make(n), signature, adding, n, dtype))
    return Adding(parts.places(n), sums.lanes(dtype), *made)


@cache
def least_squares(dtype: np.dtype[Any]) -> Kernel:
    """The kernel ``kernel(a, b, roots, own, threshold, x, rss, variances, …, covariance)``.

    a (M, P, N) and b (M, P, K) are read, and `roots` of the weights, (M, P) if `own`, else (1, P);
    x (M, N, K), rss (M, K), variances (M, N), the diagonal of (aᴴ a)⁻¹, rcond and count (M,) of
    float64 are written, and all of (aᴴ a)⁻¹ to `covariance` (M, N, N), or none to (0, N, N). The
    status is PENDING where rcond is below the threshold, or out of range.
    """
    read, write = making.arrays(dtype)
    real = from_dtype(np.zeros((), dtype).real.dtype)
    roots, numbers = types.Array(read.dtype, 2, "C", readonly=True), types.Array(real, 2, "C")
    doubles = types.Array(types.float64, 1, "C")
    found = (write, numbers, numbers, doubles, doubles, making.STATUS, write)
    dispatcher = separate.kernel(0)
    signature = (read, read, roots, types.intp, types.float64, *found)
    return making.ready(dispatcher, signature, least_squares, dtype)
