"""`Factorization`: the factors of a batch, kept to solve with again and again."""

from dataclasses import dataclass
from typing import Any, Never

from dasksolve.batch.arrays import any_lazy, as_array
from dasksolve.batch.factors import factor_block, slogdet_block, solve_block
from dasksolve.batch.options import Options, check_flags, refuse_unknown, refusing
from dasksolve.batch.problem import describe, describe_inverses
from dasksolve.storage.stores import OutputLocation


@refusing
def factor(
    a: Any, *, assume_a: str = "gen", lower: bool = False, **unknown: Never
) -> "Factorization":
    """Factor a batch of matrices once, to solve with many right-hand sides.

    Parameters
    ----------
    a : (..., N, N) array_like or dask.array.Array
    assume_a, lower
        As in `solve`. What is kept are the factors of LU with partial pivoting, of the matrix that
        is meant; of "pos", Cholesky says whether it is positive definite, and of "lower triangular"
        no rows are exchanged.

    Returns
    -------
    Factorization
        Of NumPy arrays, or of lazy dask arrays if a is one.

    Raises
    ------
    numpy.linalg.LinAlgError, ValueError, TypeError
        As in `solve`. A singular matrix raises nothing: its `Factorization.status` says so.

    Notes
    -----
    To factor takes two to five times as long as `solve`, the estimate of the condition included.
    To solve with the factors for a new vector takes half of the time of `solve` at N = 4, a third
    at 8 (from memory up to four fifths), a quarter at 16 and 32 (a third), and a tenth at 512. For
    a thousand systems or fewer of N up to 3, with two columns or more at once for N up to 4, or
    with many while N is below about 50, to solve anew is as fast or faster.

    Examples
    --------
    >>> import numpy as np, dasksolve
    >>> f = dasksolve.factor(np.array([[[2.0, 1.0], [1.0, 3.0]]]))
    >>> f.solve(np.array([[3.0, 4.0]]))
    array([[1., 1.]])
    >>> sign, logabsdet = f.slogdet()
    >>> (sign * np.exp(logabsdet)).round(12)
    array([5.])
    """
    if unknown:
        refuse_unknown(factor, unknown)
    options = Options.of(assume_a, lower, on_singular="nan")
    if any_lazy(a):
        from dasksolve.batch import lazy

        return Factorization(*lazy.factor(a, options))
    a = as_array("a", a)
    return Factorization(*factor_block(a, describe_inverses(a.shape, a.dtype).dtype, options))


@dataclass(frozen=True, eq=False)
class Factorization:
    """The factors of a batch of matrices: NumPy arrays, or lazy dask arrays.

    Made by `factor`, or by `Factorization.open` from what `to_zarr` wrote.

    Attributes
    ----------
    lu : (..., N, N) array
        The N² numbers of L and U of every matrix, in the order in which `solve` reads them. NaN
        where `status` is not OK.
    order : (..., N) int32 array
        Row i of L U is row ``order[..., i]`` of a.
    status : (...) int8 array
        `Status` of every matrix: OK, SINGULAR, NONFINITE or NOT_POSITIVE_DEFINITE.
    conditions : (...) float64 array
        What `rcond` returns.
    scales : (..., N, 2) int16 array
        Exponents of the powers of two by which the rows and columns of a were multiplied before
        they were factored: 0, unless elimination over- or underflows without.
    """

    lu: Any
    order: Any
    status: Any
    conditions: Any
    scales: Any

    def solve(self, b: Any, *, transposed: bool = False) -> Any:
        """Solve with every matrix, or with its plain transpose.

        Parameters
        ----------
        b : (N,), (..., N) or (..., N, K) array_like or dask.array.Array
            Right-hand sides, by the rule of `solve`.
        transposed : bool, default False
            Solve Aᵀ x = b (not the conjugate transpose).

        Returns
        -------
        x : (..., N) or (..., N, K) ndarray or dask.array.Array
            NaN where `status` is not OK, and where the substitution over- or underflows though x
            does not, as elements of one matrix from 1e-155 to 1e155 can make it. Else, not
            transposed and of ``assume_a="gen"``, it has the bits that `solve` gives where a is of
            x's dtype; factors of float32 are no more exact with a b of float64.

        Raises
        ------
        ValueError, TypeError
            b does not fit, or the factors are damaged.

        Examples
        --------
        >>> import numpy as np, dasksolve
        >>> f = dasksolve.factor(np.array([[1.0, 2.0], [0.0, 1.0]]))
        >>> f.solve([3.0, 1.0]), f.solve([1.0, 3.0], transposed=True)
        (array([1., 1.]), array([1., 1.]))
        """
        check_flags(transposed=transposed)  # "N" is LAPACK's word for not transposed
        factors = self.lu, self.order[..., None], self.scales
        if any_lazy(self.lu, b):
            from dasksolve.batch import lazy

            return lazy.solve_factored(factors, b, transposed)
        b = as_array("b", b)
        problem = describe(self.lu.shape, self.lu.dtype, b.shape, b.dtype)
        b = b[..., None] if problem.vectors else b
        x = solve_block(*factors, b, problem.dtype, transposed)
        return x[..., 0] if problem.vectors else x

    def rcond(self) -> Any:
        """Reciprocal condition numbers in the 1-norm, float64 over the batch shape.

        As `solve_ex` gives them, but estimated for every N: 0 for singular matrices, NaN for
        non-finite ones.
        """
        return self.conditions

    def slogdet(self) -> tuple[Any, Any]:
        """Sign and logarithm of the absolute value of the determinants, as `numpy.linalg.slogdet`.

        Computed in float64, with the same bits on every processor.

        Returns
        -------
        sign : (...,) of the dtype of a
            A number of absolute value 1; 0 for singular matrices, NaN where there are no factors.
        logabsdet : (...,) real
            -inf for singular matrices.
        """
        arrays = self.lu, self.order[..., None], self.status[..., None, None], self.scales
        if any_lazy(self.lu):
            from dasksolve.batch import lazy

            return lazy.slogdet(*arrays)
        return slogdet_block(*arrays)

    def to_zarr(self, path: OutputLocation) -> None:
        """Write the factors to a new zarr group; lazy ones are computed block by block.

        Parameters
        ----------
        path : str, pathlib.Path, zarr.Group or zarr.abc.store.Store
            Path or URL of the group.

        Raises
        ------
        FileExistsError
            There is something.
        OSError
            It could not be written, or workers of a cluster wrote it to a place of their own.

        Examples
        --------
        >>> import numpy as np, tempfile, dasksolve
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     dasksolve.factor(2 * np.eye(3)).to_zarr(folder + "/factors.zarr")
        ...     f = dasksolve.Factorization.open(folder + "/factors.zarr")
        ...     f.solve([2.0, 4.0, 6.0]).compute()
        array([1., 2., 3.])
        """
        from dasksolve.batch import kept_factors

        arrays = self.lu, self.order, self.status, self.conditions, self.scales
        kept_factors.write(path, *arrays)

    @classmethod
    def open(cls, path: OutputLocation) -> "Factorization":
        """Open what `to_zarr` wrote, as lazy dask arrays.

        Parameters
        ----------
        path : str, pathlib.Path, zarr.Group or zarr.abc.store.Store
            Path or URL of the group, or of a zip archive of it.

        Raises
        ------
        FileNotFoundError
            There is nothing.
        ValueError
            What is there are not the factors of a batch, or not all of them.
        """
        from dasksolve.batch import kept_factors

        return cls(*kept_factors.read(path))

    def __repr__(self) -> str:
        return f"Factorization({self.lu.shape} {self.lu.dtype})"
