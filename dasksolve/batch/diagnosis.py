"""The backward errors of any answers, computed in float64 at least."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dasksolve.batch.pieces import PIECE, broadcast, pieces


def backward_errors(a: NDArray[Any], b: NDArray[Any], x: NDArray[Any]) -> NDArray[np.float64]:
    """‖Ax-b‖∞ / (‖A‖∞‖x‖∞ + ‖b‖∞) of every system, the largest over the columns of b and x."""
    batch_shape = x.shape[:-2]
    a, b = broadcast(a, batch_shape), broadcast(b, batch_shape)
    errors = np.empty(batch_shape)
    flat = errors.reshape(-1)
    size = max(1, PIECE // max(1, 16 * a.shape[-1] * max(a.shape[-1], x.shape[-1])))
    with np.errstate(all="ignore"):
        for index, where in pieces(batch_shape, size):
            flat[where] = _backward_errors(a[index], b[index], x[index]).reshape(-1)
    return errors


def _backward_errors(a: NDArray[Any], b: NDArray[Any], x: NDArray[Any]) -> NDArray[np.float64]:
    wide = np.result_type(x, np.float64)
    a, b, x = a.astype(wide), b.astype(wide), x.astype(wide)
    row_sums = np.abs(a).sum(axis=-1).max(axis=-1, initial=0)[..., None, None]
    # A and b are scaled by a power of two, exactly, so that their norms cannot overflow.
    scale = np.ldexp(1.0, -np.frexp(row_sums)[1])
    a, b = a * scale, b * scale
    residual = np.abs(a @ x - b).max(axis=-2, initial=0)
    norms = (row_sums * scale)[..., 0] * np.abs(x).max(axis=-2, initial=0)
    norms += np.abs(b).max(axis=-2, initial=0)
    return np.where(residual == 0, 0.0, residual / norms).max(axis=-1, initial=0)
