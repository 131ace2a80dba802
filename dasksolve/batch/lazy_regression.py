"""Regressions of dask arrays: one task a block, which holds whole series."""

import math
import warnings
from dataclasses import replace
from typing import Any

import dask
import dask.array as da
import numpy as np
from dask.utils import format_bytes, parse_bytes
from numpy.typing import DTypeLike, NDArray

from dasksolve.batch.regression import (
    Fit,
    as_observations,
    checked_weights,
    describe,
    run,
    without_mask,
)
from dasksolve.errors import PerformanceWarning
from dasksolve.solution import Regression
from dasksolve.storage.conventions import Packing


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
) -> Regression:
    """Fit series lazily; `dasksolve.regress` documents it."""
    y = _checked("y", y)
    fit = describe(
        y.shape, y.dtype, design, axis, ridge, rcond, min_count, on_deficient, covariance
    )
    weights = _checked("weights", weights)
    if isinstance(weights, da.Array):
        weights = da.map_blocks(without_mask, weights, dtype=weights.dtype)
    weights = checked_weights(weights, fit)
    y = _whole(da.asanyarray(y), fit)
    axes = tuple(range(y.ndim))
    arrays: list[Any] = [y, axes]
    if weights.ndim == 1:
        arrays += [weights, None]
    else:
        arrays += [da.asanyarray(weights).rechunk(y.chunks), axes]
    blocks = da.blockwise(
        fit_block,
        axes,
        *arrays,
        fit=fit,
        name="regress-" + dask.base.tokenize(arrays, fit),
        adjust_chunks={fit.axis: fit.n},
        dtype=fit.dtype,
        meta=_meta(y.ndim, fit.dtype),
    )
    batch = axes[: fit.axis] + axes[fit.axis + 1 :]
    found = [_member(blocks, item, axes, fit.dtype) for item in (0, 1)]
    dtypes: tuple[DTypeLike, ...] = (fit.dtype, np.int32, np.float64, np.int8)
    found += [_member(blocks, item, batch, dtype) for item, dtype in enumerate(dtypes, 2)]
    if not fit.covariance:
        return Regression._make([*found, None])
    core = (y.ndim, y.ndim + 1)
    new_axes = dict.fromkeys(core, fit.n)
    found.append(_member(blocks, 6, batch + core, fit.dtype, new_axes=new_axes))
    return Regression._make(found)


def fit_block(
    y: NDArray[Any], weights: NDArray[Any], *, fit: Fit, packing: Packing | None = None
) -> Regression:
    """Fit the series of one block."""
    return run(y, weights, replace(fit, shape=y.shape), packing=packing)


def _checked(name: str, values: Any) -> Any:
    """Refuse what dask cannot map over; leave what is no dask array."""
    if not isinstance(values, da.Array):
        return as_observations(name, values)
    if not isinstance(values._meta, np.ndarray):
        kind = f"{type(values._meta).__module__}.{type(values._meta).__name__}"
        raise TypeError(
            f"{name} is a dask array of {kind} blocks; regressions are of numpy.ndarray blocks: "
            f"convert them with {name}.map_blocks"
        )
    if any(math.isnan(length) for length in values.shape):
        raise ValueError(
            f"{name} has chunks of unknown size: its shape is {values.shape}; "
            f"call {name}.compute_chunk_sizes() first"
        )
    return values


def _whole(y: da.Array, fit: Fit) -> da.Array:
    """Chunks of whole series, no larger than dask likes them."""
    if len(y.chunks[fit.axis]) == 1:
        return y
    limit = parse_bytes(dask.config.get("array.chunk-size"))
    merged = y.rechunk({fit.axis: -1})
    size = math.prod(merged.chunksize) * y.dtype.itemsize
    if size <= limit:
        return merged
    others = {i: "auto" for i in range(y.ndim) if i != fit.axis}
    warnings.warn(
        f"the observations are chunked: y has chunks of {y.chunksize}, which make blocks of "
        f"{format_bytes(size)} where they are merged along axis {fit.axis}. Smaller ones are made, "
        f"so that every chunk is read for several blocks: chunk y in whole series to avoid it",
        PerformanceWarning,
        stacklevel=4,
    )
    return y.rechunk({fit.axis: -1, **others})


def _member(
    blocks: da.Array, item: int, axes: tuple[int, ...], dtype: DTypeLike, **options: Any
) -> da.Array:
    return da.blockwise(
        _item,
        axes,
        blocks,
        tuple(range(blocks.ndim)),
        item=item,
        dtype=dtype,
        meta=_meta(len(axes), dtype),
        **options,
    )


def _item(found: Any, item: int) -> Any:
    while isinstance(found, list):  # of the one block along the axis that is left out
        (found,) = found
    return found[item]


def _meta(ndim: int, dtype: DTypeLike) -> NDArray[Any]:
    return np.empty((0,) * ndim, dtype)
