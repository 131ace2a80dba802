"""What else xarray needs of an output: coordinates, the meaning of status, a place in its group."""

import asyncio
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr
from stored import Session
from turnstile import Turnstile
from zarr.storage import LocalStore, WrapperStore
from zarr.testing.store import LatencyStore

from dasksolve import regress_zarr, solve_zarr

TIMES = np.arange("2020-01", "2020-07", dtype="M8[M]").astype("M8[ns]")


def dataset(names: Any = ("t", "site"), **coordinates: Any) -> xr.Dataset:
    rng = np.random.default_rng(0)
    return xr.Dataset(
        {"a": ((*names, "row", "col"), rng.random((6, 3, 2, 2)) + 2 * np.eye(2))}
        | {"b": ((*names, "row"), rng.random((6, 3, 2)))},
        coords=coordinates,
    )


def solved(folder: Path, a: str = "in/a", b: str = "in/b") -> xr.Dataset:
    solve_zarr(folder / a, folder / b, folder / "out")
    return xr.open_zarr(folder / "out", chunks=None).load()


@pytest.mark.filterwarnings("ignore:The data type:zarr.errors.UnstableSpecificationWarning")
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_coordinates_of_the_batch_are_copied(tmp_path: Path, zarr_format: Any) -> None:
    given = dataset(t=TIMES, site=["Oslo", "Rome", "Lima"], row=["p", "q"])
    given.to_zarr(tmp_path / "in", zarr_format=zarr_format, consolidated=False)
    found = solved(tmp_path)
    assert set(found.coords) == {"t", "site"}
    xr.testing.assert_equal(found.t, given.t)
    xr.testing.assert_equal(found.site, given.site)


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_packed_coordinates_are_copied_as_they_are_stored(tmp_path: Path, zarr_format: Any) -> None:
    given = dataset(t=np.array([0.5, 1, 1.5, 2, 2.5, np.nan]), site=[1.0, np.nan, 9.0])
    encoding = {
        "t": {"dtype": "i2", "scale_factor": 0.5, "_FillValue": -1},
        "site": {"_FillValue": -999.0},
    }
    given.to_zarr(tmp_path / "in", encoding=encoding, zarr_format=zarr_format, consolidated=False)
    found = solved(tmp_path)
    assert np.array_equal(found.t, given.t, equal_nan=True)
    assert np.array_equal(found.site, given.site, equal_nan=True)
    assert zarr.open_array(tmp_path / "out/t").dtype == np.int16


def test_coordinates_are_copied_to_a_store_that_is_far_away(tmp_path: Path) -> None:
    given = dataset(t=TIMES, site=[3, 0, 9])
    given.to_zarr(tmp_path / "in", consolidated=False)
    solve_zarr(tmp_path / "in/a", tmp_path / "in/b", LatencyStore(LocalStore(tmp_path / "out")))
    found = xr.open_zarr(tmp_path / "out", chunks=None)
    xr.testing.assert_equal(found.t, given.t)
    xr.testing.assert_equal(found.site, given.site)


def test_a_coordinate_of_a_dimension_named_x_goes_with_it(tmp_path: Path) -> None:
    dataset(("y", "x"), x=[7, 8, 9]).to_zarr(tmp_path / "in", consolidated=False)
    assert solved(tmp_path)["x_"].values.tolist() == [7, 8, 9]


def test_coordinates_beside_both_have_to_be_the_same(tmp_path: Path) -> None:
    for name, site in (("in", [1, 2, 3]), ("same", [1, 2, 3]), ("other", [3, 2, 1])):
        dataset(site=site).to_zarr(tmp_path / name, consolidated=False)
    assert solved(tmp_path, b="same/b").site.values.tolist() == [1, 2, 3]
    with pytest.raises(ValueError, match=r"coordinates site that stand beside a and b differ"):
        solve_zarr(tmp_path / "in/a", tmp_path / "other/b", tmp_path / "out2")
    assert not (tmp_path / "out2").exists()


def test_a_coordinate_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    dataset(site=[1, 2, 3]).to_zarr(tmp_path / "in", consolidated=False)
    (tmp_path / "in/site/c/0").write_bytes(b"no chunk")
    with pytest.raises(OSError, match=r"cannot read the coordinate file://.*/in/site: "):
        solved(tmp_path)


