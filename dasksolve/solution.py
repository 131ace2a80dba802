"""`Solution`, `Regression`, `LeastSquares`: answers of a batch, and how far to trust each."""

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
        estimate that is seldom more than three times too large; 0 for singular systems, NaN where
        no column of x is finite.
    backward_error : (...) float64 array
        ‖Ax-b‖∞ / (‖A‖∞‖x‖∞ + ‖b‖∞), the largest over the columns of x that are finite. A few
        times the dtype's eps is as good as it gets; 0 where b and x are 0, NaN where none is.
    """

    x: Any
    status: Any
    rcond: Any
    backward_error: Any


class Regression(NamedTuple):
    """What `regress` returns: NumPy arrays, or lazy dask arrays of the same chunks.

    Attributes
    ----------
    coef : array of y's shape, with N in place of P
        The coefficients.
    stderr : array of y's shape, with N in place of P
        Their standard errors, sqrt(diag((XᵀWX)⁻¹) rss / (count - N)): NaN where count ≤ N. With a
        ridge, its diagonal is added to XᵀWX.
    rss : (...) array
        The sum of the squared residuals, each times its weight.
    count : (...) int32 array
        How many observations the series has.
    rcond : (...) float64 array
        One over the root of the mean of the variance inflation factors of the coefficients: a
        reciprocal condition number of the weighted design, of the rows that the series has, its
        columns scaled to one length, so that units do not matter. 1 where they are orthogonal;
        between 1 and N times one over the condition number in the 2-norm.
    status : (...) int8 array
        `Status` of every series.
    covariance : (..., N, N) array or None
        The covariances of the coefficients, if asked for.
    """

    coef: Any
    stderr: Any
    rss: Any
    count: Any
    rcond: Any
    status: Any
    covariance: Any


class LeastSquares(NamedTuple):
    """What `lstsq_ex` returns: NumPy arrays, or lazy dask arrays of the same chunks.

    Attributes
    ----------
    x : (..., N) or (..., N, K) array
        The solutions: the bits that `lstsq` gives.
    status : (...) int8 array
        `Status` of every system.
    rcond : (...) float64 array
        As that of `Regression`, of each system's own matrix. NaN where the status is NONFINITE.
    rss : (...) or (..., K) array
        The sum of the squared residuals, each times its weight.
    rank : (...) int32 array
        N where the status is OK; else that of `numpy.linalg.lstsq`.
    count : (...) int32 array
        How many rows are not missing.
    """

    x: Any
    status: Any
    rcond: Any
    rss: Any
    rank: Any
    count: Any
