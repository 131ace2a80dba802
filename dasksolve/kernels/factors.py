"""Kernels that factor general matrices, and that solve with what is kept of them."""

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numba import types
from numpy.typing import NDArray

from dasksolve.kernels import making
from dasksolve.kernels.choice import GENERAL, MANY
from dasksolve.kernels.lu import factor_interleaved, factor_single, reuse, reuse_many
from dasksolve.kernels.making import Kernel


@cache
def factoring(n: int, dtype: np.dtype[Any]) -> Kernel:
    """The kernel ``factor(a, lu, order, status, rcond)``: order (M, N) int32, lu as a."""
    method = factor_interleaved if n <= GENERAL[dtype.char].interleaved else factor_single
    return _factoring(method.kernel, dtype)


@cache
def _factoring(make: Callable[..., Any], dtype: np.dtype[Any]) -> Kernel:
    read, write = making.arrays(dtype)
    order, rcond = types.Array(types.int32, 2, "C"), types.Array(types.float64, 1, "C")
    signature = (read, write, order, making.STATUS, rcond)
    return making.ready(make(0), signature, _factoring, make, dtype)


def substituting(k: int, dtype: np.dtype[Any], transposed: bool) -> Callable[..., int]:
    """The kernel ``solve(lu, order, b, x)`` for k columns, with what `factoring` gives.

    It returns one of `reuse.DAMAGED`, `FINE` and `SPOILT`.
    """
    method = reuse if k < MANY else reuse_many
    return _substituting(method.kernel, dtype, transposed)


@cache
def _substituting(
    make: Callable[..., Any], dtype: np.dtype[Any], transposed: bool
) -> Callable[..., int]:
    read, write = making.arrays(dtype)
    order = types.Array(types.int32, 2, "C", readonly=True)
    signature = (read, order, read, write)
    return making.ready(make(0, transposed), signature, _substituting, make, dtype, transposed)


def pivots(n: int) -> NDArray[np.intp]:
    """Where the reciprocals on the diagonal of U are among the N² numbers of a system's factors."""
    places: NDArray[np.intp] = reuse.diagonal(n)
    return places
