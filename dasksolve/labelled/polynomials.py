"""Polynomials along a dimension that has a name, as xarray fits them."""

import math
from collections.abc import Hashable
from datetime import timedelta
from functools import reduce
from operator import iadd
from typing import TYPE_CHECKING, Any, Never

import numpy as np
from numpy.typing import NDArray

from dasksolve import api
from dasksolve.batch.options import (
    check_flags,
    check_word,
    checked_rcond,
    refuse_unknown,
    refusing,
)
from dasksolve.errors import counted, warn
from dasksolve.labelled.names import coordinates, refuse_names, refuse_unlabelled, xarray
from dasksolve.labelled.series import check_dimensions, weights_of

if TYPE_CHECKING:
    import xarray as xr

Floats = NDArray[Any]


@refusing
def polyfit(
    y: "xr.DataArray",
    dim: Hashable,
    deg: int,
    *,
    skipna: bool | None = None,
    rcond: float | None = None,
    weights: "xr.DataArray | None" = None,
    cov: bool | str = False,
    full: bool = False,
    workers: int = 1,
    **unknown: Never,
) -> "xr.Dataset":
    """Fit polynomials along a dimension, as `xarray.DataArray.polyfit` does, with right errors.

    Parameters
    ----------
    y : xarray.DataArray with dimension dim
        The series; float32 is fitted in float64, as by xarray.
    dim : str
        Whose coordinate is the variable of the polynomials, or the name of another coordinate
        along one dimension; dates, of any calendar, count in nanoseconds since 1970, durations in
        the unit that they have, as in xarray.
    deg : int
        The degree of the polynomials.
    skipna : bool, optional
        False: a series with a gap is NaN. Otherwise it is fitted to the observations that it has.
    rcond : float, optional
        Singular values of the design, its columns scaled to length 1, that are below rcond times
        the largest count as zero, as in xarray. Default: none does; powers of dates are told apart
        here, where xarray cannot.
    weights : xarray.DataArray, optional
        Inverse variances, over that dimension, or any dimensions of y: the squares of the ``w`` of
        `xarray.DataArray.polyfit`.
    cov : bool or "unscaled", default False
        Whether the covariances of the coefficients are wanted; "unscaled": those for observations
        of variance 1 / weights.
    full : bool, default False
        Whether residuals, matrix rank and singular values are wanted.
    workers : int, default 1
        As in `dasksolve.regress`.

    Returns
    -------
    fit : xarray.Dataset
        ``polyfit_coefficients`` along ``degree``, the highest first, in float64; if asked for,
        ``polyfit_covariance``, ``polyfit_residuals`` (the weighted sum of squares),
        ``[dim]_matrix_rank`` and ``[dim]_singular_values`` of the design without gaps, its rows
        times the roots of weights along dim alone. Covariances are those of each series' own
        observations, where xarray takes those of a series without gaps. Series with fewer
        observations than coefficients are NaN.

    Warns
    -----
    numpy.exceptions.RankWarning
        Singular values are below rcond.

    Raises
    ------
    ValueError, TypeError, ImportError
        As in `regress`.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> from dasksolve import labelled
    >>> x = xr.DataArray(np.arange(5.0), {"x": np.arange(5.0)}, "x")
    >>> y = (1 + 2 * x * xr.DataArray([1, 3], dims="pixel")).where(x != 2)
    >>> labelled.polyfit(y, "x", 1).polyfit_coefficients.values.round(6)
    array([[2., 6.],
           [1., 1.]])
    """
    if unknown:
        refuse_unknown(polyfit, unknown)
    array = xarray().DataArray
    refuse_unlabelled("y", y)
    named = isinstance(dim, Hashable) and dim in y.coords
    along = y.coords[dim].dims[0] if named and y.coords[dim].ndim == 1 else dim
    check_dimensions(y, y, weights, along)
    if not isinstance(deg, int | np.integer) or isinstance(deg, bool) or deg < 0:
        raise ValueError(f"deg={deg!r} must be a degree: 0, 1, 2, ...")
    check_flags(full=full, skipna=True if skipna is None else skipna)
    if isinstance(cov, bool | np.bool_):
        cov = bool(cov)
    else:
        check_word("cov", cov, ("unscaled",), " (or True, or False)")
    names = ["degree", *(("cov_i", "cov_j") if cov else ())]
    names += [f"polyfit_{part}" for part in ("coefficients", "residuals", "covariance")]
    refuse_names("y", y, [*names, f"{dim}_matrix_rank", f"{dim}_singular_values"], along)
    rcond = checked_rcond(rcond)
    x = y.coords[dim] if named else array(np.arange(y.sizes[dim]), dims=[dim])  # y[0] is a row
    numbers, degrees = _numeric(x), np.arange(deg + 1)[::-1]
    given = weights_of(weights, y, along)
    design, back = _design(numbers, degrees, rcond, given)
    values = y.data.astype(np.result_type(y.dtype, np.float64)) if y.dtype.kind in "fc" else y.data
    how: dict[str, Any] = {
        "axis": y.get_axis_num(along),
        "min_count": y.sizes[along] if skipna is not None and not skipna else deg + 1,
        "workers": workers,
    }
    fit = api.regress(values, design, weights=given, covariance=cov is True, **how)
    others = [name for name in y.dims if name != along]
    dims = ["degree" if name == along else name for name in y.dims]
    coef = array(_dot(back, fit.coef, how["axis"]), {"degree": degrees}, dims)
    coef = coef.transpose("degree", *others)
    found = {"polyfit_coefficients": coef}
    if full:
        sizes, rank = _singular_values(numbers, degrees, given)
        found |= {
            f"{dim}_matrix_rank": array(rank),
            f"{dim}_singular_values": array(sizes, dims="degree"),
        }
    if full or cov is True:
        found["polyfit_residuals"] = array(fit.rss, dims=others)
    if cov:
        both = fit.covariance if cov is True else _unscaled(values, design, given, how)
        both = array(_dot(back, _dot(back, both, -2), -1), dims=[*others, "cov_i", "cov_j"])
        both = both.transpose("cov_i", "cov_j", *others)
        found["polyfit_covariance"] = both.where(coef.isel(degree=0, drop=True).notnull())
    return xarray().Dataset(found, coordinates(y, along))


