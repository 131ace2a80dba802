"""No mask, unit, label or laziness is dropped without a word."""

from collections.abc import Callable
from typing import Any

import dask
import dask.array as da
import distributed
import numpy as np
import pytest
import xarray as xr
import zarr
from scipy import sparse
from zarr.storage import MemoryStore

import dasksolve

A, B = np.tile(2 * np.eye(2), (3, 1, 1)), np.ones((3, 2))


def masked() -> Any:
    values = np.ma.masked_array(B.copy())
    values[0, 0] = np.ma.masked
    return values


def stored() -> Any:
    return zarr.create_array(MemoryStore(), data=B)


def table() -> Any:
    return pytest.importorskip("pandas").DataFrame(B)


def gaps() -> Any:
    return pytest.importorskip("pandas").array([1.0, None], dtype="Float64")


def pint_quantity() -> Any:
    return B * pytest.importorskip("pint").UnitRegistry().metre


def astropy_quantity() -> Any:
    return B * pytest.importorskip("astropy.units").m


def future() -> Any:
    return distributed.Future("b")  # of no client


def labelled() -> Any:
    return xr.DataArray(B, dims=("t", "row"))


GIVEN = [
    pytest.param(masked, r"b is a masked array; .*b\.filled\(np\.nan\)", id="mask"),
    pytest.param(
        lambda: list(masked()), r"b\[0\] is a masked array; .*b\[0\]\.filled", id="masks in a list"
    ),
    pytest.param(labelled, r"a xarray\.DataArray .*dasksolve\.labelled .* b\.data", id="xarray"),
    pytest.param(lambda: labelled().variable, r"xarray\.Variable .*labels", id="variable"),
    pytest.param(
        lambda: labelled().to_dataset(name="b"), r"xarray\.Dataset .*choose .*b\[\.", id="set"
    ),
    pytest.param(table, r"pandas\.DataFrame .*np\.asarray\(b\)", id="pandas"),
    pytest.param(gaps, r"a pandas\.FloatingArray and has labels or gaps of its own", id="gaps"),
    pytest.param(pint_quantity, r"has units.*b\.magnitude", id="pint"),
    pytest.param(astropy_quantity, r"an astropy.Quantity and has units.*b\.value", id="astropy"),
    pytest.param(
        stored,
        r"zarr\.Array and is stored, .*: xarray\.open_zarr .*regress_zarr.*from_zarr\(b\).*b\[",
        id="zarr",
    ),
    pytest.param(future, r"a distributed\.Future .*on a cluster.*b\.result\(\)", id="future"),
    pytest.param(
        lambda: list(da.from_array(B)), r"b\[0\] is a dask\.Array .*array\.from", id="dask in list"
    ),
    pytest.param(
        lambda: dask.delayed(B), r"a dask\.Delayed.* is lazy.*from_delayed or stack", id="delayed"
    ),
]
FACES: dict[str, Callable[[Any], Any]] = {
    "solve": lambda b: dasksolve.solve(A, b),
    "solve_ex": lambda b: dasksolve.solve_ex(A, b),
    "lazy": lambda b: dasksolve.solve(da.from_array(A), b),
    "factor": lambda b: dasksolve.factor(A).solve(b),
    "bands": lambda b: dasksolve.solve_tridiagonal(B, B, B, b),
}


@pytest.mark.parametrize(("given", "message"), GIVEN)
@pytest.mark.parametrize("face", FACES)
def test_what_means_more_is_refused(given: Callable[[], Any], message: str, face: str) -> None:
    with pytest.raises(TypeError, match=message):
        FACES[face](given())


BLOCKS: dict[str, Callable[[Any, Any], Any]] = {
    "solve": dasksolve.solve,
    "factor": lambda a, b: dasksolve.factor(a).solve(b),
    "one matrix": lambda a, b: dasksolve.factor(a[:1]).solve(b),
    "bands": lambda a, b: dasksolve.solve_tridiagonal(B, B, B, b),
}


@pytest.mark.parametrize(
    ("face", "place"), [(f, p) for f in BLOCKS for p in "ab" if (f, p) != ("bands", "a")]
)
def test_blocks_that_are_masked_though_they_should_not(face: str, place: str) -> None:
    given: dict[str, Any] = {"a": A, "b": B}
    values = np.ma.masked_less(given[place], -1)
    lazy = dask.delayed(lambda: values)()
    given[place] = da.from_delayed(lazy, shape=values.shape, dtype=float)
    with pytest.raises(TypeError, match=f"{place} is a masked array"):
        np.asarray(BLOCKS[face](**given))


@pytest.mark.parametrize(
    "given",
    [B.tolist(), tuple(map(tuple, B)), [*B], B.astype(int).tolist(), memoryview(B)],
    ids=["lists", "tuples", "arrays", "whole numbers", "buffer"],
)
def test_mere_numbers_are_taken(given: Any) -> None:
    assert np.array_equal(dasksolve.solve(A, given), B / 2)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (None, "b is None, which is no array of numbers$"),
        ("b.zarr", "b is a path or other text, .*solve_zarr and regress_zarr take paths"),
        ((number for number in B), r"b is a builtins\.generator, which is no array of numbers$"),
        (sparse.eye_array(2), r"b is a scipy\.dia_array, .*: give b\.toarray\(\)$"),
    ],
    ids=["nothing", "path", "generator", "sparse"],
)
@pytest.mark.parametrize("face", FACES)
def test_what_is_no_array_is_named(given: Any, message: str, face: str) -> None:
    with pytest.raises(TypeError, match=message):
        FACES[face](given)


def test_units_are_named_as_those_of_what_has_them() -> None:
    y = astropy_quantity()
    with pytest.raises(TypeError, match=r"y is .* alone \(y\.value\), and the result its unit$"):
        dasksolve.regress(y, np.ones((3, 1)))


def test_a_ragged_list_is_named():
    with pytest.raises(ValueError, match=r"b is no array: .*inhomogeneous"):
        dasksolve.solve(A, [[1.0, 2.0], [3.0], [4.0, 5.0]])
