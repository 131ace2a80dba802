"""`Solution`: the answers of a batch, and how far to trust each."""

from typing import Any, NamedTuple


class Solution(NamedTuple):
    """What `solve_ex` returns: NumPy arrays, or lazy dask arrays of the same chunks.

    Attributes
    ----------
    x : (..., N) or (..., N, K) array
        The solutions: the bits that `solve` gives.
    status : (...) int8 array
        `Status` of every system.
    rcond : (...) float64 array
        Reciprocal condition number in the 1-norm. Exact up to rounding for N ≤ 8, beyond an
        estimate that is seldom more than three times too large; 0 for singular systems, NaN for
        non-finite ones.
    backward_error : (...) float64 array
        ‖Ax-b‖∞ / (‖A‖∞‖x‖∞ + ‖b‖∞), the largest over K. A few times the dtype's eps is as good as
        it gets; 0 where b and x are 0, NaN where x is NaN.
    """

    x: Any
    status: Any
    rcond: Any
    backward_error: Any
