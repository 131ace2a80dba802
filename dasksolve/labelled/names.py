"""Names of dimensions and coordinates, and what of them a result may not have."""

from collections.abc import Hashable, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from dasksolve.batch.options import check_flags

if TYPE_CHECKING:
    import xarray as xr


def refuse_unlabelled(name: str, values: Any) -> None:
    """Refuse what is no DataArray."""
    if not isinstance(values, xarray().DataArray):
        text = f"{name} is {type(values).__name__}, where an xarray.DataArray is needed"
        if isinstance(values, xarray().Dataset):
            text += f": choose a variable of it, {name}[...]"
        elif isinstance(values, np.ndarray):
            text += f": xarray.DataArray({name}, dims=[...]) names its dimensions"
        raise TypeError(text)


def aligned(name: str, values: Any, other: str, others: Any, dims: Iterable[Hashable]) -> Any:
    """`values`, whose coordinates along `dims` are those of the others, or say where not."""
    exclude = {*values.dims, *others.dims} - {*dims}
    try:
        return xarray().align(others, values, join="exact", exclude=exclude)[1]
    except ValueError as error:
        raise type(error)(_difference(name, values, other, others, dims) or str(error)) from error


def _difference(
    name: str, values: Any, other: str, others: Any, dims: Iterable[Hashable]
) -> str | None:
    for dim in dims:
        if dim not in values.dims or dim not in others.dims:
            continue
        sizes = others.sizes[dim], values.sizes[dim]
        labelled = dim in values.indexes and dim in others.indexes
        common = f"xarray.align({other}, {name}, join='inner') keeps what both have"
        if sizes[0] != sizes[1]:
            differ = f"{other} has {sizes[0]} along {dim!r}, {name} {sizes[1]}"
            return f"{differ}; {common}" if labelled else differ
        if not labelled:
            continue
        labels = others.indexes[dim], values.indexes[dim]
        if labels[0].equals(labels[1]):
            continue
        pairs = enumerate(zip(*labels, strict=True))
        where = next((i for i, pair in pairs if not _are_one(*pair)), 0)
        return (
            f"the coordinates of {other} and {name} along {dim!r} differ, first at {where}: "
            f"{labels[0][where]} and {labels[1][where]}; where they mean the same, "
            f"{name}.assign_coords({{{dim!r}: {other}[{dim!r}]}}), else {common}"
        )
    return None


def _are_one(label: Any, other: Any) -> bool:
    """Whether two labels are the same, as an index has it: NaN is NaN."""
    try:
        return bool(label == other) or bool(label != label and other != other)
    except TypeError:  # dates of different calendars
        return False


def refuse_names(name: str, values: Any, taken: Iterable[Hashable], dim: Hashable) -> None:
    """Refuse a dimension or coordinate whose name is wanted for a part of the result."""
    names = kept_names(values, dim)
    clash = next((each for each in taken if each in names), None)
    if clash is not None:
        kind = "dimension" if clash in values.dims else "coordinate"
        mend = f"rename({{{clash!r}: ...}})"
        if kind == "coordinate":
            mend += f" or {name}.drop_vars({clash!r})"
        raise ValueError(
            f"{name} has a {kind} {clash!r}, as a part of the result is called: {name}.{mend}"
        )


def kept_names(values: Any, dim: Hashable) -> set[Hashable]:
    """Those of dimensions and coordinates save along a dimension."""
    return {*values.dims, *coordinates(values, dim)} - {dim}


def keeps_attributes(given: bool | None) -> bool:
    """Whether a result has attributes of what it is made of: if nobody says, as in xarray."""
    if given is None:  # "default" keeps them since xarray 2025.11
        return xarray().get_options()["keep_attrs"] is not False
    check_flags(keep_attrs=given)
    return bool(given)


def coordinates(y: "xr.DataArray", dim: Hashable) -> dict[Hashable, Any]:
    """The coordinates of y save those along a dimension."""
    return {name: c for name, c in y.coords.items() if dim not in c.dims}


def xarray() -> Any:
    try:
        import xarray as xr  # an extra
    except ImportError as error:
        raise ImportError(
            'labelled arrays need xarray: pip install "dasksolve[xarray]"', name=error.name
        ) from error
    return xr
