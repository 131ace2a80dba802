"""What is given to fit stored series: opened, read where it is small, and named."""

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from dasksolve.batch.arrays import as_observations
from dasksolve.batch.fit import Fit
from dasksolve.batch.weights import checked_weights
from dasksolve.job.work import described
from dasksolve.solution import Regression
from dasksolve.storage import locations, secrets, stores
from dasksolve.storage.source import Source

_LARGE = 1 << 28  # bytes: more is no design


def opened(name: str, given: Any, mask_and_scale: bool) -> Any:
    """An array in memory, or of a file of NumPy's; or a stored one, which is not read yet."""
    if not isinstance(given, zarr.Array | str | os.PathLike):
        return None if given is None else as_observations(name, given)
    if not isinstance(given, zarr.Array) and (path := numpy_path(name, given)):
        return _numpy_file(name, path)
    return Source.open(name, given, 0, mask_and_scale)


def numpy_path(name: str, where: str | os.PathLike[Any]) -> Path | None:
    """The path of a file of NumPy's, if it is one."""
    target = stores.resolved(name, where)
    if Path(target).suffix != ".npy":
        return None
    if not isinstance(target, Path):
        raise ValueError(
            f"{name}: {secrets.shown(target)} is far away, where a zarr array may be; a .npy file "
            "must be in a local folder"
        )
    return target


def _numpy_file(name: str, path: Path) -> NDArray[Any]:
    try:
        return np.asarray(np.load(path, allow_pickle=False))
    except FileNotFoundError:
        raise FileNotFoundError(f"{name}: there is no file {path}") from None
    except (ValueError, EOFError):  # NumPy's own words are of pickles
        raise ValueError(f"{name}: {path} is no array of numbers that numpy.save wrote") from None


def whole(given: Any, strict: bool) -> Any:
    """An array in memory, be it stored."""
    if not isinstance(given, Source):
        return given
    if given.array.nbytes > _LARGE:
        raise ValueError(
            f"{given.name} ({given.location}) has shape {given.array.shape}, too large for "
            "a design or for weights of the observations; y comes first, then the design"
        )
    return given.with_core(given.array.ndim).everything(strict)


def weights_of(given: Any, fit: Fit, strict: bool) -> Source | NDArray[Any]:
    """The weights of the observations, or the stored ones of all numbers."""
    if isinstance(given, Source) and given.array.ndim > 1:
        return _along(given, fit)
    values, observations = whole(given, strict), fit.shape[fit.axis]
    if values is not None and values.shape != (observations,):
        raise ValueError(
            f"weights have shape {values.shape}: in memory they are ({observations},), one for "
            "each observation; those of every number in y must be stored in zarr, as y is"
        )
    found: NDArray[Any] = checked_weights(values, fit)
    return found


def _along(source: Source, fit: Fit) -> Source:
    """Stored weights of y's shape, or of one that broadcasts to it along the batch."""
    shape = source.array.shape
    fits = len(shape) == len(fit.shape) and all(
        n == m or (n == 1 and axis != fit.axis)
        for axis, (n, m) in enumerate(zip(shape, fit.shape, strict=True))
    )
    if not fits:
        raise ValueError(
            f"weights ({source.location}) have shape {shape}, where y has {fit.shape}: they must "
            f"be of y's shape, or ({fit.shape[fit.axis]},), one for each observation"
        )
    if source.dtype.kind not in "biuf":
        raise TypeError(f"weights have dtype {source.dtype}; real numbers are needed")
    return source.with_axis(fit.axis)


def identity(values: Source | NDArray[Any]) -> dict[str, Any]:
    """What a stored array is known by, or numbers in memory."""
    if isinstance(values, Source):
        return described(values)
    numbers = np.ascontiguousarray(values, np.float64)
    return {"shape": list(numbers.shape), "digest": hashlib.sha256(numbers).hexdigest()}


def files(**inputs: tuple[Any, Any]) -> dict[str, str]:
    """Where those inputs lie that are known by their numbers, each as given and as opened."""
    places = {name: _place(name, *input) for name, input in inputs.items()}
    return {name: place for name, place in places.items() if place is not None}


def _place(name: str, given: Any, opened: Any) -> str | None:
    if isinstance(opened, Source):
        return opened.location if locations.has_location(opened.array.store) else None
    return str(numpy_path(name, given)) if isinstance(given, str | os.PathLike) else None


def dimension_names(y: Source, fit: Fit, design: Any) -> tuple[str, ...]:
    """Those of y, with the coefficients in place of the observations."""
    given = y.dimension_names
    names = list(given or (f"dim_{i}" for i in range(len(fit.shape))))
    terms = design.dimension_names if isinstance(design, Source) else None
    names[fit.axis] = terms[1] if terms else "coefficient"
    # xarray takes an array that is named like one of its dimensions for a coordinate.
    taken = {*Regression._fields}
    for place in (*range(fit.axis), *range(fit.axis + 1, len(names)), fit.axis):  # y's come first
        while {names[place], *second(names[place], place == fit.axis)} & taken:
            names[place] += "_"
        taken |= {names[place]}
    return tuple(names)


def second(term: str, is_term: bool = True) -> tuple[str, ...]:
    """What the second dimension of covariances is called, that of the first being this."""
    return (f"{term}_2",) * is_term
