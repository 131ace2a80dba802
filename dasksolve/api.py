"""What is imported to solve and to fit: one function each for NumPy and for dask."""

import sys
from dataclasses import replace
from typing import Any, Never

from dasksolve.batch import bands, eager, least_squares, regression
from dasksolve.batch.arrays import any_lazy, as_array
from dasksolve.batch.fit import FitOptions
from dasksolve.batch.options import Options, refuse_unknown, refusing
from dasksolve.batch.problem import describe_inverses
from dasksolve.errors import SingularSystemError
from dasksolve.solution import LeastSquares, Regression, Solution


@refusing
def solve(
    a: Any,
    b: Any,
    *,
    assume_a: str = "gen",
    lower: bool = False,
    on_singular: str = "raise",
    rcond: float | None = None,
    workers: int = 1,
    **unknown: Never,
) -> Any:
    """Solve a batch of dense linear systems ``a[i] x[i] = b[i]``.

    Parameters
    ----------
    a : (..., N, N) array_like or dask.array.Array
        Square matrices, along any number of batch dimensions. float32, float64, complex64 or
        complex128 of any byte order and memory layout; integers and bool become float64. Where a
        and b differ, x has the dtype that `numpy.result_type` gives: float32 beside int8, int16 or
        bool stays float32, beside larger integers it becomes float64.
    b : (N,), (..., N) or (..., N, K) array_like or dask.array.Array
        Right-hand sides. What b is depends on its number of dimensions alone:

        - ``b.ndim == a.ndim - 1``: a stack of vectors, so that a (M, N, N) and b (M, N) give
          x (M, N), also where M equals N;
        - ``b.ndim >= a.ndim``: a stack of matrices of K columns;
        - ``b.ndim == 1``: one vector for every system.

        Batch dimensions broadcast as in NumPy. NumPy 2 reads a b of two dimensions as one matrix;
        ``dasksolve.solve(a, b)`` is ``numpy.linalg.solve(a, b[..., None])[..., 0]`` there. So
        ``solve(a, np.eye(N))`` solves one system with each row of the identity where a is of
        three dimensions: `inv` gives inverses, and ``b[None]`` is one matrix for every system.
        For vectors of one matrix give ``a[None]``.
    assume_a : str, default "gen"
        Structure of a, in the words of `scipy.linalg.solve`: "gen", "pos", "sym", "her",
        "upper triangular", "lower triangular", "diagonal", "tridiagonal". Only what the word names
        is read: a triangle or a band; of "pos", "sym" and "her" one triangle. The rest may hold
        anything, NaN too. Nothing is checked but that the pivots of "pos" are positive.
    lower : bool, default False
        For "pos", "sym" and "her": whether the lower triangle is read, not the upper. Of "pos" and
        "her" the imaginary part of the diagonal is taken as zero.
    on_singular : {"raise", "nan", "lstsq"}, default "raise"
        What becomes of a system whose elimination meets an exactly zero pivot, or one that is not
        positive in a "pos" matrix. "raise": once all
        systems have been looked at, `SingularSystemError` names them. "nan": NaN in x of those
        systems only. "lstsq": the minimum-norm least-squares solution (`numpy.linalg.lstsq`) of
        those systems only.
    rcond : float, optional
        A system whose reciprocal condition number (in the 1-norm, as `solve_ex` gives it) is below
        rcond counts as singular, and `on_singular` says what its x is. Normal equations of too few
        observations want this: rounded, they hardly have a pivot that is exactly zero. "lstsq" then
        leaves out singular values below rcond times the largest (at least N eps), as
        `numpy.linalg.lstsq` does. It takes as long as the condition does in `solve_ex`. Default:
        only an exactly zero pivot counts.
    workers : int, default 1
        Threads for input in memory, as in `scipy.fft`; -1 means all cores. Ignored for dask input,
        where dask's scheduler is the only parallelism.

    Returns
    -------
    x : (..., N) or (..., N, K) ndarray or dask.array.Array
        The solutions: of vectors where b holds vectors, of matrices where it holds matrices. Lazy
        if a or b is a dask array, with chunks along the batch only.

    Raises
    ------
    SingularSystemError
        With ``on_singular="raise"``: carries the flat index of every failed system. It is a
        `numpy.linalg.LinAlgError`.
    numpy.linalg.LinAlgError
        a is not square.
    ValueError
        The shapes do not fit, an option is unknown, or chunk sizes are unknown.
    TypeError
        A dtype that is none of the above, such as float16 or object.

    Notes
    -----
    LU with partial pivoting, as LAPACK's ``gesv`` (Golub and Van Loan, *Matrix Computations*,
    section 3.4), complex pivots chosen by ``|re| + |im|``. "sym" and "her" are solved so too, on
    the mirrored triangle; "pos" by Cholesky's method, as ``potrf``, in half the operations;
    "tridiagonal" with partial pivoting, as ``gtsv``; the triangular ones by substitution. x of a
    system has the same bits wherever it stands in a batch, in any chunking and with any number of
    workers. NaN or Inf in what is read of a system's a gives NaN in its x, in a column of its b in
    that column of x alone, and disturbs no other. A system whose elimination over- or underflows is
    solved once more, scaled by powers of two; x is NaN in the columns where x itself overflows.

    float32 is solved in float32, as SciPy does: the error of x is up to about 1e-7 / rcond.
    `numpy.linalg.solve` computes in float64 and rounds once. To have that, give
    ``a.astype(np.float64)``.

    Examples
    --------
    >>> import numpy as np, dasksolve
    >>> a = np.array([[[2.0, 0.0], [0.0, 4.0]], [[0.0, 1.0], [1.0, 0.0]]])
    >>> b = np.array([[2.0, 2.0], [3.0, 5.0]])
    >>> dasksolve.solve(a, b)
    array([[1. , 0.5],
           [5. , 3. ]])
    """
    if unknown:
        refuse_unknown(solve, unknown)
    try:
        x = eager.solve_at_once(a, b, assume_a, lower, on_singular, rcond, workers)
        if x is not None:
            return x
        options = Options.of(assume_a, lower, on_singular, False, False, rcond)
        if any_lazy(a, b):
            from dasksolve.batch import lazy

            return lazy.solve(a, b, options)
        return eager.solve(a, b, options, workers)
    except SingularSystemError:
        options = Options.of(assume_a, lower, on_singular, False, False, rcond)
        return eager.solve(a, b, _inferring(options), workers)


