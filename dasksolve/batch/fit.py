"""What is fitted to series of observations: described, and checked, without the observations."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dasksolve.batch import basis
from dasksolve.batch.arrays import as_array
from dasksolve.batch.options import check_flags, check_word, checked_rcond

ON_DEFICIENT = ("nan", "lstsq")
MOST = 16
"""Columns up to which the fast kernel is the fastest and takes less than 5 s to compile."""


@dataclass(frozen=True)
class FitOptions:
    """How series are to be fitted, as a person asks for it."""

    axis: int = 0
    """Of the observations in y."""
    ridge: Any = None
    """One number, or one for each coefficient."""
    rcond: float | None = None
    """Below which a series is rank-deficient."""
    min_count: int | None = None
    """Fewer observations are too few."""
    on_deficient: str = "nan"
    """What becomes of series that have no unique answer."""
    covariance: bool = False
    """Whether it is wanted."""


@dataclass(frozen=True)
class Fit:
    """What is fitted to series of observations, described without the observations."""

    shape: tuple[int, ...]
    """Of y."""
    axis: int
    """Of the observations, counted from the first."""
    dtype: np.dtype[Any]
    """What is computed in: float32 or float64."""
    design: NDArray[np.float64]
    """(P, N)."""
    basis: basis.Basis
    """The same, orthogonalized."""
    threshold: float
    """The rcond below which a series is rank-deficient."""
    rcond: float | None
    """That of the shortest solution, as `numpy.linalg.lstsq` takes it."""
    min_count: int
    """Fewer observations are too few."""
    on_deficient: str
    """What becomes of series that have no unique answer."""
    covariance: bool
    """Whether it is asked for."""

    @property
    def n(self) -> int:
        """How many coefficients there are."""
        return self.design.shape[1]

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """y's shape without the observations."""
        return self.shape[: self.axis] + self.shape[self.axis + 1 :]

    @property
    def series(self) -> int:
        """How many there are."""
        return math.prod(self.batch_shape)

    @property
    def coef_shape(self) -> tuple[int, ...]:
        """y's shape with coefficients in place of observations."""
        return (*self.shape[: self.axis], self.n, *self.shape[self.axis + 1 :])

    @property
    def doubtful(self) -> float:
        """The rcond below which the fast kernel leaves series to others, that of rounding errors.

        Those of fewer observations than coefficients are below.
        """
        return float(max(self.threshold, max(self.design.shape) * np.finfo(float).eps))

    @property
    def fast(self) -> bool:
        """Whether there is any hope for the fast kernel."""
        return self.n <= MOST and self.basis.rcond >= self.doubtful / 8


def describe(
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    design: Any,
    options: FitOptions,
) -> Fit:
    """Return what is to be fitted, or raise what tells a person why nothing can be."""
    check_word("on_deficient", options.on_deficient, ON_DEFICIENT)
    check_flags(covariance=options.covariance)
    axis, min_count, rcond = options.axis, options.min_count, checked_rcond(options.rcond)
    dtype = _dtype("y", dtype)
    design = as_array("design", design)
    _dtype("design", design.dtype)
    if design.ndim != 2 or design.shape[1] == 0:
        raise ValueError(
            f"design must be of shape (P, N), a row for each observation and a column for each "
            f"coefficient: it has shape {design.shape}"
        )
    if not shape:
        raise ValueError("y must have an axis of observations: it is a single number")
    if not _is_integer(axis) or not -len(shape) <= axis < len(shape):
        raise ValueError(
            f"axis={axis!r} is not an axis of y, which has shape {shape}: it must be an integer "
            f"from {-len(shape)} to {len(shape) - 1}"
        )
    if min_count is not None and not (_is_integer(min_count) and min_count >= 0):
        raise ValueError(
            f"min_count={min_count!r} must be None, or an integer from 0: series with fewer "
            "observations have too few"
        )
    axis = int(axis) % len(shape)
    if shape[axis] != len(design):
        raise ValueError(
            f"y has {shape[axis]} observations along axis {axis}, and design {len(design)} rows: "
            f"y has shape {shape}, design has shape {design.shape}"
            f"{_remedy(shape, axis, design.shape)}"
        )
    if not np.isfinite(design).all():
        place = tuple(map(int, np.argwhere(~np.isfinite(design))[0]))
        raise ValueError(
            f"design must be finite: design[{place[0]}, {place[1]}] is {design[place]}; where an "
            "observation is missing, say so by NaN in y"
        )
    observations, n = design.shape
    design = np.ascontiguousarray(design, np.float64)
    rows = np.zeros((1, n)) if observations == 0 else design
    return Fit(
        shape=shape,
        axis=axis,
        dtype=dtype,
        design=rows,
        basis=basis.orthogonalized(rows, checked_ridge(options.ridge, n)),
        threshold=max(observations, n) * np.finfo(dtype).eps if rcond is None else rcond,
        rcond=rcond,
        min_count=n if min_count is None else int(min_count),
        on_deficient=options.on_deficient,
        covariance=bool(options.covariance),
    )


def _remedy(shape: tuple[int, ...], axis: int, design: tuple[int, ...]) -> str:
    """What to do where the observations are along another axis, or the design is transposed."""
    axes = [i for i, n in enumerate(shape) if n == design[0]]
    if len(axes) == 1:
        return f"; axis={axes[0]} (--axis {axes[0]}) has as many"
    return "; transpose the design" if design[1] == shape[axis] else ""


def _is_integer(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _dtype(name: str, dtype: np.dtype[Any]) -> np.dtype[Any]:
    if dtype.kind in "biu":
        return np.dtype(np.float64)
    if dtype.kind == "f" and dtype.itemsize in (4, 8):
        return dtype.newbyteorder("=")
    advice = (
        "fit its real and imaginary parts one after the other"
        if dtype.kind == "c"
        else "convert it with astype()"
    )
    raise TypeError(
        f"{name} has dtype {dtype}; regressions are of float32 and float64 (integers and bool "
        f"become float64): {advice}"
    )


def checked_ridge(ridge: Any, n: int) -> NDArray[np.float64]:
    """Of every coefficient."""
    if ridge is None:  # else the next lines take 30 µs, a third of what a call does besides fitting
        return np.zeros(n)
    values = np.asarray(ridge) if isinstance(ridge, str) else as_array("ridge", ridge)
    if values.dtype.kind not in "biuf":
        raise TypeError(f"ridge must be real numbers: {ridge!r} has dtype {values.dtype}")
    values = values.astype(np.float64)
    if values.shape not in ((), (n,)):
        raise ValueError(f"ridge must be a number or ({n},) numbers: it has shape {values.shape}")
    if not (np.isfinite(values) & (values >= 0)).all():
        raise ValueError(f"ridge must be finite and not negative: it is {ridge}")
    return np.ascontiguousarray(np.broadcast_to(values, (n,)))
