"""Solving dask arrays: align the chunks, then map one function over the blocks."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import dask
import dask.array as da
import numpy as np
from numpy.typing import DTypeLike, NDArray

from dasksolve.batch import alignment, bands, eager, internals, least_squares
from dasksolve.batch.alignment import Chunks
from dasksolve.batch.arrays import as_array, as_weights
from dasksolve.batch.factors import factor_block, slogdet_block
from dasksolve.batch.factors import solve_block as solve_factored_block
from dasksolve.batch.options import Options
from dasksolve.batch.problem import Problem, describe, describe_bands, describe_inverses
from dasksolve.batch.weights import without_mask
from dasksolve.errors import SingularSystemError
from dasksolve.solution import LeastSquares, Solution
from dasksolve.status import Status

_BY_SEVERITY = np.array(
    [
        Status.OK,
        Status.ILL_CONDITIONED,
        Status.NONFINITE,
        Status.NOT_POSITIVE_DEFINITE,
        Status.SINGULAR,
    ],
    np.int8,
)
Block = Callable[..., Any]
"""A function of blocks: arrays, then options by name."""


def solve(a: Any, b: Any, options: Options) -> Any:
    """Solve a batch lazily: x, or with diagnostics a `Solution`."""
    problem, blocks = _map(a, b, options)
    whole = range(blocks.ndim)
    x = member(blocks, 0, whole, problem.dtype) if options.diagnostics else blocks
    x = x[..., 0] if problem.vectors else x
    if not options.diagnostics:
        return x
    status = member(blocks, 1, whole[:-2], np.int8, rcond=options.rcond)
    rcond, backward_error = (member(blocks, item, whole[:-2], float) for item in (2, 3))
    return Solution(x, status, rcond, backward_error)


def inv(a: Any, options: Options) -> da.Array:
    """Invert a batch lazily; `dasksolve.inv` documents it."""
    a = checked("a", a)
    return solve(a, describe_inverses(a.shape, a.dtype).identity, options)


def factor(a: Any, options: Options) -> tuple[da.Array, ...]:
    """Factor a batch lazily: what a `Factorization` is made of."""
    a = checked("a", a)
    problem = describe_inverses(a.shape, a.dtype)
    a = a.rechunk({-2: -1, -1: -1})
    blocks = a.map_blocks(
        factor_block,
        problem.dtype,
        options,
        dtype=problem.dtype,
        meta=alignment.meta(a.ndim, problem.dtype),
    )
    whole = range(blocks.ndim)
    batch = whole[:-2]
    return (
        member(blocks, 0, whole, problem.dtype),
        member(blocks, 1, whole[:-1], np.int32),
        member(blocks, 2, batch, np.int8),
        member(blocks, 3, batch, np.float64),
        member(blocks, 4, whole, np.int16, adjust_chunks={whole[-1]: (2,)}),
    )


def slogdet(*factors: Any) -> tuple[da.Array, da.Array]:
    """Signs and logarithms of determinants, lazily."""
    lu = factors[0]
    both = da.map_blocks(
        slogdet_block, *factors, dtype=lu.dtype, meta=alignment.meta(lu.ndim, lu.dtype)
    )
    real = np.empty(0, lu.dtype).real.dtype
    axes = range(lu.ndim - 2)
    return member(both, 0, axes, lu.dtype), member(both, 1, axes, real)


def member(
    blocks: da.Array, item: int, axes: Sequence[int], dtype: DTypeLike, **options: Any
) -> da.Array:
    """One item of blocks that are tuples, over these of their axes; options of `da.blockwise`."""
    axes, whole = tuple(axes), tuple(range(blocks.ndim))
    meta = alignment.meta(len(axes), dtype)
    return da.blockwise(_item, axes, blocks, whole, item=item, dtype=dtype, meta=meta, **options)


def _item(solution: Any, item: int, rcond: float | None = None) -> Any:
    parts = [*_parts(solution)]
    return parts[0][item] if len(parts) == 1 else _over_columns(parts, item, rcond)


def _parts(solution: Any) -> Iterator[Any]:
    """What is found of the blocks along axes that are left out: columns of b."""
    if isinstance(solution, list):
        for part in solution:
            yield from _parts(part)
    else:
        yield solution


def _over_columns(parts: list[Solution], item: int, rcond: float | None) -> Any:
    """What is said of systems whose columns were solved apart."""
    name = Solution._fields[item]
    if name == "backward_error":
        return np.fmax.reduce([part.backward_error for part in parts])
    conditions = np.fmin.reduce([part.rcond for part in parts])  # NaN: no column is finite
    if name == "rcond":
        return conditions
    severity = np.argsort(_BY_SEVERITY)
    status = np.take(_BY_SEVERITY, np.max([severity[part.status] for part in parts], axis=0))
    if rcond is not None:  # which counts for more than a column that is not finite
        status[(status == Status.NONFINITE) & (conditions < rcond)] = Status.ILL_CONDITIONED
    return status


def _map(a: Any, b: Any, options: Options) -> tuple[Problem, da.Array]:
    """`eager.solve` mapped over blocks of whole systems."""
    a, b = checked("a", a), checked("b", b)
    problem = describe(a.shape, a.dtype, b.shape, b.dtype)
    vectors = b
    if problem.vectors:
        b = alignment.matrices(b, a.ndim)
    batch_chunks = alignment.batch_chunks(problem.batch_shape, a, b)
    # Whether to refine a system is decided by all its columns.
    together = alignment.core_is_chunked if options.refine else alignment.rows_are_chunked
    if alignment.core_is_chunked(a) or together(b):
        batch_chunks = alignment.split(batch_chunks, problem, a, b)
    a = alignment.follow(a, batch_chunks)
    b = alignment.follow(b, batch_chunks, None if options.refine else problem)
    may_raise = options.on_singular == "raise" and isinstance(vectors, da.Array)
    if may_raise and vectors.chunks == b.chunks[:-1]:
        b = vectors  # spares a task for each block
    door = "solve_ex" if options.diagnostics else "solve"
    return problem, _solved(solve_block, [a, b], problem, batch_chunks, options, door)


def _solved(
    function: Block,
    arrays: list[da.Array],
    problem: Problem,
    batch_chunks: tuple[Chunks, ...],
    options: Options,
    name: str,
) -> da.Array:
    """One function mapped over the blocks of arrays that are chunked alike, b the last of them.

    Where it may raise, b may be vectors.
    """
    named = f"{name}-" + dask.base.tokenize(arrays, problem, options)
    vectors = arrays[-1].ndim == len(batch_chunks) + 1
    chunks = (*batch_chunks, (problem.n,), (1,) if vectors else arrays[-1].chunks[-1])
    meta = alignment.meta(len(chunks), problem.dtype)
    if options.on_singular != "raise":
        return da.map_blocks(
            function,
            *arrays,
            name=named,
            chunks=chunks,
            dtype=problem.dtype,
            meta=meta,
            options=options,
        )
    # Not `map_blocks`, whose block_id and block_info double the time in which the graph is built,
    # and which takes no vectors beside matrices.
    axes = tuple(range(len(chunks)))
    indices = [axes[-values.ndim :] for values in arrays]
    if vectors:
        indices[-1] = axes[:-1]
    pairs = [part for pair in zip(arrays, indices, strict=True) for part in pair]
    return da.blockwise(
        _Counted(function, options, problem.batch_shape),
        axes,
        *pairs,
        internals.Origins(batch_chunks),
        axes[:-2],
        token=named,  # a `name` keeps dask's query planning from planning what lies below
        dtype=problem.dtype,
        meta=meta,
        adjust_chunks=dict(zip(axes, chunks, strict=True)),
        align_arrays=False,
    )


def lstsq(a: Any, b: Any, weights: Any, options: least_squares.LstsqOptions) -> LeastSquares:
    """Solve least squares lazily; `dasksolve.lstsq_ex` documents it."""
    a, b = checked("a", a), checked("b", b)
    problem = least_squares.describe(a.shape, a.dtype, b.shape, b.dtype)
    weights = least_squares.checked_weights(weighing(weights), problem)
    if weights is None:
        weights = np.ones(problem.rows)
    weights = alignment.matrices(weights, a.ndim)
    if problem.vectors:
        b = alignment.matrices(b, a.ndim)
    batch_chunks = alignment.batch_chunks(problem.batch_shape, a, b, weights)
    arrays = [alignment.follow(values, batch_chunks) for values in (a, b, weights)]
    blocks = da.map_blocks(
        lstsq_block,
        *arrays,
        name="lstsq-" + dask.base.tokenize(arrays, options),
        chunks=(*batch_chunks, (problem.n,), (b.shape[-1],)),
        dtype=problem.dtype,
        meta=alignment.meta(len(batch_chunks) + 2, problem.dtype),
        options=options,
    )
    whole, real = tuple(range(blocks.ndim)), np.zeros((), problem.dtype).real.dtype
    batch = whole[:-2]
    x, rss = member(blocks, 0, whole, problem.dtype), member(blocks, 3, (*batch, whole[-1]), real)
    dtypes: dict[int, DTypeLike] = {1: np.int8, 2: np.float64, 4: np.int32, 5: np.int32}
    status, rcond, rank, count = (member(blocks, i, batch, dtype) for i, dtype in dtypes.items())
    if problem.vectors:
        x, rss = x[..., 0], rss[..., 0]
    return LeastSquares._make([x, status, rcond, rss, rank, count])


def lstsq_block(
    a: NDArray[Any], b: NDArray[Any], weights: NDArray[Any], *, options: least_squares.LstsqOptions
) -> LeastSquares:
    """Solve one block, b as matrices and the weights as matrices of one column."""
    problem = least_squares.describe(a.shape, a.dtype, b.shape, b.dtype)
    return least_squares.run(a, b, weights[..., 0], problem, options)


def solve_factored(factors: tuple[Any, ...], b: Any, transposed: bool) -> da.Array:
    """Solve with factors, lu the first of them, or for a b that are lazy."""
    b, lu = checked("b", b), factors[0]
    problem = describe(lu.shape, lu.dtype, b.shape, b.dtype)
    if problem.vectors:
        b = alignment.matrices(b, lu.ndim)
    batch_chunks = alignment.batch_chunks(problem.batch_shape, lu, b)
    x = da.map_blocks(
        solve_factored_block,
        *(alignment.follow(values, batch_chunks) for values in (*factors, b)),
        problem.dtype,
        transposed,
        chunks=(*batch_chunks, (problem.n,), (b.shape[-1],)),
        dtype=problem.dtype,
        meta=alignment.meta(len(batch_chunks) + 2, problem.dtype),
    )
    return x[..., 0] if problem.vectors else x


def solve_block(a: NDArray[Any], b: NDArray[Any], *, options: Options) -> Any:
    """Solve one block."""
    return eager.solve(a, b, options)


@dataclass(frozen=True)
class _Counted:
    """A function of blocks, b as matrices, that counts the indices it raises over the whole batch.

    What a task is given beside its blocks takes dask 10 µs each, so this holds all but its origin.
    """

    function: Block
    options: Options
    batch_shape: tuple[int, ...]

    def __call__(self, *arrays_and_origin: Any) -> Any:
        """Solve a block."""
        *arrays, b, origin = arrays_and_origin
        if b.ndim < len(self.batch_shape) + 2:
            b = b[..., None]
        try:
            return self.function(*arrays, b, options=self.options)
        except SingularSystemError as error:
            raise error.within(self.batch_shape, origin) from None


def solve_tridiagonal(lower: Any, diagonal: Any, upper: Any, b: Any, options: Options) -> da.Array:
    """Solve a batch of tridiagonal systems lazily; `dasksolve.solve_tridiagonal` documents it."""
    named = {"lower": lower, "diagonal": diagonal, "upper": upper, "b": b}
    arrays = [checked(name, values) for name, values in named.items()]
    problem = describe_bands(*((values.shape, values.dtype) for values in arrays))
    ndim = len(problem.batch_shape) + 2
    # A band is handed on as a matrix of one column, so that all have the same axes.
    columns = [alignment.matrices(band, ndim) for band in arrays[:3]]
    columns.append(alignment.matrices(arrays[3], ndim) if problem.vectors else arrays[3])
    batch_chunks = alignment.batch_chunks(problem.batch_shape, *columns)
    columns = [alignment.follow(values, batch_chunks) for values in columns]
    x = _solved(solve_bands, columns, problem, batch_chunks, options, "solve-tridiagonal")
    return x[..., 0] if problem.vectors else x


def solve_bands(*columns: NDArray[Any], options: Options) -> NDArray[Any]:
    """Solve one block, whose bands are matrices of one column."""
    *columns_of_bands, b = columns
    lower, diagonal, upper = (band[..., 0] for band in columns_of_bands)
    return bands.solve(lower, diagonal, upper, b, options)


def checked(name: str, values: Any, *kinds: type) -> Any:
    """Return an array that dask can map over, or refuse it.

    kinds: of blocks that are fine beside those that are plain ndarrays.
    """
    if not isinstance(values, da.Array):
        return as_array(name, values)
    kind = internals.kind(values)
    if kind not in (np.ndarray, *kinds):
        raise TypeError(
            f"{name} is a dask array of {kind.__module__}.{kind.__name__} blocks; "
            "dasksolve wants numpy.ndarray blocks: "
            f"convert them with {name}.map_blocks"
        )
    if any(math.isnan(length) for length in values.shape):
        raise ValueError(
            f"{name} has chunks of unknown size: its shape is {values.shape}; "
            f"call {name}.compute_chunk_sizes() first"
        )
    # dask takes an axis of length 1 that is in chunks of 1 and 0 for as many as there are chunks.
    single = {i: -1 for i, n in enumerate(values.shape) if n == 1 < len(values.chunks[i])}
    return values.rechunk(single) if single else values


def weighing(weights: Any) -> Any:
    """Weights, in memory or lazy, that are 0 where they were masked; None for None."""
    if not isinstance(weights, da.Array):
        return without_mask(as_weights(weights))
    weights = checked("weights", weights, np.ma.MaskedArray)
    return da.map_blocks(without_mask, weights, dtype=weights.dtype)
