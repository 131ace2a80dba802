"""The matrices that are meant, where only a part of them is read."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dasksolve.batch.options import Options


def meant(a: NDArray[Any], options: Options) -> NDArray[Any]:
    """Return the full matrices (..., N, N) that `a` stands for; of "gen", `a` itself."""
    assume_a, lower = options.assume_a, options.lower
    if assume_a == "gen":
        return a
    row, column = np.ogrid[: a.shape[-1], : a.shape[-1]]
    if assume_a in ("pos", "sym", "her"):
        mirrored = a.swapaxes(-1, -2)
        if assume_a == "sym":
            return np.where(column <= row if lower else row <= column, a, mirrored)
        full = np.where(column < row if lower else row < column, a, mirrored.conj())
        return np.where(row == column, a.real, full)
    read = {
        "upper triangular": row <= column,
        "lower triangular": column <= row,
        "diagonal": row == column,
        "tridiagonal": abs(row - column) <= 1,
    }
    return np.where(read[assume_a], a, a.dtype.type(0))
