"""What `regress_zarr` makes of names, coordinates and packed numbers, as xarray writes them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr
from families import same_bits
from numpy.typing import NDArray
from stored import DESIGN, P, observations

import dasksolve


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_packed_integers_mean_what_xarray_reads(tmp_path: Path, zarr_format: int) -> None:
    y = xr.DataArray(observations().round(2), dims=("time", "y", "x"), name="ndvi")
    y = y.where(np.isfinite(y)).assign_coords(
        time=np.arange(P), y=np.arange(12.0), x=("x", np.arange(20.0), {"units": "m"})
    )
    packed = {"dtype": "int16", "scale_factor": 0.01, "_FillValue": -32768, "chunks": (1, 12, 20)}
    y.to_dataset().to_zarr(
        tmp_path / "in", encoding={"ndvi": packed}, zarr_format=zarr_format, consolidated=False
    )
    names = xr.DataArray(DESIGN, dims=("time", "term")).assign_coords(
        term=["mean", "trend", "wave"], time=np.arange(P)
    )
    names.to_dataset(name="design").to_zarr(tmp_path / "design", zarr_format=2, consolidated=False)
    dasksolve.regress_zarr(
        tmp_path / "in/ndvi", tmp_path / "design/design", tmp_path / "out", strict=False
    )
    with (
        xr.open_zarr(tmp_path / "in", consolidated=False) as given,
        xr.open_zarr(tmp_path / "out") as fit,
    ):
        wanted = dasksolve.regress(given.ndvi.values.astype(fit.coef.dtype), DESIGN)
        assert fit.coef.dims == ("term", "y", "x")
        assert fit.status.dims == ("y", "x")
        assert fit.x.attrs == {"units": "m"}
        assert list(fit.term.values) == ["mean", "trend", "wave"]
        assert same_bits(fit.coef.values, wanted.coef)
        assert same_bits(fit.stderr.values, wanted.stderr)
        trend = fit.coef.sel(term="trend", y=3, x=4)
        assert trend == wanted.coef[1, 3, 4]


@pytest.mark.parametrize("missing", [5 + 1e-9, 1e300])
def test_what_no_integer_is_stands_for_none_of_them(tmp_path: Path, missing: float) -> None:
    y = np.full((P, 64), 5, "i2")  # as many series as the kernel unpacks itself
    zarr.create_array(tmp_path / "y", data=y, attributes={"missing_value": missing})
    dasksolve.regress_zarr(tmp_path / "y", DESIGN, tmp_path / "out")
    assert (zarr.open_array(tmp_path / "out/count")[:] == P).all()


def test_rows_that_are_at_other_times_are_refused(tmp_path: Path) -> None:
    y = xr.DataArray(np.ones((P, 4)), dims=("time", "x")).assign_coords(time=np.arange(P))
    y.to_dataset(name="y").to_zarr(tmp_path / "in", consolidated=False)
    design = xr.DataArray(DESIGN, dims=("time", "term")).assign_coords(time=np.arange(P) + 1)
    design.to_dataset(name="x").to_zarr(tmp_path / "design", consolidated=False)
    with pytest.raises(ValueError, match="coordinates time that stand beside y and design differ"):
        dasksolve.regress_zarr(tmp_path / "in/y", tmp_path / "design/x", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def named(path: Path, values: NDArray[Any], **coordinates: Any) -> str:
    """Store an array as xarray does, with dimensions and coordinates of these names."""
    names = ("time", "lat", "lon")[: values.ndim]
    array = xr.DataArray(values, dims=coordinates.pop("dims", names), coords=coordinates)
    array.rename("values").to_dataset().to_zarr(path, zarr_format=2)
    return str(path / "values")


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        pytest.param({"dims": ("time", "lon", "lat")}, "named .*'lon', 'lat'.*order", id="order"),
        pytest.param({"time": np.arange(P)[::-1]}, "coordinates time .* y and weights", id="time"),
        pytest.param({"lat": np.arange(6)[::-1]}, "coordinates lat .* y and weights", id="place"),
    ],
)
def test_weights_that_stand_elsewhere_are_refused(
    tmp_path: Path, stored: dict[str, Any], message: str
) -> None:
    y = named(tmp_path / "y", np.ones((P, 6, 6)), time=np.arange(P), lat=np.arange(6))
    weights = named(tmp_path / "weights", np.ones((P, 6, 6)), **stored)
    with pytest.raises(ValueError, match=message):
        dasksolve.regress_zarr(y, DESIGN, tmp_path / "out", weights=weights)
    assert not (tmp_path / "out").exists()
    fine = named(tmp_path / "fine", np.ones((P, 6, 6)), time=np.arange(P), lat=np.arange(6))
    assert dasksolve.regress_zarr(y, DESIGN, tmp_path / "out", weights=fine).flagged == ()


def test_weights_of_observations_at_other_times_are_refused(tmp_path: Path) -> None:
    y = named(tmp_path / "y", np.ones((P, 6, 6)), time=np.arange(P))
    weights = named(tmp_path / "weights", np.ones(P), time=np.arange(P)[::-1])
    with pytest.raises(ValueError, match=r"coordinates time .* y and weights"):
        dasksolve.regress_zarr(y, DESIGN, tmp_path / "out", weights=weights)


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (("t", "coefficient_2", "x"), ("coefficient_", "coefficient_2", "x")),
        (("t", "status", "coefficient"), ("coefficient_", "status_", "coefficient")),
    ],
)
def test_a_name_that_clashes_is_changed_alone(
    tmp_path: Path, names: tuple[str, ...], found: tuple[str, ...]
) -> None:
    y = zarr.create_array(tmp_path / "y", data=np.ones((P, 4, 5)), dimension_names=names)
    dasksolve.regress_zarr(y, DESIGN, tmp_path / "out", covariance=True)
    with xr.open_zarr(tmp_path / "out") as out:
        assert out.coef.dims == found
