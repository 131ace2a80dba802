"""Compares what was stored of series with what is fitted to them again."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dasksolve.batch.fit import Fit
from dasksolve.job.compare import not_as_computed, other_bits
from dasksolve.job.work import Compared
from dasksolve.status import Status


def compared(
    anew: dict[str, NDArray[Any]], stored: dict[str, NDArray[Any]], fit: Fit, exactly: bool
) -> Compared:
    """Where a bit is not what it is computed to be, or, of another arithmetic, half of the bits."""
    status = anew["status"]
    ours = np.ones(status.shape, bool)
    if fit.on_deficient == "lstsq":  # those are LAPACK's, whose bits are not ours to promise
        ours = (status != Status.RANK_DEFICIENT) & (status != Status.TOO_FEW)
    suspects = {
        not_as_computed(name): other_bits(stored[name], anew[name], status.shape)
        for name in ("status", "count")
    }
    for name in [name for name in anew if name not in ("status", "count")]:
        one, another = (_batch_first(values[name], name, fit) for values in (stored, anew))
        suspect = other_bits(one, another, status.shape)
        theirs = suspect & ~ours
        suspect[theirs] = _has_lost(one[theirs], another[theirs])
        if suspect.any() and not exactly:
            suspect[suspect] = ~_alike(one[suspect], another[suspect])
        suspects[not_as_computed(name)] = suspect
    return Compared(suspects, {})


def _batch_first(values: NDArray[Any], name: str, fit: Fit) -> NDArray[Any]:
    """The numbers of a field, those of one series together."""
    return np.moveaxis(values, fit.axis, -1) if name in ("coef", "stderr") else values


def _has_lost(one: NDArray[Any], another: NDArray[Any]) -> NDArray[np.bool_]:
    """Whether there are numbers of a series where there were none, or the other way round."""
    differ = np.isnan(one) != np.isnan(another)
    return np.asarray(differ.any(axis=tuple(range(1, differ.ndim))))


def _alike(one: NDArray[Any], another: NDArray[Any]) -> NDArray[np.bool_]:
    """Whether the numbers of each series agree in half of their digits."""
    one, another = (v.reshape(len(v), -1).astype(np.float64) for v in (one, another))
    with np.errstate(all="ignore"):
        near = np.abs(one - another) <= np.sqrt(np.finfo(np.float32).eps) * np.abs(another)
    return np.asarray((near | (one == another) | (np.isnan(one) & np.isnan(another))).all(axis=1))
