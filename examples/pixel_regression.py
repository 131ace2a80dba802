"""Harmonics and a trend for each pixel of a cloudy image series, and a map of what is significant.

Clouds leave gaps: every standard error is that of the images which show the pixel. The map is a
picture where matplotlib is installed, and letters otherwise.

Needs: pip install "dasksolve[xarray]"
"""

import tempfile
from importlib.util import find_spec
from timeit import timeit

import numpy as np
import xarray as xr

from dasksolve import Status, labelled, regress_zarr


def stack() -> tuple[xr.DataArray, xr.DataArray]:
    """Eight years of a vegetation index, and the trend that is hidden in it."""
    rng = np.random.default_rng(0)
    axes = {"y": np.arange(150) * 0.03, "x": np.arange(200) * 0.03}  # km
    days = np.datetime64("2016-01-01", "ns") + np.arange(0, 8 * 365, 16) * np.timedelta64(1, "D")
    y, x = (xr.DataArray(values, dims=dim, attrs={"units": "km"}) for dim, values in axes.items())
    trend = 0.01 * np.sin(2 * x) * np.cos(1.5 * y)
    year = xr.DataArray((days - days[0]) / np.timedelta64(365, "D"), dims="time")
    images = 0.5 + trend * year - 0.2 * np.cos(2 * np.pi * (year - 0.05))
    images = images + 0.03 * rng.standard_normal(images.shape)
    seen = xr.DataArray(rng.random(images.shape) < 0.6, dims=images.dims)
    images = images.where(seen & (np.hypot(x - 4.2, y - 1.2) > 0.6)).transpose("time", "y", "x")
    return images.assign_coords(time=days, y=y, x=x), trend


def harmonics(times: xr.DataArray) -> xr.DataArray:
    """The design (time, term)."""
    year = (times - times[0]) / np.timedelta64(365, "D")
    waves = [f(2 * np.pi * year) for f in (np.cos, np.sin)]
    terms = xr.DataArray(["mean", "trend", "cos", "sin"], dims="term", name="term")
    return xr.concat([xr.ones_like(year), year, *waves], dim=terms).transpose("time", "term")


def loop(images: xr.DataArray, design: xr.DataArray, few: int = 500) -> None:
    """What people write: some pixels, one by one."""
    for values in images.values.reshape(len(images), -1).T[:few]:
        known = ~np.isnan(values)
        np.linalg.lstsq(design.values[known], values[known], rcond=None)


with tempfile.TemporaryDirectory() as folder:
    images, truth = stack()
    design = harmonics(images.time)
    packed = {"dtype": "int16", "scale_factor": 1e-4, "_FillValue": -32768, "chunks": (1, 150, 200)}
    stored = images.to_dataset(name="index").assign(design=design)
    stored.to_zarr(f"{folder}/data.zarr", encoding={"index": packed}, zarr_format=2)

    paths = (f"{folder}/{path}" for path in ("data.zarr/index", "data.zarr/design", "fit.zarr"))
    report = regress_zarr(*paths, memory_limit="1GiB")  # resumable
    fit = xr.open_zarr(f"{folder}/fit.zarr").load()
trend, error = (fit[name].sel(term="trend") for name in ("coef", "stderr"))
share = float((abs(trend - truth) < 2 * error).sum() / report.counts[Status.OK])
print(f"{report.counts[Status.TOO_FEW]} pixels were never seen, ", end="")
print(f"{share:.1%} of the others have a trend within two standard errors of the truth")
ours = timeit(lambda: labelled.regress(images, design), number=1)
theirs = timeit(lambda: loop(images, design), number=1) * fit.status.size / 500
print(f"in memory {ours:.2f} s; a loop of np.linalg.lstsq would have taken {theirs:.1f} s")
shown = trend.where(abs(trend) > 3 * error).transpose("y", "x")
if find_spec("matplotlib") is None:
    of_cells = shown.fillna(0).coarsen(y=10, x=5).median()[::-1]
    print("Trend, where above three standard errors: + greening, - browning")
    print("\n".join("".join(" +-"[int(sign)] for sign in row) for row in np.sign(of_cells.values)))
else:
    from matplotlib.figure import Figure

    axes = (figure := Figure(figsize=(7.5, 4.8), layout="constrained")).subplots()
    axes.set_facecolor("0.6")  # not significant
    mesh = axes.pcolormesh(shown.x, shown.y, shown, cmap="RdBu", vmin=-0.012, vmax=0.012)
    figure.colorbar(mesh, label="Trend beyond three standard errors (index units a year)")
    axes.set(xlabel="x (km)", ylabel="y (km)", aspect="equal")
    figure.savefig("pixel_regression.png", dpi=120)