def _dot(matrix: Floats, values: Any, axis: int) -> Any:
    """The product of a matrix (m, n) and n values along an axis, in place of which there are m.

    Not `xarray.dot`: its last bits depend on how values lie in memory.
    """
    if not hasattr(values, "map_blocks"):
        return _products(values, matrix, axis)
    chunks = list(values.chunks)
    chunks[axis] = (len(matrix),)
    return values.map_blocks(
        _products,
        matrix=matrix,
        axis=axis,
        chunks=tuple(chunks),
        dtype=np.float64,
        meta=np.empty((0,) * values.ndim),
    )


@np.errstate(all="ignore")
def _products(values: Floats, matrix: Floats, axis: int) -> Floats:
    """The products, term after term."""
    each = zip(matrix.T, np.moveaxis(values, axis, 0), strict=True)
    terms = (np.multiply.outer(column, one) for column, one in each)
    return np.moveaxis(reduce(iadd, terms), 0, axis)


@np.errstate(all="ignore")
def _unscaled(values: Any, design: Floats, weights: Any, how: dict[str, Any]) -> Any:
    """The covariances of coefficients where each observation has the variance 1 / its weight."""
    # One more observation that no coefficient explains is all that is left of series of zeros.
    axis, observations = how["axis"], len(design)
    one = np.ones_like(values.sum(axis=axis, keepdims=True), dtype=np.float64)
    values = np.concatenate([values * 0, one], axis=axis)
    if weights is not None and weights.ndim == 1:
        weights = np.concatenate([weights, [1.0]])
    elif weights is not None:
        shape = [observations if i == axis else n for i, n in enumerate(weights.shape)]
        row = [slice(n) for n in weights.shape]
        weights = np.concatenate([np.broadcast_to(weights, shape), one[*row]], axis=axis)
    if hasattr(values, "rechunk"):
        values = values.rechunk({axis: -1})
    design = np.concatenate([design, np.zeros((1, design.shape[1]))])
    how = {**how, "min_count": how["min_count"] + 1}
    fit = api.regress(values, design, weights=weights, covariance=True, **how)
    return fit.covariance * (fit.count - design.shape[1])[..., None, None]