@refusing
def inv(
    a: Any,
    *,
    assume_a: str = "gen",
    lower: bool = False,
    on_singular: str = "raise",
    workers: int = 1,
    **unknown: Never,
) -> Any:
    """Invert a batch of matrices.

    Parameters
    ----------
    a : (..., N, N) array_like or dask.array.Array
        As in `solve`.
    assume_a, lower, workers
        As in `solve`.
    on_singular : {"raise", "nan", "lstsq"}, default "raise"
        As in `solve`; "lstsq" gives the pseudo-inverses of the singular matrices.

    Returns
    -------
    inverses : (..., N, N) ndarray or dask.array.Array
        Lazy if a is a dask array, with chunks along the batch only. Each has the bits that `solve`
        gives for an identity matrix.

    Raises
    ------
    SingularSystemError, numpy.linalg.LinAlgError, ValueError, TypeError
        As in `solve`.

    Notes
    -----
    Solving with an inverse takes longer than `solve` and is less exact; for right-hand sides that
    come one after the other there is `factor`.

    Examples
    --------
    >>> import numpy as np, dasksolve
    >>> dasksolve.inv(np.array([[[2.0, 0.0], [0.0, 4.0]], [[0.0, 1.0], [1.0, 0.0]]]))
    array([[[0.5 , 0.  ],
            [0.  , 0.25]],
    <BLANKLINE>
           [[0.  , 1.  ],
            [1.  , 0.  ]]])
    """
    if unknown:
        refuse_unknown(inv, unknown)
    options = Options.of(assume_a, lower, on_singular)
    if any_lazy(a):
        from dasksolve.batch import lazy

        return lazy.inv(a, options)
    a = as_array("a", a)
    identity = describe_inverses(a.shape, a.dtype).identity
    try:
        return eager.solve(a, identity, options, workers)
    except SingularSystemError:
        return eager.solve(a, identity, _inferring(options), workers)


