"""Huge batches of dense linear systems, solved in memory, on dask, and from zarr to zarr."""

import logging
from importlib.metadata import version

from dasksolve.command import interrupt  # noqa: F401  first: the others take a second

# isort: split
from dasksolve import labelled, nopython
from dasksolve.api import inv, lstsq, lstsq_ex, regress, solve, solve_ex, solve_tridiagonal
from dasksolve.batch.factorization import Factorization, factor
from dasksolve.errors import BlockErrors, PerformanceWarning, SingularSystemError
from dasksolve.job.check import check_zarr
from dasksolve.job.regress import regress_zarr
from dasksolve.job.report import Report
from dasksolve.job.solve import solve_zarr
from dasksolve.solution import LeastSquares, Regression, Solution
from dasksolve.status import Status

logging.getLogger(__name__).addHandler(logging.NullHandler())  # who wants the log says so

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
