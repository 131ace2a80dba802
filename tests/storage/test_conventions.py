"""Stored numbers mean what xarray takes them for."""

import base64
import json
import struct
import warnings
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr
from families import same_bits

from dasksolve.storage.conventions import Packing, packing

SMALL = np.array([[0, 1, -1], [5, 7, -128]])


def base64_of(number: float) -> str:
    return base64.b64encode(struct.pack("<d", number)).decode()


def by_us(array: Any, order: str = "C") -> np.ndarray:
    found = packing(array)
    stored = array[...]
    if found is None:
        return stored
    meant = np.empty(stored.shape, found.dtype, order)
    found.unpack(stored, meant)
    return meant


def by_xarray(folder: Path) -> xr.Dataset:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return xr.open_zarr(folder, consolidated=False, decode_times=False, chunks=None)


def stored(group: zarr.Group, name: str, values: np.ndarray, **attributes: Any) -> Any:
    options: dict[str, Any] = {"dimension_names": ("y", "x")}
    if group.metadata.zarr_format == 2:
        attributes["_ARRAY_DIMENSIONS"] = ["y", "x"]
        options = {"fill_value": attributes.pop("_FillValue", None)}
    options |= {"compressors": None, "attributes": attributes}
    return group.create_array(name, data=values, **options)


PACKED: tuple[dict[str, Any], ...] = (
    {},
    {"scale_factor": 0.1},
    {"add_offset": 3.7},
    {"scale_factor": 0.01, "add_offset": 273.15},
    {"scale_factor": 2, "add_offset": 1},
    {"scale_factor": 2.0, "add_offset": 1},
    {"scale_factor": [0.5], "add_offset": [3]},
)
MISSING: tuple[dict[str, Any], ...] = (
    {},
    {"_FillValue": -1},
    {"missing_value": 7},
    {"missing_value": [7, 5]},
    {"_FillValue": -1, "missing_value": 5},
)


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize(
    "dtype",
    [
        *("i1", "u1", "<i2", ">i2", ">i8", "f4", "f8"),
        *(pytest.param(t, marks=pytest.mark.slow) for t in ("u2", "<i4", ">f4")),
    ],
)
def test_the_numbers_are_those_of_xarray(tmp_path: Path, dtype: str, zarr_format: int) -> None:
    group = zarr.create_group(tmp_path, zarr_format=zarr_format)
    kind, values = np.dtype(dtype).kind, SMALL.astype(dtype)
    fill: Any = {"i": -1, "u": 255, "f": base64_of(-1) if zarr_format == 3 else -1}[kind]
    for number, (missing, packed) in enumerate(product(MISSING, PACKED)):
        given = {**missing, **packed}
        given |= {"_FillValue": fill} if "_FillValue" in missing else {}
        stored(group, f"a{number}", values, **given)
    for name, right in by_xarray(tmp_path).items():
        array = group[str(name)]
        found = by_us(array)
        assert found.dtype.newbyteorder("=") == right.dtype, dict(array.attrs)
        assert np.array_equal(found, right, equal_nan=True), dict(array.attrs)


@pytest.mark.parametrize("dtype", ["i2", "f4"])
@pytest.mark.parametrize("missing", [{}, {"missing_value": 7}], ids=str)
@pytest.mark.parametrize("scale", [2, -(2**62)])
def test_a_whole_number_as_scale_cuts_nothing_off(
    tmp_path: Path, dtype: str, missing: dict[str, Any], scale: int
) -> None:  # of xarray it does: 1.5 becomes 1, and a missing one an error
    values = np.array([[1.5, 7]]).astype(dtype)
    found = by_us(stored(zarr.create_group(tmp_path), "a", values, scale_factor=scale, **missing))
    right = float(scale) * values
    if missing:
        right[0, 1] = np.nan
    assert np.array_equal(found, right, equal_nan=True)


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize(
    ("dtype", "fill", "unsigned"),
    [("i1", -1, "true"), ("i1", 5, "true"), ("u1", 1, "false"), ("i2", -128, "true")],
)
@pytest.mark.parametrize("scaled", [False, True])
def test_signs_of_format_3_of_netcdf(
    tmp_path: Path, dtype: str, fill: int, unsigned: str, scaled: bool, zarr_format: int
) -> None:
    attributes: dict[str, Any] = {"_Unsigned": unsigned, "_FillValue": fill}
    attributes |= {"scale_factor": 0.5, "add_offset": 1.0} if scaled else {}
    group = zarr.create_group(tmp_path, zarr_format=zarr_format)
    array = stored(group, "a", SMALL.astype(dtype), **attributes)
    found, right = by_us(array), by_xarray(tmp_path).a.values
    assert found.dtype == right.dtype
    assert np.array_equal(found, right, equal_nan=True)
    assert np.isnan(found).any()


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("fill", [9.96921e36, 1e20, np.nan, -9999.0])
def test_what_xarray_writes_is_read_back(
    tmp_path: Path, dtype: str, fill: float, zarr_format: int
) -> None:
    values = np.array([[1.5, np.nan], [0.0, 2.5]], dtype)
    data = xr.Dataset({"a": (("y", "x"), values)})
    fills = {"_FillValue": np.dtype(dtype).type(fill), "missing_value": np.dtype(dtype).type(fill)}
    data.to_zarr(tmp_path, encoding={"a": fills}, zarr_format=zarr_format, consolidated=False)
    found = by_us(zarr.open_array(tmp_path / "a"))
    assert found.dtype == values.dtype
    assert np.array_equal(found, values, equal_nan=True)