def solve_tridiagonal(
    lower: Any, diagonal: Any, upper: Any, b: Any, *, on_singular: str = "raise", workers: int = 1
) -> Any:
    """Solve a batch of tridiagonal systems, given by their diagonals.

    Equation i of a system is ``lower[i] x[i-1] + diagonal[i] x[i] + upper[i] x[i+1] = b[i]``.

    Parameters
    ----------
    lower, diagonal, upper : (..., N) array_like or dask.array.Array
        The diagonals, by the row that they stand in: ``lower[..., 0]`` and ``upper[..., N-1]`` are
        outside the matrix, and ignored whatever they hold. dtypes as in `solve`. Batch dimensions
        broadcast.
    b : (N,), (..., N) or (..., N, K) array_like or dask.array.Array
        Right-hand sides, told apart by the number of dimensions alone: as many as the diagonals
        have, a stack of vectors; more, a stack of matrices; one, one vector for every system.
    on_singular : {"raise", "nan", "lstsq"}, default "raise"
        As in `solve`; "lstsq" makes dense matrices of the singular systems.
    workers : int, default 1
        As in `solve`.

    Returns
    -------
    x : (..., N) or (..., N, K) ndarray or dask.array.Array
        The solutions; lazy, by one task a block, if any argument is a dask array.

    Raises
    ------
    SingularSystemError, ValueError, TypeError
        As in `solve`.

    Notes
    -----
    Elimination with partial pivoting, as LAPACK's ``gtsv``. x has the bits that ``solve(a, b,
    assume_a="tridiagonal")`` gives for the dense matrices, in 3 / N of their memory.

    Examples
    --------
    >>> import numpy as np, dasksolve
    >>> lower, diagonal, upper = np.full(4, -1.0), np.full((1000, 4), 2.0), np.full(4, -1.0)
    >>> dasksolve.solve_tridiagonal(lower, diagonal, upper, np.ones(4))[0]
    array([2., 3., 3., 2.])
    """
    options = Options.of("tridiagonal", on_singular=on_singular)
    given = (lower, diagonal, upper, b)
    if any_lazy(*given):
        from dasksolve.batch import lazy

        return lazy.solve_tridiagonal(*given, options)
    try:
        return bands.solve(*given, options, workers)
    except SingularSystemError:
        return bands.solve(*given, _inferring(options), workers)


@refusing
def solve_ex(
    a: Any,
    b: Any,
    *,
    assume_a: str = "gen",
    lower: bool = False,
    on_singular: str = "nan",
    refine: bool = False,
    rcond: float | None = None,
    workers: int = 1,
    **unknown: Never,
) -> Solution:
    """Solve a batch of dense linear systems, and say of every one how far to trust its answer.

    The diagnostics come from the factors and from data that the solution has in the cache: they
    add half of the time that `solve` takes at N = 32 (and up to one and a half times it at N = 2).

    Parameters
    ----------
    a : (..., N, N) array_like or dask.array.Array
    b : (N,), (..., N) or (..., N, K) array_like or dask.array.Array
    assume_a, lower, workers
        As in `solve`.
    on_singular : {"nan", "raise", "lstsq"}, default "nan"
        As in `solve`.
    rcond : float, optional
        As in `solve`: systems below it are ``ILL_CONDITIONED``, and `on_singular` says what their x
        is.
    refine : bool, default False
        Refine the answers whose backward error exceeds 4 eps, by one step with a residual in twice
        the precision; x of those has other bits than `solve` gives.

    Returns
    -------
    Solution
        The named tuple ``(x, status, rcond, backward_error)``. ``x`` has the bits that `solve`
        gives; the others have the batch shape. Four lazy arrays if a or b is a dask array, computed
        by one task for each chunk.

        - ``status``: `Status`, int8. ``ILL_CONDITIONED`` where ``rcond`` is below the eps of x's
          dtype: x is then a solution of a nearby system, and may have no correct digit. With
          `rcond` given, where it is below that, too.
        - ``rcond``: 1 / (‖A‖₁ ‖A⁻¹‖₁), float64: exact for N ≤ 8, beyond it an estimate that
          is too large by a factor of 3 at times, and of 10 hardly ever. 0 for singular systems,
          NaN where no column of x is finite.
        - ``backward_error``: ‖Ax-b‖∞ / (‖A‖∞‖x‖∞ + ‖b‖∞), the largest over the columns of x
          that are finite. A few eps is as good as it gets; 0 where b and x are 0, NaN where no
          column is.

    Raises
    ------
    SingularSystemError, numpy.linalg.LinAlgError, ValueError, TypeError
        As in `solve`.

    Notes
    -----
    The forward error of x is about ``backward_error / rcond`` at most. ``rcond`` is estimated as
    LAPACK's ``gecon`` does, by the algorithm of Higham and Tisseur (SIAM J. Matrix Anal. Appl. 21,
    2000) in a fixed number of steps; the backward error is that of Rigal and Gaches (Higham,
    *Accuracy and Stability of Numerical Algorithms*, section 7.1).

    Examples
    --------
    >>> import numpy as np, dasksolve
    >>> a = np.array([[[2.0, 0.0], [0.0, 4.0]], [[1.0, 1.0], [1.0, 1.0]]])
    >>> x, status, rcond, backward_error = dasksolve.solve_ex(a, np.ones((2, 2)))
    >>> rcond
    array([0.5, 0. ])
    >>> [dasksolve.Status(s).name for s in status]
    ['OK', 'SINGULAR']
    """
    if unknown:
        refuse_unknown(solve_ex, unknown)
    options = Options.of(assume_a, lower, on_singular, True, refine, rcond)
    if any_lazy(a, b):
        from dasksolve.batch import lazy

        return lazy.solve(a, b, options)
    try:
        return eager.solve(a, b, options, workers)
    except SingularSystemError:
        return eager.solve(a, b, _inferring(options), workers)