@np.errstate(all="ignore")
def _design(
    x: Floats, degrees: NDArray[np.int_], rcond: float | None, weights: Any
) -> tuple[Floats, Floats]:
    """A design whose columns span the polynomials, and what makes coefficients in x of its own."""
    if rcond is not None and x.size:
        powers, lengths = _scaled(_powers(x, degrees), weights)
        _, sizes, directions = np.linalg.svd(powers, full_matrices=False)
        kept = sizes > rcond * sizes.max()
        kept[0] = True
        if not kept.all():
            warn(
                f"the polynomial may be poorly conditioned: {counted(int(kept.sum()), 'terms')} of "
                f"{len(degrees)} can be told apart where rcond={rcond:g}",
                np.exceptions.RankWarning,
            )
            back = directions[kept].T / sizes[kept] / lengths[:, None]
            return _powers(x, degrees) @ back, back
    return _centred(x, degrees)


@np.errstate(all="ignore")
def _singular_values(x: Floats, degrees: NDArray[np.int_], weights: Any) -> tuple[Floats, int]:
    """Those of a design, NaN beside the highest degrees where rows are few, and its rank."""
    powers, _ = _scaled(_powers(x, degrees), weights)
    sizes = np.linalg.svd(powers, compute_uv=False)
    least = sizes.max(initial=0) * max(powers.shape) * np.finfo(float).eps  # as matrix_rank has it
    beyond = len(degrees) - sizes.size
    return np.pad(sizes, (beyond, 0), constant_values=np.nan), int((sizes > least).sum())


def _scaled(powers: Floats, weights: Any = None) -> tuple[Floats, Floats]:
    """Columns of length 1, and what their lengths were; weights: those of the observations."""
    if weights is not None and weights.ndim == 1:
        powers = np.sqrt(np.nan_to_num(np.asarray(weights)))[:, None] * powers
    lengths = np.sqrt((powers**2).sum(axis=0))
    lengths[lengths == 0] = 1
    return powers / lengths, lengths


@np.errstate(all="ignore")  # coefficients in tiny units may be out of range
def _centred(x: NDArray[Any], degrees: NDArray[np.int_]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Powers of x moved and scaled to -1 … 1, and what makes coefficients in x of theirs.

    Powers of decimal years or nanoseconds can hardly be told apart.
    """
    middle = (x.min(initial=np.inf) + x.max(initial=-np.inf)) / 2 if x.size else 0.0
    length = np.abs(x - middle).max(initial=0) or 1.0
    shifts = _powers(np.array([-middle / length]), degrees)[0, ::-1]
    back = np.array([[math.comb(k, j) * shifts[max(k - j, 0)] for k in degrees] for j in degrees])
    scales = _powers(np.array([1 / length]), degrees)[0]
    return _powers((x - middle) / length, degrees), back * scales[:, None]


def _powers(x: Floats, degrees: NDArray[np.int_]) -> Floats:
    """x to degrees that fall to 0; by products, since `**` has other last bits with AVX-512."""
    return np.vander(x, len(degrees))


def _numeric(x: "xr.DataArray") -> NDArray[Any]:
    """A coordinate as finite numbers; times in nanoseconds since 1970."""
    values = x.values
    if values.dtype.kind in "mM":
        # In the unit that it has: nanoseconds reach from 1678 to 2262.
        unit = np.timedelta64(*reversed(np.datetime_data(values.dtype)))
        in_nanoseconds = values.dtype.kind == "M"  # as xarray.polyval will take them, too
        numbers = values.view(np.int64) * (
            float(unit / np.timedelta64(1, "ns")) if in_nanoseconds else 1.0
        )
        numbers[np.isnat(values)] = np.nan
    elif values.dtype.kind in "biuf":
        numbers = values.astype(np.float64)
    elif values.dtype == object and all(hasattr(date, "calendar") for date in values):
        numbers = np.array([_nanoseconds(date) for date in values], np.float64)
    else:
        raise TypeError(
            f"the coordinate {x.name!r} has dtype {values.dtype}, where numbers or times "
            f"(datetime64) are needed: y.assign_coords({x.name}=...) with numbers"
        )
    (flawed,) = np.nonzero(~np.isfinite(numbers))
    if flawed.size:
        first = flawed[0]
        raise ValueError(
            f"the coordinate {x.name!r} is {values[first]} at {first}"
            + (f" and {counted(flawed.size - 1, 'more places')}" if flawed.size > 1 else "")
            + f": leave those observations out, by y.isel({x.dims[0]}=[...])"
        )
    return numbers


def _nanoseconds(date: Any) -> float:
    """Those from 1970 to a date of cftime's, in its calendar."""
    origin = date.replace(year=1970, month=1, day=1, hour=0, minute=0, second=0, microsecond=0)
    return 1e3 * ((date - origin) / timedelta(microseconds=1))
