"""What may be given as an array: nothing that means more than the numbers in it."""

import os
import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

_LABELS = (
    "has labels, which NumPy would drop: dasksolve.labelled goes by the names of dimensions, and "
    "{name}.data is the array by position"
)
_SEVERAL = (
    "has labels, which NumPy would drop: dasksolve.labelled goes by the names of dimensions; "
    "choose one of its arrays, {name}[...]"
)
_TABLE = (
    "has labels or gaps of its own, which NumPy would drop: np.asarray({name}) says that they mean "
    "nothing"
)
_UNITS = (
    "has units, which would be lost: give the numbers alone ({numbers}), and the result its unit"
)
_STORED = "is stored, and would be loaded at once: {lazily}, or load it yourself with {name}[...]"
_LAZY = "is lazy, and would be computed at once: {door}"

_DOORS = {
    "xarray": _LABELS,
    "pandas": _TABLE,
    "polars": _TABLE,
    "pint": _UNITS.format(numbers="{name}.magnitude"),
    "astropy": _UNITS.format(numbers="{name}.value"),
    "unyt": _UNITS.format(numbers="{name}.value"),
    "zarr": _STORED.format(
        name="{name}",
        lazily="xarray.open_zarr and dasksolve.labelled read it lazily and as its attributes say, "
        "as dasksolve.solve_zarr and regress_zarr do from zarr to zarr; "
        "dask.array.from_zarr({name}) takes the numbers as they are stored",
    ),
    "h5py": _STORED.format(name="{name}", lazily="dask.array.from_array({name}) is solved lazily"),
    "netCDF4": _STORED.format(
        name="{name}", lazily="dask.array.from_array({name}) is solved lazily"
    ),
    "distributed": "is a result on a cluster: give {name}.result(), or, where a dask.array.Array "
    "is taken, one whose blocks are kept there by client.persist",
    "dask": _LAZY.format(
        door="give {name}.compute(), or, where a dask.array.Array is taken, one that is made with "
        "dask.array.from_delayed or stack or, of a table, {name}.to_dask_array(lengths=True)"
    ),
}
"""By the package that an object comes from: what it is, and what to do. Others are NumPy's."""


def any_lazy(*arrays: Any) -> bool:
    """Whether one of them is a dask array: never, where nobody has imported what makes them.

    To import `dask.array`, which brings pandas and SciPy, takes as long as the rest of dasksolve:
    `lazy`, `lazy_regression`, `kept_factors` and zarr jobs are imported where they are called.
    """
    kind = getattr(sys.modules.get("dask.array"), "Array", ())
    return any(isinstance(values, kind) for values in arrays)


def as_array(name: str, values: Any) -> NDArray[Any]:
    """Return `values` as an ndarray; drop no mask, unit, label or laziness without a word."""
    if type(values) is np.ndarray:  # else the next lines take 0.2 µs
        return values
    _refuse(name, values)
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise ValueError(f"{name} is no array: {error}") from error
    if array.dtype == object and not array.ndim:  # NumPy knows no better than to put it into one
        raise _no_array(name, values)
    return array


def _no_array(name: str, values: Any) -> TypeError:
    kind = type(values)
    what = f"a {kind.__module__.partition('.')[0]}.{kind.__name__}"
    advice = f": give {name}.toarray()" if hasattr(values, "toarray") else ""
    return TypeError(
        f"{name} is {'None' if values is None else what}, which is no array of numbers{advice}"
    )


def as_observations(name: str, values: Any) -> Any:
    """An array, which may be masked."""
    return values if isinstance(values, np.ma.MaskedArray) else as_array(name, values)


def as_weights(weights: Any) -> Any:
    """An array of weights, which may be masked; None for None."""
    return None if weights is None else as_observations("weights", weights)


def _refuse(name: str, values: Any) -> None:
    """Refuse what np.asarray would make less of, also in lists."""
    if isinstance(values, bool | int | float | complex | np.generic):
        return
    if isinstance(values, str | os.PathLike):
        raise TypeError(
            f"{name} is a path or other text, which is no array of numbers: dasksolve.solve_zarr "
            "and regress_zarr take paths of zarr arrays"
        )
    if isinstance(values, np.ma.MaskedArray):
        raise TypeError(
            f"{name} is a masked array; fill it first, with {name}.filled(np.nan) if what is "
            "missing is to be NaN"
        )
    if isinstance(values, list | tuple):
        for i, value in enumerate(values):
            if type(value) is not float:
                _refuse(f"{name}[{i}]", value)
        return
    for kind in type(values).__mro__[:-1]:
        door = _DOORS.get(kind.__module__.partition(".")[0])
        if door is not None:
            if hasattr(type(values), "data_vars"):  # a delayed value has whatever is asked for
                door = _SEVERAL
            word = f"{type(values).__module__.partition('.')[0]}.{type(values).__name__}"
            article = "an" if word[0] in "aeiou" else "a"
            raise TypeError(f"{name} is {article} {word} and {door.format(name=name)}")