@refusing
def lstsq(
    a: Any,
    b: Any,
    *,
    weights: Any = None,
    rcond: float | None = None,
    on_deficient: str = "nan",
    workers: int = 1,
    **unknown: Never,
) -> Any:
    """Solve a batch of least squares problems, each with a matrix of its own.

    x minimises ``sum(weights * abs(a @ x - b)**2)``. For one design and many series see `regress`.

    Parameters
    ----------
    a : (..., P, N) array_like or dask.array.Array
        At least as many rows as columns. dtypes as in `solve`. A row with NaN in a or in any
        column of b is missing: it is left out of that system.
    b : (P,), (..., P) or (..., P, K) array_like or dask.array.Array
        Right-hand sides, told apart by the number of dimensions alone, as in `solve`.
    weights : (P,) or (..., P) array_like or dask.array.Array, optional
        Inverse variances of the rows; 0, NaN or a mask leaves a row out.
    rcond : float, optional
        A system whose reciprocal condition number is below it, columns scaled to one length, is
        rank-deficient; the default is max(P, N) times the eps of x's dtype.
    on_deficient : {"nan", "lstsq"}, default "nan"
        What becomes of rank-deficient systems. "nan": NaN. "lstsq": the solution of the smallest
        norm (`numpy.linalg.lstsq`).
    workers : int, default 1
        As in `solve`.

    Returns
    -------
    x : (..., N) or (..., N, K) ndarray or dask.array.Array
        NaN where a system holds Inf in a row that is not missing. Lazy if an argument is a dask
        array, with chunks along the batch only.

    Raises
    ------
    ValueError
        The shapes do not fit, a weight is negative, or one of (P,) infinite, an option is unknown.
    TypeError
        A dtype that `solve` does not take.

    See Also
    --------
    lstsq_ex : says of every system how far to trust it.

    Notes
    -----
    Modified Gram-Schmidt with b as further columns, in the dtype of x: as stable as Householder's
    method (Björck, *BIT* 7, 1967). What over- or underflows is solved again, scaled by powers of
    two. x of a system has the same bits wherever it stands in a batch.

    Examples
    --------
    >>> import numpy as np, dasksolve
    >>> a = np.array([[[1.0, 0.0], [1.0, 1.0], [1.0, 2.0], [1.0, 3.0]]])
    >>> dasksolve.lstsq(a, np.array([[1.0, 3.0, np.nan, 7.0]]))
    array([[1., 2.]])
    """
    if unknown:
        refuse_unknown(lstsq, unknown)
    return lstsq_ex(
        a, b, weights=weights, rcond=rcond, on_deficient=on_deficient, workers=workers
    ).x


@refusing
def lstsq_ex(
    a: Any,
    b: Any,
    *,
    weights: Any = None,
    rcond: float | None = None,
    on_deficient: str = "nan",
    workers: int = 1,
    **unknown: Never,
) -> LeastSquares:
    """Solve a batch of least squares problems, and say of every one how far to trust its answer.

    Parameters
    ----------
    a : (..., P, N) array_like or dask.array.Array
    b : (P,), (..., P) or (..., P, K) array_like or dask.array.Array
    weights, rcond, on_deficient, workers
        As in `lstsq`.

    Returns
    -------
    LeastSquares
        The named tuple ``(x, status, rcond, rss, rank, count)``. Six lazy arrays if an argument is
        a dask array, computed by one task for each chunk.

    Raises
    ------
    ValueError, TypeError
        As in `lstsq`.

    Examples
    --------
    >>> import numpy as np, dasksolve
    >>> a = np.array([[[1.0, 0.0], [1.0, 1.0], [1.0, 2.0]], [[1.0, 1.0], [1.0, 1.0], [1.0, 1.0]]])
    >>> found = dasksolve.lstsq_ex(a, np.array([1.0, 3.0, 5.0]))
    >>> [dasksolve.Status(s).name for s in found.status]
    ['OK', 'RANK_DEFICIENT']
    >>> found.rank
    array([2, 1], dtype=int32)
    """
    if unknown:
        refuse_unknown(lstsq_ex, unknown)
    options = least_squares.LstsqOptions.of(rcond, on_deficient)
    if any_lazy(a, b, weights):
        from dasksolve.batch import lazy

        return lazy.lstsq(a, b, weights, options)
    return least_squares.lstsq(a, b, weights, options, workers)


