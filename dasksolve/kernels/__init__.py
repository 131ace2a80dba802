"""Picks a kernel from (structure, N, dtype) by a table.

Every kernel is called as ``kernel(a, b, x, status)`` with C-contiguous, native arrays: a (M, N, N)
and b (M, N, K) are read, x (M, N, K) and status (M,) int8 are written, N ≥ 1, M ≥ 0, K ≥ 1, all
of one dtype. It runs serially without the GIL, never raises, and gives the same bits for a system
wherever that stands in the batch. x is NaN where the status is not OK.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numba import from_dtype, types

from dasksolve.kernels import lu

Kernel = Callable[[Any, Any, Any, Any], None]


@cache
def pick(assume_a: str, n: int, dtype: np.dtype[Any]) -> Kernel:
    """The compiled kernel for systems of order `n`."""
    dispatcher = lu.solve
    element = from_dtype(dtype)
    # Read-only arguments accept writable arrays too, so this one variant serves every call.
    read = types.Array(element, 3, "C", readonly=True)
    write = types.Array(element, 3, "C")
    dispatcher.compile((read, read, write, types.Array(types.int8, 1, "C")))
    return dispatcher
