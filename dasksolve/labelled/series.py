"""Regressions of series whose dimensions have names."""

from collections.abc import Hashable
from typing import TYPE_CHECKING, Any, Never

from dasksolve import api
from dasksolve.batch.options import check_flags, refuse_unknown, refusing
from dasksolve.labelled.names import (
    aligned,
    coordinates,
    keeps_attributes,
    kept_names,
    refuse_names,
    refuse_unlabelled,
    xarray,
)
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
    keep_attrs: bool | None = None,
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
    keep_attrs : bool, optional
        Whether ``coef`` and ``stderr`` get the attributes of y. Default: as `xarray.set_options`
        says, and else they do, as in xarray, though units of a trend are others.

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
        y has a dimension or coordinate that is called as a field of the fit, or as the coefficients
        are, or design has one that is called as a field or as one of y; and what
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
        refuse_unknown(regress, unknown)
    check_flags(covariance=covariance)
    kept = keeps_attributes(keep_attrs)
    check_dimensions(y, design, weights, dim)
    (term,) = (name for name in design.dims if name != dim)
    names = (*Regression._fields, *((f"{term}_2",) if covariance else ()))
    refuse_names("y", y, (*names, term), dim)
    unused = [name for name, c in design.coords.items() if c.dims != (term,)]
    refuse_names("design", design.drop_vars(unused), (*names, *kept_names(y, dim)), dim)
    design = aligned("design", design, "y", y, [dim])
    found = api.regress(
        y.data,
        design.transpose(dim, term).values,
        axis=y.get_axis_num(dim),
        weights=weights_of(weights, y, dim),
        ridge=ridge,
        rcond=rcond,
        min_count=min_count,
        on_deficient=on_deficient,
        covariance=covariance,
        workers=workers,
    )
    fit = _fit(found, y, design, dim, term)
    for name in ("coef", "stderr") if kept else ():
        fit[name].attrs = dict(y.attrs)
    return fit


def check_dimensions(y: Any, design: Any, weights: Any, dim: Hashable) -> None:
    """Refuse what is no series along a dimension, no design of it, or no weights."""
    for name, values in (("y", y), ("design", design), ("weights", weights)):
        if values is None and name == "weights":
            continue
        refuse_unlabelled(name, values)
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


def weights_of(weights: "xr.DataArray | None", y: "xr.DataArray", dim: Hashable) -> Any:
    """The weights of the numbers of y, or of all series alike."""
    if weights is None:
        return None
    weights = aligned("weights", weights, "y", y, y.dims)
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
