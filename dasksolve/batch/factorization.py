"""`Factorization`: the factors of a batch, kept to solve with again and again."""

import json
from dataclasses import dataclass
from typing import Any, Never

import dask.array as da
import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import Crc32cCodec, ZstdCodec

from dasksolve import kernels
from dasksolve.batch import determinant, eager, lazy, pieces
from dasksolve.batch.arrays import as_array
from dasksolve.batch.options import Options, check_flags, refuse_unknown, refusing
from dasksolve.batch.problem import describe, describe_inverses
from dasksolve.batch.structure import meant
from dasksolve.kernels.diagnostics.verdicts import UNBOUNDED
from dasksolve.kernels.lu.reuse import DAMAGED, SPOILT
from dasksolve.kernels.scaling import Attempt, equilibrated, solve_again
from dasksolve.status import Status
from dasksolve.storage import groups, stores
from dasksolve.storage.stores import Location

_ATTRIBUTE = "dasksolve_factorization"
_VERSION = 4
_LOST = int(np.iinfo(np.int16).min)
# What zarr takes a chunk for that was lost: never for factors that look sound.
_MISSING = {
    "lu": np.nan,
    "order": -1,
    "status": int(Status.PENDING),
    "rcond": np.nan,
    "scales": _LOST,
}


@refusing
def factor(
    a: Any, *, assume_a: str = "gen", lower: bool = False, **unknown: Never
) -> "Factorization":
    """Factor a batch of matrices once, to solve with many right-hand sides.

    Parameters
    ----------
    a : (..., N, N) array_like or dask.array.Array
    assume_a, lower
        As in `solve`. What is kept are always the factors of LU with partial pivoting, of the
        matrix that is meant; of "pos", Cholesky says whether it is positive definite.

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
    To solve with the factors for a new vector takes a quarter of the time of `solve` at N = 32 (a
    third from memory), and a tenth at 512. For N up to 12, or with many columns at once while N is
    below about 50, to solve anew is as fast or faster.

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
        refuse_unknown("factor", unknown)
    options = Options.of(assume_a, lower, on_singular="nan")
    if not isinstance(a, da.Array):
        a = as_array("a", a)
        return Factorization(*_factor_block(a, describe_inverses(a.shape, a.dtype).dtype, options))
    a = lazy.checked("a", a)
    problem = describe_inverses(a.shape, a.dtype)
    a = a.rechunk({-2: -1, -1: -1})
    blocks = a.map_blocks(
        _factor_block,
        problem.dtype,
        options,
        dtype=problem.dtype,
        meta=np.empty((0,) * a.ndim, problem.dtype),
    )
    whole = range(blocks.ndim)
    batch = whole[:-2]
    return Factorization(
        lazy.member(blocks, 0, whole, problem.dtype),
        lazy.member(blocks, 1, whole[:-1], np.int32),
        lazy.member(blocks, 2, batch, np.int8),
        lazy.member(blocks, 3, batch, np.float64),
        lazy.member(blocks, 4, whole, np.int16, adjust_chunks={whole[-1]: (2,)}),
    )


def _factor_block(
    a: NDArray[Any], dtype: np.dtype[Any], options: Options
) -> tuple[NDArray[Any], ...]:
    """The factors, the order of rows, status, rcond and scales of a block."""
    a = as_array("a", a)
    n, shape = a.shape[-1], a.shape[:-2]
    lu, order = np.empty(a.shape, dtype), np.empty(a.shape[:-1], np.int32)
    status, rcond = np.zeros(shape, np.int8), np.ones(shape)
    scales: Any = np.broadcast_to(np.int16(0), (*shape, n, 2))  # as a rule, no memory
    if not a.size:
        return lu, order, status, rcond, scales
    given = np.require(a, dtype, ["C", "A"]).reshape(-1, n, n)
    whole = np.ascontiguousarray(meant(given, options))
    flat = lu.reshape(-1, n, n), order.reshape(-1, n), status.reshape(-1), rcond.reshape(-1)
    kernels.factoring(n, dtype)(whole, *flat)
    lost = np.flatnonzero(flat[2] == UNBOUNDED)
    if lost.size:
        scales = np.zeros((*shape, n, 2), np.int16)
        scales.reshape(-1, n, 2)[lost] = _factor_scaled(whole, lost, flat)
    unknown = (flat[2] == Status.OK) & np.isnan(flat[3])
    if unknown.any():
        with np.errstate(all="ignore"):
            flat[3][unknown] = eager.scaled_rconds(whole[unknown])
    if options.assume_a == "pos":
        b = np.zeros((len(given), n), dtype)
        problem = describe(given.shape, dtype, b.shape, dtype)
        flat[2][...] = eager.solve_with_status(given, b, problem, options)[1]
        flat[0][eager.is_singular(flat[2])] = np.nan
        flat[3][eager.is_singular(flat[2])] = 0
    return lu, order, status, rcond, scales


def _factor_scaled(
    a: NDArray[Any], lost: NDArray[np.intp], factors: tuple[NDArray[Any], ...]
) -> NDArray[np.int32]:
    """Factor the `lost` ones of a, scaled by powers of two; the exponents of rows and columns."""
    with np.errstate(all="ignore"):
        scaled, rows, columns = equilibrated(a[lost])
        some = tuple(np.ascontiguousarray(values[lost]) for values in factors)
        kernels.factoring(a.shape[-1], a.dtype)(np.ascontiguousarray(scaled), *some)
    status, rcond = some[2:]
    status[status == UNBOUNDED] = Status.NONFINITE
    rcond[status == Status.OK] = np.nan  # that of the scaled matrix
    for values, found in zip(factors, some, strict=True):
        values[lost] = found
    return np.stack([rows, columns], axis=-1)


_DAMAGED = (
    "the factors are damaged or incomplete: they name rows that a matrix does not have; factor "
    "and write them again"
)


def _solve_block(
    lu: NDArray[Any],
    order: NDArray[np.int32],
    scales: NDArray[np.int16],
    b: NDArray[Any],
    dtype: Any,
    transposed: bool,
) -> NDArray[Any]:
    """Solve for the matrices b with the factors of a block; `order` has two core axes, too."""
    b = as_array("b", b)
    n, k, shape = lu.shape[-1], b.shape[-1], lu.shape[:-2]
    scaled = any(scales.strides) and bool(scales.any())
    shape = np.broadcast_shapes(shape, b.shape[:-2])
    x = np.empty((*shape, n, k), dtype)
    if not x.size:
        return x
    kernel = kernels.substituting(k, dtype, transposed)

    def substitute(
        lu: NDArray[Any], rows: NDArray[Any], b: NDArray[Any], scales: NDArray[Any], x: NDArray[Any]
    ) -> None:
        found = kernel(lu, rows, b, x)
        if found == DAMAGED or (scaled and (scales == _LOST).any()):
            raise ValueError(_DAMAGED)
        if found == SPOILT or scaled:
            powers = scales[..., ::-1] if transposed else scales
            _solve_scaled(kernel, lu, rows, powers, b, x)

    ready = lu.dtype == b.dtype == dtype and pieces.is_plain(lu) and pieces.is_plain(b)
    piece = 16 * pieces.PIECE if ready else pieces.PIECE  # a copy shall stay in the cache
    size = max(1, piece // (n * max(n, k) * x.itemsize))
    given = [
        pieces.Given(lu, 2, dtype),
        pieces.Given(order[..., 0], 1, order.dtype),
        pieces.Given(b, 2, dtype),
        pieces.Given(scales, 2, scales.dtype),
    ]
    pieces.call(substitute, shape, size, given, [x])
    return x


def _solve_scaled(
    kernel: Any,
    lu: NDArray[Any],
    order: NDArray[np.int32],
    scales: NDArray[np.int16],
    b: NDArray[Any],
    x: NDArray[Any],
) -> None:
    """Solve again with factors of scaled matrices, and for what was out of range."""
    scaled = scales.any(axis=(-2, -1))
    x[scaled] = complex(np.nan, np.nan) if x.dtype.kind == "c" else np.nan
    lost = np.flatnonzero(np.isnan(x).any(axis=(-2, -1)))
    lost = lost[np.isfinite(lu[lost]).all(axis=(-2, -1))]
    factors, rows = np.ascontiguousarray(lu[lost]), np.ascontiguousarray(order[lost])

    def solve(right: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.int8]]:
        y = np.empty(right.shape, right.dtype)
        kernel(factors, rows, np.ascontiguousarray(right), y)
        return y, np.zeros(len(y), np.int8)

    if lost.size:
        found, powers = x[lost], scales[lost].astype(np.int32)
        solve_again([Attempt(solve, powers[..., 0], powers[..., 1])], b[lost], found)
        x[lost] = found


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
            NaN where `status` is not OK. Not transposed, of ``assume_a="gen"``, it has the bits
            that `solve` gives.

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
        lu = self.lu
        is_lazy = isinstance(lu, da.Array) or isinstance(b, da.Array)
        b = lazy.checked("b", b)
        problem = describe(lu.shape, lu.dtype, b.shape, b.dtype)
        if is_lazy:
            x: Any = lazy.map_factored(_solve_block, factors, b, problem, transposed)
        else:
            b = b[..., None] if problem.vectors else b
            x = _solve_block(*factors, b, problem.dtype, transposed)
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
        if not isinstance(self.lu, da.Array):
            return _slogdet_block(*arrays)
        both = da.map_blocks(_slogdet_block, *arrays, dtype=self.lu.dtype, meta=self.lu._meta)
        real = np.empty(0, self.lu.dtype).real.dtype
        axes = range(self.lu.ndim - 2)
        return lazy.member(both, 0, axes, self.lu.dtype), lazy.member(both, 1, axes, real)

    def to_zarr(self, path: Location) -> None:
        """Write the factors to a new zarr group; lazy ones are computed block by block.

        Parameters
        ----------
        path : str or pathlib.Path
            Path or URL of the group.

        Raises
        ------
        FileExistsError
            There is something.

        Examples
        --------
        >>> import numpy as np, tempfile, dasksolve
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     dasksolve.factor(2 * np.eye(3)).to_zarr(folder + "/factors.zarr")
        ...     f = dasksolve.Factorization.open(folder + "/factors.zarr")
        ...     f.solve([2.0, 4.0, 6.0]).compute()
        array([1., 2., 3.])
        """
        store, location = stores.open_store(path)
        if not groups.is_empty(store):
            raise FileExistsError(f"{location} exists; choose another path, or delete it")
        group = zarr.create_group(store, zarr_format=3)
        written = []
        for name, values in self._arrays().items():
            source = da.asarray(values)
            chunks = tuple(max(1, *c) if c else 1 for c in source.chunks)
            array = group.create_array(
                name,
                shape=source.shape,
                chunks=chunks,
                dtype=source.dtype,
                fill_value=_MISSING[name],
                compressors=[ZstdCodec(), Crc32cCodec()],
            )
            if source.size:
                written.append(_written(source.rechunk(chunks), array))
        da.compute(*written)
        group.attrs[_ATTRIBUTE] = json.dumps({"version": _VERSION})  # last: it is whole

    @classmethod
    def open(cls, path: Location) -> "Factorization":
        """Open what `to_zarr` wrote, as lazy dask arrays.

        Parameters
        ----------
        path : str or pathlib.Path
            Path or URL of the group.

        Raises
        ------
        FileNotFoundError
            There is nothing.
        ValueError
            What is there are not the factors of a batch, or not all of them.
        """
        store, location = stores.open_store(path)
        if groups.is_empty(store):
            raise FileNotFoundError(
                f"there are no factors at {location}; Factorization.to_zarr writes them"
            )
        group = groups.open_group(store, location, mode="r")
        try:
            version = json.loads(group.attrs[_ATTRIBUTE])["version"]
            names = ("lu", "order", "status", "rcond", *(["scales"] if version >= _VERSION else []))
            arrays = [group[name] for name in names]
            lu, order, status, rcond, *scales = (  # not from_zarr: array.query-planning has none
                da.from_array(array, chunks=array.chunks, inline_array=True) for array in arrays
            )
        except (KeyError, TypeError, ValueError):
            raise ValueError(
                f"{location} does not hold the whole of a factorization; factor and write it again"
            ) from None
        whole = (
            version == _VERSION
            and describe_inverses(lu.shape, lu.dtype).dtype == lu.dtype
            and lu.shape[:-1] == order.shape
            and lu.shape[:-2] == status.shape == rcond.shape
            and (*order.shape, 2) == scales[0].shape
            and (order.dtype, status.dtype, rcond.dtype) == (np.int32, np.int8, np.float64)
            and scales[0].dtype == np.int16
        )
        if not whole:
            raise ValueError(
                f"{location} holds factors of version {version}, lu {lu.shape} {lu.dtype}, order "
                f"{order.shape} {order.dtype}, status {status.shape}: factor and write them again"
            )
        return cls(lu, order, status, rcond, scales[0])

    def __repr__(self) -> str:
        return f"Factorization({self.lu.shape} {self.lu.dtype})"

    def _arrays(self) -> dict[str, Any]:
        return {
            "lu": self.lu,
            "order": self.order,
            "status": self.status,
            "rcond": self.conditions,
            "scales": self.scales,
        }


def _written(values: da.Array, array: Any) -> da.Array:
    """What writes each block to its chunk of a zarr array: no two tasks write to one."""
    # da.store does so too, but not for the arrays of array.query-planning.
    ones = tuple((1,) * blocks for blocks in values.numblocks)
    return da.map_blocks(
        _write_block, values, array, chunks=ones, dtype=bool, meta=np.empty(0, bool)
    )


def _write_block(
    values: NDArray[Any], array: Any, *, block_id: tuple[int, ...]
) -> NDArray[np.bool_]:
    corner = [i * chunk for i, chunk in zip(block_id, array.chunks, strict=True)]
    array[tuple(slice(c, c + n) for c, n in zip(corner, values.shape, strict=True))] = values
    return np.ones((1,) * values.ndim, bool)


def _slogdet_block(
    lu: NDArray[Any],
    order: NDArray[np.int32],
    status: NDArray[np.int8],
    scales: NDArray[np.int16],
) -> tuple[NDArray[Any], NDArray[Any]]:
    scaled = any(scales.strides) and scales.size
    if order.size and not (order.min() >= 0 and order.max() < order.shape[-2]):
        raise ValueError(_DAMAGED)
    if scaled and scales.min() == _LOST:
        raise ValueError(_DAMAGED)
    status, n = status[..., 0, 0], lu.shape[-1]
    flat = lu.reshape(status.size, n, n), order.reshape(status.size, n)
    sign, logabsdet = (values.reshape(status.shape) for values in determinant.slogdet(*flat))
    if scaled:
        logabsdet = logabsdet - np.log(2) * scales.sum(axis=(-2, -1))
    singular = status == Status.SINGULAR
    sign[singular], logabsdet[singular] = 0, -np.inf
    return sign, logabsdet.astype(lu.real.dtype)
