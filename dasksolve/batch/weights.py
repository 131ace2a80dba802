"""Weights of observations: inverse variances, in NumPy or dask, perhaps masked."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dasksolve.batch.fit import Fit


def checked_weights(weights: Any, fit: Fit) -> Any:
    """Weights (P,), one for each observation, or else of y's shape; ones for None."""
    observations = fit.shape[fit.axis]
    if weights is None:
        return np.ones(observations, fit.dtype)
    if weights.dtype.kind not in "biuf":
        raise TypeError(f"weights has dtype {weights.dtype}; real numbers are needed")
    if weights.shape != (observations,):
        try:
            same = np.broadcast_shapes(weights.shape, fit.shape) == fit.shape
        except ValueError:
            same = False
        if not same:
            raise ValueError(
                f"weights must be of shape ({observations},), one for each observation, or "
                f"broadcast to y's {fit.shape}: they have shape {weights.shape}"
            )
        weights = np.broadcast_to(without_mask(weights), fit.shape)
    if weights.ndim == 1 and isinstance(weights, np.ndarray):
        weights = without_mask(weights)
        refuse_unusable(weights, (weights < 0) | np.isinf(weights))
    return weights


def without_mask(weights: Any) -> Any:
    """Weights that are 0 where they were masked, as `numpy.broadcast_to` drops masks."""
    return weights.filled(0) if isinstance(weights, np.ma.MaskedArray) else weights


def refuse_unusable(weights: NDArray[Any], unusable: NDArray[np.bool_]) -> None:
    """Name the first weight that is none, if there is one."""
    if unusable.any():
        place = tuple(map(int, np.argwhere(unusable)[0]))
        raise ValueError(unusable_at(weights, place))


def unusable_at(weights: NDArray[Any], place: tuple[int, ...]) -> str:
    """Say what stands there, and what should."""
    return (
        f"weights must not be negative or infinite: weights[{', '.join(map(str, place))}] is "
        f"{weights[place]}; they are inverse variances, and 0 or NaN leaves an observation out"
    )


def narrowed(weights: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Weights in the kernel's precision; Inf, which it leaves alone, for those out of range."""
    with np.errstate(all="ignore"):
        narrow = weights.astype(dtype)
    if weights.dtype.kind == "f" and weights.dtype.itemsize > dtype.itemsize:
        narrow[(abs(narrow) < np.finfo(dtype).tiny) & (weights != 0)] = np.inf
    return narrow