def test_coordinates_in_two_sessions_of_icechunk_are_compared() -> None:
    inputs = []
    for name, site in (("a", [1, 2, 3]), ("b", [3, 2, 1])):
        session = Session()
        dataset(site=site).to_zarr(session, consolidated=False)
        inputs.append(zarr.open_array(session, path=name, mode="r"))
    with pytest.raises(ValueError, match=r"coordinates site that stand beside a and b differ"):
        solve_zarr(*inputs, Session())


DAYS = {"units": "days since 2020-01-01", "calendar": "proleptic_gregorian"}


def stored_twice(folder: Path, ours: Any, theirs: Any) -> None:
    """a and b in groups of their own, each beside its times: numbers and attributes."""
    for name, (values, attributes) in (("in", ours), ("other", theirs)):
        group = zarr.create_group(folder / name)
        for key, array in dataset().items():
            group.create_array(str(key), data=array.values, dimension_names=array.dims)
        numbers = np.asarray(values)
        group.create_array("t", data=numbers, dimension_names=("t",), attributes=attributes)


@pytest.mark.parametrize(
    ("theirs", "attributes"),
    [
        pytest.param(range(6), {**DAYS, "units": "days since 2020-01-01 00:00:00"}, id="midnight"),
        pytest.param(range(6), {**DAYS, "units": "Days since 2020-1-1T00:00Z"}, id="zone"),
        pytest.param(range(6), {"units": DAYS["units"]}, id="no calendar"),
        pytest.param(range(6), {**DAYS, "long_name": "time"}, id="another attribute"),
        pytest.param(np.arange(6.0), DAYS, id="floats"),
        pytest.param(np.arange(6) * 24, {"units": "hours since 2020-01-01"}, id="hours"),
        pytest.param(np.arange(6) + 18262, {"units": "days since 1970-01-01"}, id="another date"),
        pytest.param(
            (np.arange(6) + 18262) * 86400 * 10**9,
            {"units": "nanoseconds since 1970-01-01"},
            id="ns",
        ),
        pytest.param(np.arange(6) * 86400000, {"units": "ms since 2020-01-01"}, id="ms"),
        pytest.param(
            np.arange(6, dtype="i2") * 2,
            {**DAYS, "scale_factor": 0.5, "_FillValue": -1},
            id="packed",
        ),
    ],
)
def test_coordinates_that_mean_the_same_are_the_same(
    tmp_path: Path, theirs: Any, attributes: dict[str, Any]
) -> None:
    stored_twice(tmp_path, (np.arange(6), DAYS), (theirs, attributes))
    ours, others = (xr.open_zarr(tmp_path / n, consolidated=False) for n in ("in", "other"))
    assert (ours.t.values == others.t.values).all()
    assert (solved(tmp_path, b="other/b").t.values == ours.t.values).all()