@refusing
def regress(
    y: Any,
    design: Any,
    *,
    axis: int = 0,
    weights: Any = None,
    ridge: Any = None,
    rcond: float | None = None,
    min_count: int | None = None,
    on_deficient: str = "nan",
    covariance: bool = False,
    workers: int = 1,
    **unknown: Never,
) -> Regression:
    """Fit the coefficients of one design to many series, each on the observations that it has.

    Parameters
    ----------
    y : array_like or dask.array.Array
        The series: of any shape, with P observations along `axis`. float32 and float64 stay,
        integers and bool become float64. NaN, and what a masked array masks, is missing: that
        observation is left out of that series alone.
    design : (P, N) array_like
        A row for each observation, a column for each coefficient; finite.
    axis : int, default 0
        Of the observations in y.
    weights : (P,) or y's shape, array_like or dask.array.Array, optional
        Inverse variances, one for each observation or for each number in y, to which they
        broadcast; as of ``statsmodels.WLS``. (`numpy.polyfit` wants their roots.) 0, NaN or a mask
        leaves an observation out.
    ridge : float or (N,) array_like, optional
        What is minimised is then ``sum(w * (y - X @ coef)**2) + sum(ridge * coef**2)``.
    rcond : float, optional
        A series whose reciprocal condition number is below it is rank-deficient; the default is
        max(P, N) times the eps of y's dtype. In float32 a cubic in decimal years is rank-deficient
        by that; a cubic in the years since the first one is not.
    min_count : int, optional
        A series with fewer observations has too few; the default is N.
    on_deficient : {"nan", "lstsq"}, default "nan"
        What becomes of series that are rank-deficient or have too few observations. "nan": NaN.
        "lstsq": the solution of the smallest norm (`numpy.linalg.lstsq`); stderr is NaN.
    covariance : bool, default False
        Whether the covariances of the coefficients are wanted too.
    workers : int, default 1
        Threads for input in memory, as in `solve`. Ignored for dask input.

    Returns
    -------
    Regression
        The named tuple ``(coef, stderr, rss, count, rcond, status, covariance)``: `coef` and
        `stderr` have N in place of P in y's shape, the others y's shape without `axis`. Lazy, from
        one task for each chunk, if y or weights is a dask array; observations that are chunked
        are merged.

        ``status`` says what became of each series: ``OK``; ``NONFINITE`` where it holds Inf (or
        lazy weights a negative or infinite number); ``RANK_DEFICIENT``; ``TOO_FEW``.

    Raises
    ------
    ValueError
        The shapes do not fit, the design is not finite, a weight of an observation that is there
        is negative, or one of (P,) is negative or infinite, an option is unknown.
    TypeError
        A dtype that is none of the above.

    Notes
    -----
    The design is orthogonalized once, in twice the precision of float64. Each series has a Gram
    matrix in that basis, of the rows that it has; the solution is corrected once by its residuals,
    and its fitted values are no worse than those of `numpy.linalg.lstsq`. A series that is too
    ill-conditioned for that is solved by modified Gram-Schmidt. The bits of a series are the same
    wherever it stands in y, along whatever axis, in any chunking and with any number of workers;
    NaN, a masked value and a weight of 0 give the same bits.

    Examples
    --------
    >>> import numpy as np, dasksolve
    >>> t = np.arange(5.0)
    >>> y = 1 + 2 * t[:, None] + np.array([[0.0, 0.1], [0, -0.1], [0, 0], [0, 0.1], [0, -0.1]])
    >>> y[3, 0] = np.nan
    >>> fit = dasksolve.regress(y, np.stack([np.ones(5), t], axis=1))
    >>> fit.coef.round(2)
    array([[1.  , 1.04],
           [2.  , 1.98]])
    >>> fit.count
    array([4, 5], dtype=int32)
    >>> fit.stderr[:, 1].round(3)
    array([0.085, 0.035])
    """
    if unknown:
        refuse_unknown(regress, unknown)
    options = FitOptions(axis, ridge, rcond, min_count, on_deficient, covariance)
    if any_lazy(y, weights):
        from dasksolve.batch import lazy_regression

        return lazy_regression.regress(y, design, weights, options)
    return regression.regress(y, design, weights, options, workers)


def _inferring(options: Options) -> Options:
    """Options for dask, which tries a system of zeros; for everybody else the error goes on."""
    if "dask.array" in sys.modules:
        from dasksolve.batch import internals

        if internals.infers_dtype():
            return replace(options, on_singular="nan")
    raise
