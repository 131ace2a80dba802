"""`dasksolve bench --regress`: `regress` against what people write by hand, as a table."""

import argparse
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dasksolve.api import regress, solve
from dasksolve.command.bench import interleaved, one_thread, refuse_unused, tabulated

DTYPES = ("float64", "float32")
COLUMNS = (6,)
"""Numbers of columns that are measured where none is given."""
FEW = 500
"""Series that are enough to time what solves them one by one."""
SYSTEMS_ALONE = ("k", "assume_a", "in_cache", "workers", "plot")
"""Options of what only systems are measured by."""
OTHERS = ("normal equations", "np.linalg.lstsq", "xarray", "torch")


@dataclass(frozen=True)
class Row:
    """One case, measured: nanoseconds a series."""

    dtype: str
    layout: str
    """How y lies: time-major (P, M) or series-major (M, P)."""
    n: int
    observations: int
    series: int
    nanoseconds: float
    """Of dasksolve: coefficients, standard errors, residuals and status."""
    reading: float
    """Of reading y once."""
    others: dict[str, float] = field(default_factory=dict)
    """Of what it is compared with, coefficients alone."""

    @property
    def ratios(self) -> dict[str, float]:
        """How many times faster than each."""
        return {name: taken / self.nanoseconds for name, taken in self.others.items()}


def run(options: argparse.Namespace) -> int:
    """Measure and print the table, with one thread for BLAS too."""
    columns = max(options.n or COLUMNS)
    if columns > options.observations:
        raise ValueError(
            f"--n {columns} is more columns than --observations has rows: "
            f"{options.observations}; give more of these"
        )
    others = {*options.dtype} - {*DTYPES}
    if others and options.dtype != options.default_of("dtype"):
        names = " and ".join(sorted(others))
        raise ValueError(f"--regress measures {' and '.join(DTYPES)}, not {names}")
    refuse_unused(options, "--regress", SYSTEMS_ALONE)
    again = one_thread(options)
    if again is not None:
        return again
    rows = tabulated(
        measure(options),
        options.json,
        _head(),
        _line,
        lambda row: {**asdict(row), "ratios": row.ratios},
    )
    return 1 if rows is None else 0


def _head() -> str:
    return (
        f"{'dtype':<8} {'layout':<12} {'P':>5} {'N':>3} {'ns/series':>9} {'reading':>7} "
        f"{'normal':>7} {'lstsq':>6} {'xarray':>7} {'torch':>6}"
    )


def _line(row: Row) -> str:
    ratios = [row.ratios.get(name) for name in OTHERS]
    cells = ["" if ratio is None else f"{ratio:.1f}x" for ratio in ratios]
    return (
        f"{row.dtype:<8} {row.layout:<12} {row.observations:>5} {row.n:>3} "
        f"{row.nanoseconds:>9,.0f} {row.reading:>7,.0f} {cells[0]:>7} {cells[1]:>6} "
        f"{cells[2]:>7} {cells[3]:>6}"
    )


def measure(options: argparse.Namespace) -> Iterator[Row]:
    """Measure every case: medians of runs that take turns."""
    for dtype in (name for name in options.dtype if name in DTYPES):
        for n in options.n or COLUMNS:
            for layout in ("time-major", "series-major"):
                yield _case(np.dtype(dtype), n, layout, options)


def series(
    n: int, observations: int, count: int, dtype: np.dtype[Any]
) -> tuple[NDArray[np.float64], NDArray[Any]]:
    """A design of powers, and series (P, M) of which a fifth is missing."""
    rng = np.random.default_rng(0)
    design = np.linspace(-1, 1, observations)[:, None] ** np.arange(n)
    y = rng.standard_normal((observations, count)).astype(dtype)
    y[rng.random(y.shape, np.float32) < 0.2] = np.nan
    return design, y


def _case(dtype: np.dtype[Any], n: int, layout: str, options: argparse.Namespace) -> Row:
    observations, count = options.observations, options.systems or 100_000
    design, y = series(n, observations, count, dtype)
    axis = 0 if layout == "time-major" else 1
    y = np.ascontiguousarray(y if axis == 0 else y.T)
    whole: dict[str, Callable[[], Any]] = {
        "dasksolve": partial(regress, y, design, axis=axis, workers=options.workers),
        "reading": partial(np.dot, y.reshape(-1), y.reshape(-1)),
        "normal equations": partial(normal_equations, y, design.astype(dtype), axis),
    }
    few = np.ascontiguousarray(y[:, :FEW] if axis == 0 else y[:FEW])
    part: dict[str, Callable[[], Any]] = {
        "np.linalg.lstsq": partial(one_by_one, few if axis else few.T, design),
        **_libraries(few, design, axis),
    }
    runs = {**whole, **part}
    seconds = interleaved(options.rounds, *runs.values())
    taken = {
        name: 1e9 * time / (count if name in whole else few.shape[1 - axis])
        for name, time in zip(runs, seconds, strict=True)
    }
    ours, reading = taken.pop("dasksolve"), taken.pop("reading")
    return Row(dtype.name, layout, n, observations, count, ours, reading, taken)


def normal_equations(y: NDArray[Any], design: NDArray[Any], axis: int) -> NDArray[Any]:
    """Coefficients (M, N) by two products of matrices, of the mask and of the filled data."""
    known = ~np.isnan(y)
    mask, filled = known.astype(y.dtype), np.where(known, y, y.dtype.type(0))
    n = design.shape[1]
    products = (design[:, :, None] * design[:, None, :]).reshape(len(design), n * n)
    if axis == 0:
        mask, filled = mask.T, filled.T
    return solve(
        (mask @ products).reshape(-1, n, n), filled @ design, assume_a="pos", on_singular="nan"
    )


def one_by_one(y: NDArray[Any], design: NDArray[Any]) -> NDArray[Any]:
    """Coefficients (M, N) of series (M, P) by a loop of `numpy.linalg.lstsq`."""
    found = np.empty((len(y), design.shape[1]), y.dtype)
    design = design.astype(y.dtype)
    for m, row in enumerate(y):
        known = ~np.isnan(row)
        found[m] = np.linalg.lstsq(design[known], row[known], rcond=None)[0]
    return found


def _libraries(y: NDArray[Any], design: NDArray[Any], axis: int) -> dict[str, Callable[[], Any]]:
    """Those that are installed."""
    found: dict[str, Callable[[], Any]] = {}
    if find_spec("xarray"):
        xr = import_module("xarray")
        time = np.linspace(-1, 1, len(design))
        dims = ("time", "pixel") if axis == 0 else ("pixel", "time")
        labelled = xr.DataArray(y, {"time": time}, dims)
        found["xarray"] = partial(labelled.polyfit, "time", design.shape[1] - 1, skipna=True)
    if find_spec("torch"):
        torch = import_module("torch")
        rows = y.T if axis == 0 else y
        known = ~np.isnan(rows)
        a = torch.from_numpy(known[..., None] * design.astype(y.dtype))
        b = torch.from_numpy(np.where(known, rows, 0)[..., None])
        torch.set_num_threads(1)
        found["torch"] = partial(torch.linalg.lstsq, a, b)
    return found
