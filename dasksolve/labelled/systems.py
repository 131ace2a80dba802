"""Systems whose dimensions have names."""

import math
from collections.abc import Hashable
from typing import TYPE_CHECKING, Any, Never

from dasksolve import api
from dasksolve.batch.options import refuse_unknown, refusing
from dasksolve.labelled.names import (
    aligned,
    keeps_attributes,
    kept_names,
    refuse_names,
    refuse_unlabelled,
    xarray,
)
from dasksolve.solution import Solution

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
    keep_attrs: bool | None = None,
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
    keep_attrs : bool, optional
        Whether x gets the attributes of b. Default: as `xarray.set_options` says, and else it does,
        as in xarray, though its units may be others.

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
        refuse_unknown(solve, unknown)
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
    keep_attrs: bool | None = None,
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
    keep_attrs : bool, optional
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
        refuse_unknown(solve_ex, unknown)
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
    return xarray().Dataset({name: x, **dict(found)})


def _apply(
    function: Any,
    a: "xr.DataArray",
    b: "xr.DataArray",
    dims: tuple[Hashable, Hashable],
    numbers: tuple[str, ...],
    keep_attrs: bool | None,
    options: dict[str, Any],
) -> Any:
    """Return x of `function`, and the arrays over the batch of these names that it returns too."""
    kept = keeps_attributes(keep_attrs)
    columns = _columns(a, b, dims)
    row, col = dims
    taken = kept_names(a, row) | kept_names(b, row)
    both = ("solution",) if numbers and "x" in taken else ()
    for name, values in (("a", a), ("b", b)):
        refuse_names(name, values, (*numbers, *both), row)
    b = aligned("b", b, "a", a, a.dims)
    found = xarray().apply_ufunc(
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
    x.attrs = dict(b.attrs) if kept else {}
    order = [col if dim == row else dim for dim in b.dims]
    x = x.transpose(*(dim for dim in x.dims if dim not in order), *order)
    return (x, *others) if numbers else x


def _columns(a: Any, b: Any, dims: tuple[Hashable, Hashable]) -> list[Hashable]:
    """Return the dimensions of b that number right-hand sides, or refuse what cannot be solved."""
    if isinstance(dims, str) or not isinstance(dims, tuple | list) or len(dims) != 2:
        raise ValueError(f'dims={dims!r} must be two names, such as ("row", "col")')
    row, col = dims
    if row == col:
        raise ValueError(f'dims={dims!r} must be two different names, such as ("row", "col")')
    for name, values, core in (("a", a, (row, col)), ("b", b, (row,))):
        refuse_unlabelled(name, values)
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
            if sum(map(bool, chunks)) > 1:
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
    b = _reshaped(b, (*b.shape[: a.ndim - 1], math.prod(several)))
    found = function(a, b, **options)
    x, *numbers = found if isinstance(found, Solution) else (found,)
    x = _reshaped(x, (*x.shape[:-1], *several))
    return (x, *numbers) if numbers else x


def _reshaped(values: Any, shape: tuple[int, ...]) -> Any:
    """In another shape: where there is nothing, dask can do so in one chunk alone."""
    if hasattr(values, "rechunk"):
        chunks = tuple(tuple(filter(None, c)) for c in values.chunks)
        values = values.rechunk(-1 if 0 in shape else chunks)
    return values.reshape(shape)