def test_complex_numbers_that_stand_for_none(tmp_path: Path) -> None:
    values = np.array([[1 + 2j, 3 - 1j]])
    fill = [base64_of(3.0), base64_of(-1.0)]
    found = by_us(stored(zarr.create_group(tmp_path), "a", values, _FillValue=fill))
    assert found[0, 0] == 1 + 2j
    assert np.isnan(found[0, 1].real)
    assert np.isnan(found[0, 1].imag)


def test_a_fill_value_of_format_2_is_a_number_unless_xarray_wrote_it(tmp_path: Path) -> None:
    array = zarr.create_array(tmp_path, data=np.eye(3), fill_value=0, zarr_format=2)
    assert packing(array) is None
    array.attrs["_ARRAY_DIMENSIONS"] = ["y", "x"]
    assert np.isnan(by_us(zarr.open_array(tmp_path))).sum() == 6


@pytest.mark.parametrize("order", ["C", "F"])
def test_any_layout_of_memory(tmp_path: Path, order: Any) -> None:
    values = np.arange(60_000, dtype="i4").reshape(3, 200, 100)
    array = zarr.create_array(tmp_path, data=values, attributes={"scale_factor": 0.5})
    found = packing(array)
    assert found is not None
    meant = np.empty((100, 200, 3), order=order)
    found.unpack(np.asfortranarray(values).T, meant)
    assert np.array_equal(meant, 0.5 * values.T)


@pytest.mark.parametrize("fill", ["NaN", float("nan"), [], base64_of(np.nan)], ids=str)
def test_nan_needs_nothing_to_stand_for_it(tmp_path: Path, fill: Any) -> None:
    array = zarr.create_array(tmp_path, data=np.ones(3), attributes={"_FillValue": fill})
    assert packing(array) is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("scale_factor", "0.1"),
        ("scale_factor", [1.0, 2.0]),
        ("add_offset", True),
        ("add_offset", {"a": 1}),
        ("_FillValue", "!"),
        ("missing_value", {"a": 1}),
        ("scale_factor", -(10**400)),
    ],
    ids=lambda value: str(value)[:9],
)
def test_what_is_no_number_is_refused(tmp_path: Path, name: str, value: Any) -> None:
    array = zarr.create_array(tmp_path, data=np.ones(3))
    document = tmp_path / "zarr.json"
    metadata = json.loads(document.read_text())
    metadata["attributes"] = {name: value}
    document.write_text(json.dumps(metadata))
    array = zarr.open_array(tmp_path)
    with pytest.raises(ValueError, match=f"{name} is .* is no number to decode with; .*scale"):
        packing(array)


@pytest.mark.parametrize("fill", ["7", base64_of(7.0), [1, 2], "nan", 2.5], ids=str)
def test_a_fill_value_of_integers_is_one_number(tmp_path: Path, fill: Any) -> None:
    array = stored(zarr.create_group(tmp_path), "a", SMALL.astype("i2"), _FillValue=fill)
    with pytest.raises(ValueError, match=r"_FillValue is .* is no number to decode with"):
        packing(array)


def test_a_fill_value_of_integers_may_be_a_whole_float(tmp_path: Path) -> None:
    array = stored(zarr.create_group(tmp_path), "a", np.array([[1, 7]], "i2"), _FillValue=7.0)
    assert np.isnan(by_us(array)).tolist() == [[False, True]]


@pytest.mark.parametrize("lies", ["whole", "columns", "turned", "far apart", "into a part"])
@pytest.mark.parametrize("dtype", ["<i2", ">i2"])
def test_one_pass_gives_the_bits_of_one_for_each_step(dtype: str, lies: str) -> None:
    stored = np.random.default_rng(0).integers(-50, 50, (40, 300)).astype(dtype)
    views = {"whole": np.s_[:], "columns": np.s_[:, 7:90], "far apart": np.s_[::3, ::7]}
    values = stored.T if lies == "turned" else stored[views.get(lies, ...)]
    for missing, scale, offset in (((), 1e-4, None), ((np.int64(-3),), 0.1, 7), ((-3,), None, 0.3)):
        packing = Packing(np.dtype("i2"), np.dtype("f8"), missing, scale, offset)
        found, wanted = np.empty_like(values, "f8"), np.where(values == -3, np.nan, values * 1.0)
        if lies == "into a part":
            found = np.zeros((50, 400))[5:45, :300]
        packing.unpack(values, found)
        if not missing:
            wanted = values * 1.0
        wanted = wanted * (1 if scale is None else scale) + (0 if offset is None else offset)
        assert same_bits(found + 0.0, wanted + 0.0)
