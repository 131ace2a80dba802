"""Solving labelled arrays: `xarray.DataArray` in, `xarray.DataArray` out."""

import math
from collections.abc import Hashable, Iterable
from typing import TYPE_CHECKING, Any, Never

import numpy as np
from numpy.typing import NDArray

from dasksolve import api
from dasksolve.batch.options import check_flags, check_word, refuse_unknown, refusing
from dasksolve.solution import Regression, Solution

if TYPE_CHECKING:
    import xarray as xr


@refusing
def solve(
    a: "xr.DataArray",
    b: "xr.DataArray",
    dims: tuple[Hashable, Hashable] = ("row", "col"),
    *,
    assume_a: str = "gen",
    lower: bool = False,
    on_singular: str = "raise",
    rcond: float | None = None,
    workers: int = 1,
    keep_attrs: bool = False,
    **unknown: Never,
) -> "xr.DataArray":
    """Solve a batch of dense linear systems whose dimensions have names.

    Parameters
    ----------
    a : xarray.DataArray with dimensions (..., row, col), in any order
        Square matrices; all dimensions but the two of `dims` are the batch.
    b : xarray.DataArray with dimension row
        Right-hand sides. The dimensions that it shares with a, or lacks, are matched by name; each
        that a does not have numbers right-hand sides of the same systems.
    dims : (str, str), default ("row", "col")
        The names of the equations and of the unknowns in a.
    assume_a, lower, on_singular, rcond, workers
        As in `dasksolve.solve`.
    keep_attrs : bool, default False
        Whether x gets the attributes of b.

    Returns
    -------
    x : xarray.DataArray
        b with col in place of row, and the coordinates of both save those along row. Lazy where a
        or b holds a dask array: one task a block, in a's chunks along the batch.

    Raises
    ------
    ValueError
        A dimension is missing, or is chunked where whole systems are needed; coordinates of a and
        b along one dimension differ; and what `dasksolve.solve` refuses.
    SingularSystemError
        As in `dasksolve.solve`.
    TypeError
        a or b is not a DataArray.
    ImportError
        xarray is not installed: ``pip install "dasksolve[xarray]"``.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> from dasksolve import labelled
    >>> a = xr.DataArray(np.eye(2) * [[[2.0]], [[4.0]]], {"pixel": [7, 9]}, ("pixel", "row", "col"))
    >>> b = xr.DataArray([8.0, 4.0], dims="row")
    >>> labelled.solve(a, b)
    <xarray.DataArray (pixel: 2, col: 2)> Size: 32B
    array([[4., 2.],
           [2., 1.]])
    Coordinates:
      * pixel    (pixel) int64 16B 7 9
    Dimensions without coordinates: col
    """
    if unknown:
        refuse_unknown("labelled.solve", unknown)
    options = {
        "assume_a": assume_a,
        "lower": lower,
        "on_singular": on_singular,
        "rcond": rcond,
        "workers": workers,
    }
    return _apply(api.solve, a, b, dims, (), keep_attrs, options)


@refusing
def solve_ex(
    a: "xr.DataArray",
    b: "xr.DataArray",
    dims: tuple[Hashable, Hashable] = ("row", "col"),
    *,
    assume_a: str = "gen",
    lower: bool = False,
    on_singular: str = "nan",
    refine: bool = False,
    rcond: float | None = None,
    workers: int = 1,
    keep_attrs: bool = False,
    **unknown: Never,
) -> "xr.Dataset":
    """Solve a batch whose dimensions have names, and say of every system how far to trust it.

    Parameters
    ----------
    a : xarray.DataArray with dimensions (..., row, col), in any order
    b : xarray.DataArray with dimension row
    dims : (str, str), default ("row", "col")
    assume_a, lower, on_singular, refine, rcond, workers
        As in `dasksolve.solve_ex`.
    keep_attrs : bool, default False
        As in `solve`, whose parameters are the same.

    Returns
    -------
    solution : xarray.Dataset
        The fields of `dasksolve.Solution`: ``x`` as `solve` returns it; ``status``, ``rcond`` and
        ``backward_error`` over the batch, the largest over all right-hand sides. Where the batch
        has a dimension x, which a variable of that name cannot stand beside, the solution is
        ``solution``.

    Raises
    ------
    ValueError, TypeError, ImportError
        As in `solve`.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> from dasksolve import labelled
    >>> a = xr.DataArray([np.eye(2), np.ones((2, 2))], dims=("pixel", "row", "col"))
    >>> labelled.solve_ex(a, xr.DataArray([8.0, 4.0], dims="row")).status.values
    array([0, 1], dtype=int8)
    """
    if unknown:
        refuse_unknown("labelled.solve_ex", unknown)
    options = {
        "assume_a": assume_a,
        "lower": lower,
        "on_singular": on_singular,
        "refine": refine,
        "rcond": rcond,
        "workers": workers,
    }
    x, *numbers = _apply(api.solve_ex, a, b, dims, Solution._fields[1:], keep_attrs, options)
    name = "solution" if "x" in x.dims or "x" in x.coords else "x"
    found = zip(Solution._fields[1:], numbers, strict=True)
    return _xarray().Dataset({name: x, **dict(found)})


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
    _refuse_names("y", y, Regression._fields, dim)
    _, design = _xarray().align(y, design, join="exact", exclude=set(y.dims) - {dim})
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
    array = _xarray().DataArray
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
    _refuse_names("y", y, [*names, f"{dim}_matrix_rank", f"{dim}_singular_values"], dim)
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
    coef = _xarray().dot(back, coef, dim=(power,))
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
        both = _xarray().dot(left, both, right, dim=(power, other))
        both = both.transpose("cov_i", "cov_j", *others)
        spare = array(fit.count, dims=others) - (deg + 1)
        found["polyfit_covariance"] = both / (rss / spare if cov == "unscaled" else 1)
    return _xarray().Dataset(found, _coordinates(y, dim))


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


