"""`Status`: what became of one system."""

from enum import IntEnum


class Status(IntEnum):
    """What became of one system of a batch; the values are stored as int8.

    Attributes
    ----------
    PENDING : -1
        Not solved yet (only in the output of a zarr job).
    OK : 0
        x is the solution.
    SINGULAR : 1
        An exactly zero pivot; x is by `on_singular`.
    ILL_CONDITIONED : 2
        x is the solution, but the reciprocal condition number is below eps; where it is below
        an `rcond` that was given, x is by `on_singular`.
    NONFINITE : 3
        x is NaN, since a held NaN or Inf; or those of its columns whose b did, or that overflowed.
    NOT_POSITIVE_DEFINITE : 4
        As `SINGULAR`, for `assume_a="pos"`.
    RANK_DEFICIENT : 5
        The observations of a regression do not determine its coefficients; they are by
        `on_deficient`.
    TOO_FEW : 6
        A regression has fewer observations than `min_count`; its coefficients are by
        `on_deficient`.
    """

    PENDING = -1
    OK = 0
    SINGULAR = 1
    ILL_CONDITIONED = 2
    NONFINITE = 3
    NOT_POSITIVE_DEFINITE = 4
    RANK_DEFICIENT = 5
    TOO_FEW = 6