@pytest.mark.parametrize(
    ("theirs", "attributes", "where"),
    [
        pytest.param([0, 1, 2, 4, 4, 5], DAYS, ", first at 3", id="one number"),
        pytest.param(
            range(6), {"units": "days since 2020-01-02"}, ", first at 0", id="another date"
        ),
        pytest.param(range(6), {"units": "hours since 2020-01-01"}, ", first at 1", id="unit"),
        pytest.param(
            range(6), {**DAYS, "calendar": "noleap"}, " in units, .*, noleap'", id="calendar"
        ),
        pytest.param(range(6), {"units": "m"}, " in units, 'days .*' and 'm'", id="no times"),
        pytest.param(list("012345"), DAYS, ", first at 0", id="text"),
    ],
)
def test_coordinates_that_mean_something_else_are_refused(
    tmp_path: Path, theirs: Any, attributes: dict[str, Any], where: str
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", zarr.errors.UnstableSpecificationWarning)
        stored_twice(tmp_path, (np.arange(6), DAYS), (theirs, attributes))
        with pytest.raises(ValueError, match=rf"coordinates t that .* a and b differ{where}:"):
            solve_zarr(tmp_path / "in/a", tmp_path / "other/b", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_weights_made_of_what_xarray_read_go_with_it(tmp_path: Path) -> None:
    times = xr.Variable("t", TIMES)
    y = xr.Dataset({"y": (("t", "site"), np.random.default_rng(0).random((6, 3)))}, {"t": times})
    y.to_zarr(tmp_path / "in", consolidated=False)
    with xr.open_zarr(tmp_path / "in", consolidated=False) as read:
        (read.y > 0.2).astype("f4").to_dataset(name="w").to_zarr(
            tmp_path / "weights", consolidated=False
        )
    units = [zarr.open_array(tmp_path / name / "t").attrs["units"] for name in ("in", "weights")]
    assert units[0] != units[1]
    report = regress_zarr(
        tmp_path / "in/y", np.ones((6, 1)), tmp_path / "out", weights=tmp_path / "weights/w"
    )
    assert report.flagged_count == 0


def test_what_is_no_coordinate_is_left_alone(tmp_path: Path) -> None:
    given = dataset(("../secret", "site"))
    group = zarr.create_group(tmp_path / "in")
    for name, array in given.items():
        group.create_array(str(name), data=array.values, dimension_names=array.dims)
    zarr.create_array(tmp_path / "secret", data=np.arange(6), dimension_names=("../secret",))
    group.create_array("site", data=np.ones((3, 3)), dimension_names=("site", "z"))
    assert not solved(tmp_path).coords


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_coordinates_that_are_no_dimensions_go_with_a_regression(
    tmp_path: Path, zarr_format: Any
) -> None:
    latitude = np.arange(12.0).reshape(4, 3)
    given = xr.Dataset(
        {"y": (("time", "v", "u"), np.random.default_rng(0).random((6, 4, 3)))},
        coords={
            "time": TIMES,
            "cloudy": ("time", np.ones(6)),
            "latitude": (("v", "u"), latitude, {"units": "degrees_north"}),
            "count": ("u", [1, 2, 3]),  # as a part of the result is called
            "coefficient": ((), 7),  # as the dimension of the coefficients is
            "spatial_ref": ((), 0, {"crs_wkt": "EPSG:4326"}),
        },
    )
    given.y.encoding["grid_mapping"] = "spatial_ref"
    encoding = {"latitude": {"chunks": (3, 2)}}
    given.to_zarr(tmp_path / "in", encoding=encoding, zarr_format=zarr_format, consolidated=False)
    for options in ({}, {"resume": True}, {"overwrite": True}):
        regress_zarr(tmp_path / "in/y", np.ones((6, 1)), tmp_path / "out", **options)
        found = xr.open_zarr(tmp_path / "out", chunks=None)
        assert set(found.coords) == {"latitude", "count_", "coefficient_", "spatial_ref"}
        xr.testing.assert_identical(found.latitude.variable, given.latitude.variable)
        assert found.count_.dims == ("u",)
        assert found.spatial_ref.attrs == {"crs_wkt": "EPSG:4326"}
        assert found.coef.attrs["grid_mapping"] == "spatial_ref"
        assert set(found.coef.coords) == set(found.status.coords) == set(found.coords)
    zarr.open_array(tmp_path / "out/latitude")[3, 2] = 0
    regress_zarr(tmp_path / "in/y", np.ones((6, 1)), tmp_path / "out", resume=True)
    assert zarr.open_array(tmp_path / "out/latitude")[...].tolist() == latitude.tolist()


def test_of_two_coordinates_that_differ_one_is_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name, height in (("in", 2.0), ("other", 10.0)):
        given = dataset(height=height, slope=(("t", "site"), np.full((6, 3), height)))
        given.to_zarr(tmp_path / name, consolidated=False)
    found = solved(tmp_path, b="other/b")
    assert found.height == 2
    assert (found.slope == 2).all()
    assert "other/height is left out: there is another coordinate height" in caplog.text


@pytest.mark.parametrize("other", ["EPSG:4326", "EPSG:32631"])
def test_of_two_projections_the_first_is_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, other: str
) -> None:
    for name, code in (("in", "EPSG:4326"), ("other", other)):
        given = dataset(crs=((), 0, {"crs_wkt": code}))
        for array in given.values():
            array.encoding["grid_mapping"] = "crs"
        given.to_zarr(tmp_path / name, consolidated=False)
    assert solved(tmp_path, b="other/b").crs.attrs == {"crs_wkt": "EPSG:4326"}
    told = "other/crs is left out: there is another coordinate crs" in caplog.text
    assert told is (other != "EPSG:4326")


def test_a_coordinate_in_one_huge_chunk_is_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    group = zarr.create_group(tmp_path / "in")
    y = np.zeros((2, 2100, 2100), np.int8)
    names = ("time", "v", "u")
    group.create_array("y", data=y, dimension_names=names, attributes={"coordinates": "latitude"})
    latitude = {"shape": y.shape[1:], "chunks": y.shape[1:], "dtype": np.float64}
    group.create_array("latitude", dimension_names=names[1:], **latitude)
    regress_zarr(group["y"], np.ones((2, 1)), tmp_path / "out", strict=False)
    assert "latitude" not in zarr.open_group(tmp_path / "out")
    assert "more than 32 MiB" in caplog.text


def test_a_coordinate_of_bytes_is_left_out_with_a_word(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    group = zarr.create_group(tmp_path / "in", zarr_format=2)
    for name, array in dataset().items():
        stored = group.create_array(str(name), data=array.values)
        stored.attrs["_ARRAY_DIMENSIONS"] = array.dims
    site = group.create_array("site", data=np.array([b"Oslo", b"Rome", b"Lima"]))
    site.attrs["_ARRAY_DIMENSIONS"] = ["site"]
    assert not solved(tmp_path).coords
    assert "the coordinate site beside" in caplog.text
    assert "its dtype is |S4, where numbers, times or text are copied" in caplog.text


def test_complex_coordinates_go_with_the_solution(tmp_path: Path) -> None:
    given = dataset(site=[1j, complex(np.nan, 2), 3])
    given.to_zarr(tmp_path / "in", consolidated=False)
    assert np.array_equal(solved(tmp_path).site, given.site, equal_nan=True)


@pytest.mark.filterwarnings("ignore:The data type:zarr.errors.UnstableSpecificationWarning")
def test_a_resume_leaves_coordinates_that_are_there(tmp_path: Path) -> None:
    dataset(t=TIMES, site=["Oslo", "Rome", "Lima"]).to_zarr(tmp_path / "in", consolidated=False)
    solved(tmp_path)
    chunks = [*(tmp_path / "out").glob("t/c/*"), *(tmp_path / "out").glob("site/c/*")]
    written = [(path.stat().st_ino, path.stat().st_mtime_ns) for path in chunks]
    assert len(written) >= 2
    solve_zarr(tmp_path / "in/a", tmp_path / "in/b", tmp_path / "out", resume=True)
    assert [(path.stat().st_ino, path.stat().st_mtime_ns) for path in chunks] == written


@pytest.mark.parametrize("wrong", ["changed", "cut", "cut document", "no document", "of others"])
def test_a_resume_mends_coordinates(tmp_path: Path, wrong: str) -> None:
    dataset(site=[1, 2, 3]).to_zarr(tmp_path / "in", consolidated=False)
    solved(tmp_path)
    array = tmp_path / "out/site"
    if wrong == "changed":
        zarr.open_array(array)[1] = 0
    elif wrong == "no document":
        (array / "zarr.json").unlink()
    elif wrong == "of others":
        zarr.create_array(array, shape=(5,), chunks=(1,), dtype="f4", overwrite=True)[...] = 1
    else:
        path = array / ("c/0" if wrong == "cut" else "zarr.json")
        path.write_bytes(path.read_bytes()[:5])
    solve_zarr(tmp_path / "in/a", tmp_path / "in/b", tmp_path / "out", resume=True)
    with xr.open_zarr(tmp_path / "out", chunks=None, consolidated=True) as found:
        assert found.site.values.tolist() == [1, 2, 3]
    assert [path.name for path in (array / "c").iterdir()] == ["0"]


class Overlapping(WrapperStore):
    """A store that counts how many coordinates are written at once, and waits for so many."""

    def __init__(self, path: Path, at_once: int) -> None:
        super().__init__(LocalStore(path))
        self.now = self.most = 0
        self.turnstile = Turnstile(at_once)

    async def set(self, key: str, *arguments: Any, **options: Any) -> None:
        writes = key.startswith(("t/c/", "site/c/"))
        self.now += writes
        self.most = max(self.most, self.now)
        if writes:
            await self.turnstile.passed()
            await asyncio.sleep(0.2)  # more would come
        await super().set(key, *arguments, **options)
        self.now -= writes


@pytest.mark.parametrize(("largest", "at_once"), [(96, 2), (95, 1)])
def test_no_more_of_coordinates_is_in_memory_than_of_the_largest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, largest: int, at_once: int
) -> None:
    monkeypatch.setattr("dasksolve.job.coordinates._LARGEST", largest)
    given = dataset(t=np.arange(6.0), site=[3, 1, 2])  # 48 bytes of the one, 24 of the other
    given.to_zarr(tmp_path / "in", consolidated=False)
    out = Overlapping(tmp_path / "out", at_once)
    solve_zarr(tmp_path / "in/a", tmp_path / "in/b", out)
    assert out.most == at_once


def test_status_says_what_its_numbers_mean(tmp_path: Path) -> None:
    dataset().to_zarr(tmp_path / "in", consolidated=False)
    attributes = solved(tmp_path).status.attrs
    meanings = dict(
        zip(attributes["flag_meanings"].split(), attributes["flag_values"], strict=True)
    )
    assert meanings["pending"] == -1
    assert meanings["ok"] == 0
    assert meanings["not_positive_definite"] == 4


@pytest.mark.parametrize("place", ["out", "deep/out"])
def test_an_output_is_seen_in_the_consolidated_group_around_it(tmp_path: Path, place: str) -> None:
    given = dataset(site=[1, 2, 3])
    given.to_zarr(tmp_path / "data", zarr_format=2, consolidated=False)
    with pytest.warns(UserWarning, match="Consolidated metadata"):
        given.to_zarr(tmp_path / "all", consolidated=True)
    if "/" in place:
        zarr.open_group(tmp_path / "all", use_consolidated=False).create_group("deep")
    solve_zarr(tmp_path / "data/a", tmp_path / "data/b", tmp_path / "all" / place)
    with xr.open_zarr(tmp_path / "all", consolidated=True) as around:
        assert set(around.data_vars) == {"a", "b"}
    with xr.open_zarr(tmp_path / "all", group=place, consolidated=True) as found:
        assert found.x.dims == ("t", "site", "col")
        assert found.site.values.tolist() == [1, 2, 3]


def within_a_group(folder: Path) -> tuple[Path, Path]:
    """Where a and b are; beside them a consolidated group, "all", for outputs."""
    given = dataset(site=[1, 2, 3])
    given.to_zarr(folder / "data", consolidated=False)
    with pytest.warns(UserWarning, match="Consolidated metadata"):
        given.to_zarr(folder / "all", zarr_format=3, consolidated=True)
    return folder / "data/a", folder / "data/b"


def test_an_output_that_is_written_anew_replaces_the_old_in_the_group_around_it(
    tmp_path: Path,
) -> None:
    job = *within_a_group(tmp_path), tmp_path / "all/out"
    solve_zarr(*job, diagnostics=True)
    solve_zarr(*job, overwrite=True)
    around = zarr.open_group(tmp_path / "all", mode="r", use_consolidated=True)["out"]
    own = zarr.open_group(tmp_path / "all/out", mode="r", use_consolidated=False)
    assert isinstance(around, zarr.Group)
    assert {*around} == {*own}
    assert around.attrs["dasksolve"] == own.attrs["dasksolve"]


def test_outputs_that_are_written_at_once_are_all_seen_in_the_group_around_them(
    tmp_path: Path,
) -> None:
    inputs, outs = within_a_group(tmp_path), [f"out{i}" for i in range(24)]
    with ThreadPoolExecutor(8) as pool:
        [*pool.map(lambda out: solve_zarr(*inputs, tmp_path / "all" / out, workers=1), outs)]
    around = zarr.open_group(tmp_path / "all", mode="r", use_consolidated=True)
    assert {*outs} <= {*around}


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_dates_that_zarr_stores_as_such_go_with_the_solution(
    tmp_path: Path, zarr_format: Any
) -> None:
    dates = np.array(["2000-01-01", "NaT", "2001-01-01"], "M8[ns]")
    group = zarr.create_group(tmp_path / "data", zarr_format=zarr_format)
    arrays = {"a": np.eye(2) + np.zeros((3, 2, 2)), "b": np.ones((3, 2)), "time": dates}
    for name, values in arrays.items():
        names = ["time", "row", "col"][: values.ndim]
        named = {"attributes": {"_ARRAY_DIMENSIONS": names}}
        if zarr_format == 3:
            named = {"dimension_names": names}
        group.create_array(name, data=values, **named)
    for resume in (False, True):
        solve_zarr(group["a"], group["b"], tmp_path / "out", resume=resume)
    with xr.open_zarr(tmp_path / "out") as found:
        np.testing.assert_array_equal(found.time.values, dates)
