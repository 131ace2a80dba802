"""Labelled arrays: `xarray.DataArray` in, `xarray.DataArray` or `xarray.Dataset` out."""

from dasksolve.labelled.polynomials import polyfit
from dasksolve.labelled.series import regress
from dasksolve.labelled.systems import solve, solve_ex

__all__ = ["polyfit", "regress", "solve", "solve_ex"]
