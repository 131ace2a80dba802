"""Regressions of dask arrays: one task a block, which holds whole series."""

import math
from dataclasses import replace
from typing import Any

import dask
import dask.array as da
import numpy as np
from dask.utils import format_bytes, parse_bytes
from numpy.typing import DTypeLike, NDArray

from dasksolve.batch.arrays import as_observations
from dasksolve.batch.fit import Fit, FitOptions, describe
from dasksolve.batch.lazy import checked, member, weighing
from dasksolve.batch.regression import run
from dasksolve.batch.weights import checked_weights
from dasksolve.errors import PerformanceWarning, warn
from dasksolve.solution import Regression


def regress(y: Any, design: Any, weights: Any, options: FitOptions) -> Regression:
    """Fit series lazily; `dasksolve.regress` documents it."""
    lazy = isinstance(y, da.Array)
    y = checked("y", y, np.ma.MaskedArray) if lazy else as_observations("y", y)
    fit = describe(y.shape, y.dtype, design, options)
    weights = weighing(weights)
    if weights is not None and weights.shape != (fit.shape[fit.axis],):
        weights = da.asanyarray(weights)  # dask would read all that they broadcast to, to name it
    weights = checked_weights(weights, fit)
    y = _whole(da.asanyarray(y), fit)
    axes = tuple(range(y.ndim))
    arrays: list[Any] = [y, axes]
    if weights.ndim == 1:
        is_lazy = isinstance(weights, da.Array)
        arrays += (
            [weights.rechunk(-1), axes[fit.axis : fit.axis + 1]] if is_lazy else [weights, None]
        )
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
        meta=np.empty((0,) * y.ndim, fit.dtype),
    )
    batch = axes[: fit.axis] + axes[fit.axis + 1 :]
    found = [member(blocks, item, axes, fit.dtype) for item in (0, 1)]
    dtypes: tuple[DTypeLike, ...] = (fit.dtype, np.int32, np.float64, np.int8)
    found += [member(blocks, item, batch, dtype) for item, dtype in enumerate(dtypes, 2)]
    if not fit.covariance:
        return Regression._make([*found, None])
    core = (y.ndim, y.ndim + 1)
    new_axes = dict.fromkeys(core, fit.n)
    found.append(member(blocks, 6, batch + core, fit.dtype, new_axes=new_axes))
    return Regression._make(found)


def fit_block(y: NDArray[Any], weights: NDArray[Any], *, fit: Fit) -> Regression:
    """Fit the series of one block."""
    return run(y, weights, replace(fit, shape=y.shape))


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
    warn(
        f"the observations are chunked: y has chunks of {y.chunksize}, which make blocks of "
        f"{format_bytes(size)} where they are merged along axis {fit.axis}. Smaller ones are made, "
        f"so that every chunk is read for several blocks: chunk y in whole series to avoid it",
        PerformanceWarning,
    )
    return y.rechunk({fit.axis: -1, **others})
