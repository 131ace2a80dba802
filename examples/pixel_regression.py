"""A harmonic fit for each pixel of an image stack, from zarr to zarr, and a map of its amplitude.

Clouds leave gaps that differ from pixel to pixel, so each has normal equations of its own; a lake
that no image shows has none that can be solved.

Needs: pip install "dasksolve[plot,xarray]"
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from dasksolve import labelled

PICTURE = Path(sys.argv[1] if len(sys.argv) > 1 else "pixel_regression.png")
TERMS = ["mean", "trend", "cos", "sin"]


def stack() -> tuple[xr.DataArray, xr.DataArray]:
    """Three years of a vegetation index every 8 days, and the amplitude that is hidden in it."""
    rng = np.random.default_rng(0)
    axes = {"y": np.arange(150) * 0.03, "x": np.arange(200) * 0.03}  # km
    time = np.datetime64("2021-01-01", "ns") + np.arange(0, 3 * 365, 8) * np.timedelta64(1, "D")
    y, x = (xr.DataArray(values, dims=dim, attrs={"units": "km"}) for dim, values in axes.items())
    amplitude = 0.15 + 0.1 * np.sin(2 * x) * np.cos(1.5 * y)
    year = xr.DataArray((time - time[0]) / np.timedelta64(365, "D"), dims="time")
    images = 0.5 + 0.01 * year - amplitude * np.cos(2 * np.pi * (year - 0.05))
    images = images + 0.03 * rng.standard_normal(images.shape)
    seen = rng.random(images.shape) < 0.6
    seen &= (np.hypot(x - 4.2, y - 1.2) > 0.6).values
    images = images.where(xr.DataArray(seen, dims=images.dims))
    return images.assign_coords(time=time, y=y, x=x), amplitude


def normal_equations(images: xr.DataArray) -> tuple[xr.DataArray, xr.DataArray]:
    """XᵀX and Xᵀy of each pixel, over the images that show it."""
    year = (images.time - images.time[0]) / np.timedelta64(365, "D")
    columns = [xr.ones_like(year), year, np.cos(2 * np.pi * year), np.sin(2 * np.pi * year)]
    design = xr.concat(columns, dim="row").assign_coords(row=TERMS)
    products = design * design.rename(row="col")
    seen = images.notnull().astype(float)
    return xr.dot(seen, products, dim="time"), xr.dot(images.fillna(0), design, dim="time")


with tempfile.TemporaryDirectory() as folder:
    images, truth = stack()
    images.to_dataset(name="index").chunk(y=50).to_zarr(f"{folder}/stack.zarr", zarr_format=2)

    lazy = xr.open_zarr(f"{folder}/stack.zarr")["index"]
    a, b = normal_equations(lazy)
    fit = labelled.solve(a, b, on_singular="nan").rename(col="term")  # nothing is computed yet
    fit.to_dataset(name="fit").to_zarr(f"{folder}/fit.zarr", zarr_format=2)

    fit = xr.open_zarr(f"{folder}/fit.zarr")["fit"].load()
found = np.hypot(fit.sel(term="cos"), fit.sel(term="sin")).transpose("y", "x")
error = float(np.sqrt(((found - truth) ** 2).mean()))
print(f"{int(found.isnull().sum())} pixels were never seen; error of the others {error:.4f} (RMS)")

figure = Figure(figsize=(7, 4.6), layout="constrained")
axes = figure.subplots()
axes.set_facecolor("0.6")  # shows where there is no fit
mesh = axes.pcolormesh(found.x, found.y, found, cmap="viridis", vmin=0, vmax=0.3)
figure.colorbar(mesh, label="Amplitude of the yearly cycle (index units)")
axes.set(xlabel="x (km)", ylabel="y (km)", aspect="equal")
axes.set_title("Vegetation index, 2021 to 2023 (grey: never seen)")
figure.savefig(PICTURE, dpi=120)
print(f"map in {PICTURE}")
