"""`Status`: what became of one system."""

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray


class Status(IntEnum):
    """What became of one system of a batch; the values are stored as int8.

    Attributes
    ----------
    PENDING : -1
        Not solved yet (only in the output of a zarr job).
    OK : 0
        x is the solution.
    SINGULAR : 1
        An exactly zero pivot; `on_singular` says what x is.
    ILL_CONDITIONED : 2
        x is the solution, but the reciprocal condition number is below eps; where it is below
        an `rcond` that was given, `on_singular` says what x is.
    NONFINITE : 3
        x is NaN, since a held NaN or Inf; or only some of its columns are, whose b did or that
        overflowed.
    NOT_POSITIVE_DEFINITE : 4
        As `SINGULAR`, for `assume_a="pos"`.
    RANK_DEFICIENT : 5
        The observations of a regression do not determine its coefficients; `on_deficient` says
        what they are.
    TOO_FEW : 6
        A regression has fewer observations than `min_count`; `on_deficient` says what its
        coefficients are.
    """

    PENDING = -1
    OK = 0
    SINGULAR = 1
    ILL_CONDITIONED = 2
    NONFINITE = 3
    NOT_POSITIVE_DEFINITE = 4
    RANK_DEFICIENT = 5
    TOO_FEW = 6


def is_singular(status: NDArray[np.int8]) -> NDArray[np.bool_]:
    """Where a pivot was zero, or not positive though it had to be."""
    return (status == Status.SINGULAR) | (status == Status.NOT_POSITIVE_DEFINITE)


def is_solved(status: NDArray[np.int8]) -> NDArray[np.bool_]:
    """Where all of x solves its system, however badly that is conditioned."""
    return (status == Status.OK) | (status == Status.ILL_CONDITIONED)