def _refuse_names(name: str, values: Any, taken: Iterable[Hashable], dim: Hashable = None) -> None:
    """Refuse a dimension or coordinate whose name is wanted for a part of the result."""
    kept = [each for each in values.dims if each != dim]
    names = {*kept, *_coordinates(values, dim)}
    clash = next((each for each in taken if each in names), None)
    if clash is not None:
        kind = "dimension" if clash in kept else "coordinate"
        mend = f"rename({{{clash!r}: ...}})"
        if kind == "coordinate":
            mend += f" or {name}.drop_vars({clash!r})"
        raise ValueError(
            f"{name} has a {kind} {clash!r}, as a part of the result is called: {name}.{mend}"
        )


def _coordinates(y: "xr.DataArray", dim: Hashable) -> dict[Hashable, Any]:
    """The coordinates of the series themselves."""
    return {name: c for name, c in y.coords.items() if dim not in c.dims}


def _check_dimensions(y: Any, design: Any, weights: Any, dim: Hashable) -> None:
    array = _xarray().DataArray
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
    _, weights = _xarray().align(y, weights, join="exact")
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
    return _xarray().Dataset(values, _coordinates(y, dim) | labels)


def _apply(
    function: Any,
    a: "xr.DataArray",
    b: "xr.DataArray",
    dims: tuple[Hashable, Hashable],
    numbers: tuple[str, ...],
    keep_attrs: bool,
    options: dict[str, Any],
) -> Any:
    """Return x of `function`, and the arrays over the batch of these names that it returns too."""
    check_flags(keep_attrs=keep_attrs)
    columns = _columns(a, b, dims)
    row, col = dims
    for name, values in (("a", a), ("b", b)):
        _refuse_names(name, values, numbers, row)
    found = _xarray().apply_ufunc(
        _solve,
        a,
        b,
        input_core_dims=[[row, col], [row, *columns]],
        output_core_dims=[[col, *columns], *([] for _ in numbers)],
        dask="allowed",
        keep_attrs="override",  # those of the coordinates
        kwargs={"function": function, "columns": len(columns), **options},
    )
    x, *others = found if numbers else (found,)
    for array in (x, *others):
        array.attrs, array.name = {}, a.name if a.name == b.name else None
    x.attrs = dict(b.attrs) if keep_attrs else {}
    order = [col if dim == row else dim for dim in b.dims]
    x = x.transpose(*(dim for dim in x.dims if dim not in order), *order)
    return (x, *others) if numbers else x


def _columns(a: Any, b: Any, dims: tuple[Hashable, Hashable]) -> list[Hashable]:
    """Return the dimensions of b that number right-hand sides, or refuse what cannot be solved."""
    if isinstance(dims, str) or not isinstance(dims, tuple | list) or len(dims) != 2:
        raise ValueError(f'dims={dims!r} must be two names, such as ("row", "col")')
    row, col = dims
    array = _xarray().DataArray
    for name, values, core in (("a", a, (row, col)), ("b", b, (row,))):
        if not isinstance(values, array):
            raise TypeError(
                f"{name} is {type(values).__name__}, where an xarray.DataArray is needed"
            )
        missing = [dim for dim in core if dim not in values.dims]
        if missing:
            raise ValueError(
                f"{name} has no dimension {missing[0]!r}: its dimensions are {values.dims}; dims="
                f"{dims!r} names the equations and the unknowns"
            )
    if col in b.dims:
        raise ValueError(
            f"b has the dimension {col!r} of the unknowns: its dimensions are {b.dims}; rename it"
        )
    columns = [dim for dim in b.dims if dim not in a.dims]
    for name, values, whole in (("a", a, (row, col)), ("b", b, (row,))):
        for dim in whole:
            chunks = values.chunksizes.get(dim, ())
            if len(chunks) > 1:
                raise ValueError(
                    f"{name} is chunked along {dim!r}, in {chunks}, where a block must hold whole "
                    f"systems: {name}.chunk({dict.fromkeys(whole, -1)})"
                )
    return columns


def _solve(a: Any, b: Any, *, function: Any, columns: int, **options: Any) -> Any:
    """Solve with b of (..., N) and any number of axes of right-hand sides after that."""
    b = b[(None,) * (a.ndim - 1 + columns - b.ndim)]
    if columns < 2:
        return function(a, b, **options)
    several = b.shape[a.ndim - 1 :]
    b = b.reshape((*b.shape[: a.ndim - 1], math.prod(several)))
    found = function(a, b, **options)
    x, *numbers = found if isinstance(found, Solution) else (found,)
    x = x.reshape((*x.shape[:-1], *several))
    return (x, *numbers) if numbers else x


def _xarray() -> Any:
    try:
        import xarray as xr  # an extra
    except ImportError as error:
        raise ImportError(
            'labelled arrays need xarray: pip install "dasksolve[xarray]"', name=error.name
        ) from error
    return xr
