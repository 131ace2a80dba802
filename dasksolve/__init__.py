"""Huge batches of dense linear systems, solved in memory, on dask, and from zarr to zarr."""

import logging
from importlib.metadata import version

from dasksolve import early, labelled, nopython  # noqa: F401  early: the others take a second
from dasksolve.api import solve, solve_ex, solve_tridiagonal
from dasksolve.errors import BlockErrors, PerformanceWarning, SingularSystemError
from dasksolve.factorization import Factorization, factor
from dasksolve.report import Report
from dasksolve.solution import Solution
from dasksolve.status import Status
from dasksolve.zarr_check import check_zarr
from dasksolve.zarr_job import solve_zarr

logging.getLogger(__name__).addHandler(logging.NullHandler())  # who wants the log says so

__version__ = version("dasksolve")

__all__ = [
    "BlockErrors",
    "Factorization",
    "PerformanceWarning",
    "Report",
    "SingularSystemError",
    "Solution",
    "Status",
    "__version__",
    "check_zarr",
    "factor",
    "labelled",
    "nopython",
    "solve",
    "solve_ex",
    "solve_tridiagonal",
    "solve_zarr",
]
