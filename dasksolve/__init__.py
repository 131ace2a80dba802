"""Huge batches of dense linear systems, solved in memory, on dask, and from zarr to zarr."""

# ruff: noqa: E402  what is imported may have to log already
from dasksolve.command import interrupt  # noqa: F401  first: the others take a second

# isort: split
import logging
from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

logging.getLogger(__name__).addHandler(logging.NullHandler())  # who wants the log says so

# isort: split
from dasksolve import labelled, nopython
from dasksolve.api import inv, lstsq, lstsq_ex, regress, solve, solve_ex, solve_tridiagonal
from dasksolve.batch.factorization import Factorization, factor
from dasksolve.errors import BlockErrors, PerformanceWarning, SingularSystemError
from dasksolve.solution import LeastSquares, Regression, Solution
from dasksolve.status import Status

if TYPE_CHECKING:
    from dasksolve.job.check import check_zarr
    from dasksolve.job.regress import regress_zarr
    from dasksolve.job.report import Report
    from dasksolve.job.solve import solve_zarr

_JOBS = {
    "Report": "report",
    "check_zarr": "check",
    "regress_zarr": "regress",
    "solve_zarr": "solve",
}
"""Imported once they are asked for: what they are given to dask by takes as long as the rest."""

__version__ = version("dasksolve")

__all__ = [
    "BlockErrors",
    "Factorization",
    "LeastSquares",
    "PerformanceWarning",
    "Regression",
    "Report",
    "SingularSystemError",
    "Solution",
    "Status",
    "__version__",
    "check_zarr",
    "factor",
    "inv",
    "labelled",
    "lstsq",
    "lstsq_ex",
    "nopython",
    "regress",
    "regress_zarr",
    "solve",
    "solve_ex",
    "solve_tridiagonal",
    "solve_zarr",
]


def __getattr__(name: str) -> Any:
    if name not in _JOBS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import_module("dask.array")  # what it takes of memory is not the job's
    found = globals()[name] = getattr(import_module(f"dasksolve.job.{_JOBS[name]}"), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_JOBS})
