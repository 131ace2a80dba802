"""Series whose dimensions have names: regressions, and polynomials as xarray fits them."""

import math
from collections.abc import Hashable
from typing import TYPE_CHECKING, Any, Never

import numpy as np
from numpy.typing import NDArray

from dasksolve import api
from dasksolve.batch.options import check_flags, check_word, refuse_unknown, refusing
from dasksolve.labelled.names import coordinates, refuse_names, xarray
from dasksolve.solution import Regression

if TYPE_CHECKING:
    import xarray as xr


@refusing
def regress(
    y: "xr.DataArray",
    design: "xr.DataArray",
    dim: Hashable = "time",
    *,
    weights: "xr.DataArray | None" = None,
    ridge: Any = None,
    rcond: float | None = None,
    min_count: int | None = None,
    on_deficient: str = "nan",
    covariance: bool = False,
    workers: int = 1,
    **unknown: Never,
) -> "xr.Dataset":
    """Fit the coefficients of one design to many series whose dimensions have names.

    Parameters
    ----------
    y : xarray.DataArray with dimension dim
        The series; NaN is missing.
    design : xarray.DataArray with dimensions (dim, coefficient), in any order
        The name of the other dimension, and its coordinates, label the coefficients.
    dim : str, default "time"
        Of the observations.
    weights : xarray.DataArray, optional
        Inverse variances, over dim, or over any dimensions of y.
    ridge, rcond, min_count, on_deficient, workers
        As in `dasksolve.regress`.
    covariance : bool, default False
        Whether the covariances of the coefficients are wanted too.

    Returns
    -------
    fit : xarray.Dataset
        The fields of `dasksolve.Regression`, with the coordinates of y save those along dim.
        ``coef`` and ``stderr`` have the coefficients in place of dim; ``covariance`` has them twice
        at the end, the second time as ``coefficient_2``. Lazy where y or weights holds a dask
        array: one task a block.

    Raises
    ------
    ValueError
        A dimension is missing; coordinates of y and design along dim, or of y and weights, differ;
        y has a dimension or coordinate that is called as a field of the fit; and what
        `dasksolve.regress` refuses.
    TypeError
        y, design or weights is not a DataArray.
    ImportError
        xarray is not installed: ``pip install "dasksolve[xarray]"``.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> from dasksolve import labelled
    >>> year = xr.DataArray(np.arange(4.0), dims="time")
    >>> terms = xr.DataArray(["mean", "trend"], dims="term", name="term")
    >>> design = xr.concat([xr.ones_like(year), year], dim=terms)
    >>> y = 3 + 2 * year * xr.DataArray([1, 2], {"pixel": [7, 9]}, "pixel")
    >>> labelled.regress(y, design).coef.sel(term="trend").values.round(6)
    array([2., 4.])
    """
    if unknown:
        refuse_unknown("regress", unknown)
    check_flags(covariance=covariance)
    _check_dimensions(y, design, weights, dim)
    refuse_names("y", y, Regression._fields, dim)
    _, design = xarray().align(y, design, join="exact", exclude=set(y.dims) - {dim})
    (term,) = (name for name in design.dims if name != dim)
    found = api.regress(
        y.data,
        design.transpose(dim, term).values,
        axis=y.get_axis_num(dim),
        weights=_weights(weights, y, dim),
        ridge=ridge,
        rcond=rcond,
        min_count=min_count,
        on_deficient=on_deficient,
        covariance=covariance,
        workers=workers,
    )
    return _fit(found, y, design, dim, term)


