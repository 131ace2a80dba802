"""`Solution`: the answers of a batch, and how far to trust each."""

from typing import Any, NamedTuple


class Solution(NamedTuple):
    """What `solve_ex` returns: NumPy arrays, or lazy dask arrays of the same chunks."""

    x: Any
    """The solutions, (..., N) or (..., N, K): the bits that `solve` gives."""
    status: Any
    """`Status` of every system, int8 over the batch shape."""
    rcond: Any
    """Reciprocal condition number in the 1-norm, float64 over the batch shape.

    Exact up to rounding for N ≤ 8, beyond an estimate that is seldom more than three times too
    large; 0 for singular systems, NaN for non-finite ones.
    """
    backward_error: Any
    """‖Ax-b‖∞ / (‖A‖∞‖x‖∞ + ‖b‖∞), the largest over K, float64 over the batch shape.

    A few times the dtype's eps is as good as it gets; 0 where b and x are 0, NaN where x is NaN.
    """
