"""Huge batches of dense linear systems, solved in memory, on dask, and from zarr to zarr."""

from dasksolve.api import solve
from dasksolve.errors import BlockErrors, PerformanceWarning, SingularSystemError
from dasksolve.status import Status

__all__ = ["BlockErrors", "PerformanceWarning", "SingularSystemError", "Status", "solve"]
