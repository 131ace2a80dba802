"""Kernels that factor general matrices, and that solve with what is kept of them."""

from collections.abc import Callable
from functools import cache, lru_cache
from typing import Any

import numpy as np
from numba import from_dtype, types
from numpy.typing import NDArray

from dasksolve.kernels import making
from dasksolve.kernels.choice import GENERAL, MANY, unrolled
from dasksolve.kernels.language.lanes import PANEL, width
from dasksolve.kernels.lu import (
    determinant,
    factor_fixed,
    factor_interleaved,
    factor_single,
    reuse,
    reuse_fixed,
    reuse_many,
)
from dasksolve.kernels.making import Kernel

# The largest N for which one right-hand side has a kernel for that N alone.
SMALL = 16


@cache
def factoring(n: int, dtype: np.dtype[Any]) -> Kernel:
    """The kernel ``factor(a, lu, order, status, rcond)``: order (M, N) int32, lu as a."""
    if n <= unrolled(GENERAL[dtype.char], True):
        return _factoring(factor_fixed.kernel, n, dtype)
    method = factor_interleaved if n <= GENERAL[dtype.char].interleaved else factor_single
    return _factoring(method.kernel, 0, dtype)


@cache
def _factoring(make: Callable[..., Any], n: int, dtype: np.dtype[Any]) -> Kernel:
    read, write = making.arrays(dtype)
    order, rcond = types.Array(types.int32, 2, "C"), types.Array(types.float64, 1, "C")
    signature = (read, write, order, making.STATUS, rcond)
    return making.ready(make(n), signature, _factoring, make, n, dtype)


@lru_cache(maxsize=4096)
def substituting(
    n: int, k: int, systems: int, dtype: np.dtype[Any], transposed: bool
) -> Callable[..., int]:
    """The kernel ``solve(lu, order, b, x)`` for k columns, with what `factoring` gives.

    It returns one of `reuse.DAMAGED`, `FINE` and `SPOILT`. If DAMAGED, x may hold anything.
    """
    if _in_lanes(n, k, systems, dtype):
        in_turn = transposed and n > PANEL and k >= MANY
        return _substituting(reuse_fixed.kernel, n, dtype, k == 1, transposed, in_turn)
    method = reuse if k < MANY else reuse_many
    return _substituting(method.kernel, 0, dtype, transposed)


def _in_lanes(n: int, k: int, systems: int, dtype: np.dtype[Any]) -> bool:
    """Whether it is fastest to have a system in each lane, in a kernel for this N alone.

    At N = 8 one right-hand side takes a quarter of the time so, eight take four fifths, and 32 as
    long. Idle lanes cost more than one system after the other beyond a panel, or many columns.
    """
    if n > (SMALL if k == 1 else GENERAL[dtype.char].unrolled):
        return False
    if k < MANY:
        return n <= PANEL or systems >= width(dtype)
    return systems >= width(dtype) and (n <= PANEL // 2 or n * k <= PANEL * PANEL)


@cache
def _substituting(
    make: Callable[..., Any], n: int, dtype: np.dtype[Any], *options: bool
) -> Callable[..., int]:
    read, write = making.arrays(dtype)
    order = types.Array(types.int32, 2, "C", readonly=True)
    signature = (read, order, read, write)
    return making.ready(make(n, *options), signature, _substituting, make, n, dtype, *options)


@cache
def determining(dtype: np.dtype[Any]) -> Callable[..., bool]:
    """The kernel ``determine(lu, order, places, seen, sign, logabsdet)``: False if order is wrong.

    lu as `factoring` gives it, but (M, 1, N²); the reciprocals on the diagonal of U are at these
    places, (N,) int64. seen: (N,) int64, of -1. What has no factors is left NaN.
    """
    number, whole = from_dtype(dtype), types.Array(types.int64, 1, "C")
    read = types.Array(number, 3, "C", readonly=True)
    order = types.Array(types.int32, 2, "C", readonly=True)
    sign, logabsdet = types.Array(number, 1, "C"), types.Array(types.float64, 1, "C")
    signature = (read, order, whole, whole, sign, logabsdet)
    of_pivots = determinant.of_complex if dtype.kind == "c" else determinant.of_real
    return making.ready(determinant.kernel(of_pivots), signature, determining, dtype)


@cache
def pivots(n: int) -> NDArray[np.int64]:
    """Where the reciprocals on the diagonal of U are among the N² numbers of a system's factors."""
    places: NDArray[np.int64] = reuse.diagonal(n).astype(np.int64)
    return places


def elements(n: int) -> NDArray[np.intp]:
    """Where those of L and U are among them, (N, N); the reciprocals stand on the diagonal."""
    places: NDArray[np.intp] = reuse.places(n)
    return places