@refusing
def polyfit(
    y: "xr.DataArray",
    dim: Hashable,
    deg: int,
    *,
    skipna: bool | None = None,
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
        Whose coordinate is the variable of the polynomials; dates count in nanoseconds since 1970,
        durations in the unit that they have, as in xarray.
    deg : int
        The degree of the polynomials.
    skipna : bool, optional
        False: a series with a gap is NaN. Otherwise it is fitted to the observations that it has.
    weights : xarray.DataArray, optional
        Inverse variances, over dim, or over any dimensions of y: the squares of the ``w`` of
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
        ``[dim]_matrix_rank`` and ``[dim]_singular_values`` of the design without gaps. Covariances
        are those of each series' own observations, where xarray takes those of a series without
        gaps. Series with fewer observations than coefficients are NaN.

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
        refuse_unknown("polyfit", unknown)
    array = xarray().DataArray
    _check_dimensions(y, y, weights, dim)
    if not isinstance(deg, int | np.integer) or isinstance(deg, bool) or deg < 0:
        raise ValueError(f"deg={deg!r} must be a degree: 0, 1, 2, ...")
    check_flags(full=full, skipna=True if skipna is None else skipna)
    if isinstance(cov, bool | np.bool_):
        cov = bool(cov)
    else:
        check_word("cov", cov, ("unscaled",), " (or True, or False)")
    names = ["degree", *(("cov_i", "cov_j") if cov else ())]
    names += [f"polyfit_{part}" for part in ("coefficients", "residuals", "covariance")]
    refuse_names("y", y, [*names, f"{dim}_matrix_rank", f"{dim}_singular_values"], dim)
    numbers = _numeric(y[dim])
    degrees = np.arange(deg + 1)[::-1]
    centred, back = _centred(numbers, degrees)
    fit = api.regress(
        y.data.astype(np.result_type(y.dtype, np.float64)) if y.dtype.kind in "fc" else y.data,
        centred,
        axis=y.get_axis_num(dim),
        weights=_weights(weights, y, dim),
        min_count=y.sizes[dim] if skipna is not None and not skipna else None,
        covariance=bool(cov),
        workers=workers,
    )
    others = [name for name in y.dims if name != dim]
    # No name that y may have: these are gone at the end.
    power, other = object(), object()
    back = array(back, {"degree": degrees}, dims=("degree", power))
    coef = array(fit.coef, dims=[power if name == dim else name for name in y.dims])
    coef = xarray().dot(back, coef, dim=(power,))
    found = {"polyfit_coefficients": coef.transpose("degree", *others)}
    rss = array(fit.rss, dims=others)
    if full:
        raw = numbers[:, None] ** degrees
        scaled = raw / np.sqrt((raw**2).sum(axis=0))
        found[f"{dim}_matrix_rank"] = array(np.linalg.matrix_rank(scaled))
        values = np.linalg.svd(scaled, compute_uv=False)
        found[f"{dim}_singular_values"] = array(values, dims="degree")
    if full or cov is True:
        found["polyfit_residuals"] = rss
    if cov:
        both = array(fit.covariance, dims=[*others, power, other])
        left = array(back.data, dims=("cov_i", power))
        right = array(back.data, dims=("cov_j", other))
        both = xarray().dot(left, both, right, dim=(power, other))
        both = both.transpose("cov_i", "cov_j", *others)
        spare = array(fit.count, dims=others) - (deg + 1)
        found["polyfit_covariance"] = both / (rss / spare if cov == "unscaled" else 1)
    return xarray().Dataset(found, coordinates(y, dim))


@np.errstate(all="ignore")  # coefficients in tiny units may be out of range
def _centred(x: NDArray[Any], degrees: NDArray[np.int_]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Powers of x moved and scaled to -1 … 1, and what makes coefficients in x of theirs.

    Powers of decimal years or nanoseconds can hardly be told apart.
    """
    middle = (x.min(initial=np.inf) + x.max(initial=-np.inf)) / 2 if x.size else 0.0
    length = np.abs(x - middle).max(initial=0) or 1.0
    back = np.array(
        [[math.comb(k, j) * (-middle / length) ** max(k - j, 0) for k in degrees] for j in degrees]
    )
    scales = length ** -degrees.astype(float)
    return ((x - middle) / length)[:, None] ** degrees, back * scales[:, None]


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
            + (f" and {flawed.size - 1} more places" if flawed.size > 1 else "")
            + f": leave those observations out, by y.isel({x.name}=[...])"
        )
    return numbers


def _check_dimensions(y: Any, design: Any, weights: Any, dim: Hashable) -> None:
    array = xarray().DataArray
    for name, values in (("y", y), ("design", design), ("weights", weights)):
        if values is None and name == "weights":
            continue
        if not isinstance(values, array):
            raise TypeError(
                f"{name} is {type(values).__name__}, where an xarray.DataArray is needed"
            )
        if name != "weights" and dim not in values.dims:
            raise ValueError(
                f"{name} has no dimension {dim!r}: its dimensions are {values.dims}; dim= names "
                "that of the observations"
            )
    others = [name for name in design.dims if name != dim]
    if design is not y and (len(others) != 1 or others[0] in y.dims):
        raise ValueError(
            f"design must have the dimensions {dim!r} and one that y does not have, of the "
            f"coefficients: its dimensions are {design.dims}, those of y {y.dims}"
        )
    if weights is not None and not set(weights.dims) <= set(y.dims):
        raise ValueError(f"weights has dimensions {weights.dims}, y only {y.dims}")


def _weights(weights: "xr.DataArray | None", y: "xr.DataArray", dim: Hashable) -> Any:
    """The weights of the numbers of y, or of all series alike."""
    if weights is None:
        return None
    _, weights = xarray().align(y, weights, join="exact")
    if weights.dims == (dim,):
        return weights.data
    others = [name for name in y.dims if name not in weights.dims]
    return weights.expand_dims(others).transpose(*y.dims).data


def _fit(
    found: Regression, y: "xr.DataArray", design: "xr.DataArray", dim: Hashable, term: Hashable
) -> "xr.Dataset":
    """A dataset of what was found."""
    batch = tuple(name for name in y.dims if name != dim)
    terms = tuple(term if name == dim else name for name in y.dims)
    dims = {"coef": terms, "stderr": terms, "covariance": (*batch, term, f"{term}_2")}
    labels = {name: c for name, c in design.coords.items() if c.dims == (term,)}
    values = {
        name: (dims.get(name, batch), array)
        for name, array in found._asdict().items()
        if array is not None
    }
    return xarray().Dataset(values, coordinates(y, dim) | labels)
