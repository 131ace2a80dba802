"""Names of dimensions and coordinates, and what of them a result may not have."""

from collections.abc import Hashable, Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import xarray as xr


def refuse_unlabelled(name: str, values: Any) -> None:
    """Refuse what is no DataArray."""
    if not isinstance(values, xarray().DataArray):
        raise TypeError(f"{name} is {type(values).__name__}, where an xarray.DataArray is needed")


def refuse_names(name: str, values: Any, taken: Iterable[Hashable], dim: Hashable) -> None:
    """Refuse a dimension or coordinate whose name is wanted for a part of the result."""
    kept = [each for each in values.dims if each != dim]
    names = {*kept, *coordinates(values, dim)}
    clash = next((each for each in taken if each in names), None)
    if clash is not None:
        kind = "dimension" if clash in kept else "coordinate"
        mend = f"rename({{{clash!r}: ...}})"
        if kind == "coordinate":
            mend += f" or {name}.drop_vars({clash!r})"
        raise ValueError(
            f"{name} has a {kind} {clash!r}, as a part of the result is called: {name}.{mend}"
        )


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
