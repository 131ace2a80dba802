"""The trend of a float32 climate field with gaps, and its standard error: xarray's polyfit, right.

xarray takes the covariances of a series without gaps for every series; where half of the months are
missing, its standard errors are half of the true ones.

Needs: pip install "dasksolve[xarray]"
"""

import numpy as np
import xarray as xr

from dasksolve import labelled

rng = np.random.default_rng(0)
months = np.arange("1980-01", "2020-01", dtype="M8[M]").astype("M8[ns]")
lat = xr.DataArray(np.linspace(-88, 88, 45), dims="lat", attrs={"units": "degrees_north"})
lon = xr.DataArray(np.arange(0, 360, 4.0), dims="lon", attrs={"units": "degrees_east"})
year = xr.DataArray(np.arange(len(months)) / 12, {"time": months}, "time")

warming = 0.02 + 0.03 * (lat.clip(0) / 88) ** 2  # K a year
field = 288 - 0.5 * abs(lat) + 0 * lon + warming * year
field = field + rng.standard_normal(field.shape)
field = field.where(rng.random(field.shape) > 0.5).astype(np.float32)
field = field.assign_coords(lat=lat, lon=lon).transpose("time", "lat", "lon")

fit = labelled.polyfit(field.assign_coords(time=year.values), "time", 1, cov=True)
trend = fit.polyfit_coefficients.sel(degree=1)
error = np.sqrt(fit.polyfit_covariance[0, 0])
within = float((abs(trend - warming) < error).mean())
print(f"trend at 88 N {10 * float(trend[-1].mean()):.2f} K a decade, at 88 S ", end="")
print(f"{10 * float(trend[0].mean()):.2f}; standard error {10 * float(error.mean()):.3f}")
print(f"{within:.0%} of the points are within one standard error of the truth: 68% is right")
