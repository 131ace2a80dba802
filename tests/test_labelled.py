"""Labelled arrays: dimensions by name, coordinates kept, lazy on dask, from zarr to zarr."""

import subprocess
import sys
import tracemalloc
import warnings
from contextlib import nullcontext

import dask.array as da
import numpy as np
import pytest
import xarray as xr

import dasksolve
from dasksolve import labelled
from dasksolve.solution import Regression


def pixels(**b_sizes):
    """A batch of (2, 6) systems of order 3, and a b of the dimensions that are asked for."""
    rng = np.random.default_rng(0)
    sizes = {"time": 2, "pixel": 6, "row": 3, "col": 3}
    coordinates = {
        "time": np.array(["2000-01-01", "2000-02-01"], "M8[ns]"),
        "pixel": ("pixel", np.arange(6) * 10, {"units": "m"}),
        "quality": ("pixel", list("abcdef")),
        "row": ["p", "q", "r"],
        "col": ["u", "v", "w"],
    }
    b_sizes = {dim: sizes.get(dim, n) for dim, n in b_sizes.items()}
    a = xr.DataArray(rng.standard_normal([*sizes.values()]), coordinates, [*sizes])
    b = xr.DataArray(
        rng.standard_normal([*b_sizes.values()]), dims=[*b_sizes], attrs={"units": "K"}
    )
    return a, b.assign_coords({dim: a[dim] for dim in b.dims if dim in a.dims})


DIMENSIONS = {
    "vectors": (("time", "pixel", "row"), ("time", "pixel", "col"), np.s_[...]),
    "one vector": (("row",), ("time", "pixel", "col"), np.s_[None, None]),
    "fewer": (("pixel", "row"), ("time", "pixel", "col"), np.s_[None]),
    "columns": (("time", "pixel", "row", "k"), ("time", "pixel", "col", "k"), np.s_[...]),
    "one matrix": (("row", "k"), ("time", "pixel", "col", "k"), np.s_[None, None]),
}


@pytest.mark.parametrize("chunks", [None, {"pixel": 2}], ids=["NumPy", "dask"])
@pytest.mark.parametrize(("given", "found", "index"), DIMENSIONS.values(), ids=DIMENSIONS)
def test_dimensions_are_matched_by_name(given, found, index, chunks):
    a, b = pixels(**dict.fromkeys(given, 2))
    wanted = dasksolve.solve(a.values, b.values[index])
    moved = a.transpose("col", "pixel", "row", "time"), b
    for left, right in ((a, b), moved):
        x = labelled.solve(left.chunk(chunks) if chunks else left, right)
        assert (x.chunks is None) == (chunks is None)
        np.testing.assert_array_equal(x.transpose(*found).values, wanted)


def test_x_stands_where_b_stood_with_the_coordinates_of_the_unknowns():
    a, b = pixels(row=3, member=4, pixel=6, run=2)
    x = labelled.solve(a, b)
    assert x.dims == ("time", "col", "member", "pixel", "run")
    assert set(x.coords) == {"time", "pixel", "quality", "col"}
    xr.testing.assert_equal(x.coords.to_dataset(), a.coords.to_dataset().drop_vars("row"))
    assert x.pixel.attrs == {"units": "m"}
    residual = xr.dot(a, x, dim="col") - b
    assert abs(residual).max() < 1e-12


KEPT = pytest.mark.parametrize(
    ("option", "given", "kept"),
    [
        ("default", None, True),
        (True, None, True),
        (False, None, False),
        (False, True, True),
        (True, False, False),
        ("default", np.False_, False),
    ],
)
"""What xarray's option says, what is given, and whether attributes are kept."""


@KEPT
def test_attributes_of_b_are_kept_as_in_xarray(option, given, kept):
    a, b = pixels(pixel=6, row=3)
    with xr.set_options(keep_attrs=option):
        x = labelled.solve(a, b, keep_attrs=given)
        solution = labelled.solve_ex(a, b, keep_attrs=given)
    assert x.attrs == solution.x.attrs == ({"units": "K"} if kept else {})
    assert solution.attrs == solution.status.attrs == solution.rcond.attrs == {}


@pytest.mark.parametrize(("name", "kept"), [("b", None), ("a", "a")])
def test_a_name_is_kept_where_both_have_it_as_xarray_keeps_it(name, kept):
    a = xr.DataArray(2 * np.eye(2), dims=("row", "col"), name="a")
    assert labelled.solve(a, xr.DataArray([2.0, 4.0], dims="row", name=name)).name == kept


def test_options_are_passed_on():
    a, b = pixels(time=2, pixel=6, row=3)
    a = a.copy()
    a[1, 2] = 0
    with pytest.raises(dasksolve.SingularSystemError, match="flat index 8;"):
        labelled.solve(a, b)
    assert np.isnan(labelled.solve(a, b, on_singular="nan")).sum() == 3
    assert labelled.solve(
        a.rename(row="i"), b.rename(row="i"), ("i", "col"), on_singular="nan"
    ).any()


def test_from_zarr_to_zarr_with_one_task_a_block(tmp_path, scheduler):
    a, b = pixels(pixel=6, time=2, row=3)
    xr.Dataset({"a": a, "b": b}).chunk(pixel=2).to_zarr(tmp_path / "data.zarr", zarr_format=2)
    data = xr.open_zarr(tmp_path / "data.zarr")
    x = labelled.solve(data.a, data.b)
    scheduler.runs = scheduler.tasks = 0
    x.data.persist()  # quality is lazy too
    assert (scheduler.runs, scheduler.tasks) == (1, 3)
    x.to_dataset(name="x").to_zarr(tmp_path / "solved.zarr", zarr_format=2)
    xr.testing.assert_identical(
        xr.open_zarr(tmp_path / "solved.zarr").x, labelled.solve(a, b).rename("x")
    )


@pytest.mark.parametrize("chunks", [None, {"pixel": 2}], ids=["NumPy", "dask"])
@pytest.mark.parametrize("columns", [{}, {"k": 2}, {"k": 2, "m": 3}], ids=str)
def test_solve_ex_gives_a_dataset(columns, chunks):
    a, b = pixels(pixel=6, row=3, **columns)
    a = a.isel(time=0, drop=True).copy()
    a[4] = 0
    found = labelled.solve_ex(a.chunk(chunks) if chunks else a, b, keep_attrs=True)
    wanted = dasksolve.solve_ex(a.values, b.values.reshape(6, 3, -1))
    assert list(found) == list(dasksolve.Solution._fields)
    assert found.x.dims == ("pixel", "col", *columns)
    np.testing.assert_array_equal(found.x.values.ravel(), wanted.x.ravel())
    for name in list(found)[1:]:
        assert (found[name].dims, found[name].attrs) == (("pixel",), {})
        np.testing.assert_array_equal(found[name].values, getattr(wanted, name))
        assert (found[name].chunks is None) == (chunks is None)
    assert found.x.attrs == {"units": "K"}
    assert set(found.coords) == {"pixel", "quality", "col"}


def test_solve_ex_refines_if_asked_to():
    grows = np.eye(40) - np.tril(np.ones((40, 40)), -1)  # Wilkinson's: pivots double
    grows[:, -1] = 1
    a = xr.DataArray(grows[None], dims=("pixel", "row", "col"))
    b = xr.DataArray(np.random.default_rng(0).standard_normal((1, 40)), dims=("pixel", "row"))
    as_it_is, refined = (labelled.solve_ex(a, b, refine=refine) for refine in (False, True))
    assert refined.backward_error < as_it_is.backward_error / 100


def test_the_solution_has_another_name_beside_a_dimension_x():
    a, b = (values.rename(pixel="x") for values in pixels(pixel=6, row=3))
    assert set(labelled.solve_ex(a, b)) == {"solution", "status", "rcond", "backward_error"}
    with pytest.raises(ValueError, match=r"a has a coordinate 'solution', .*drop_vars"):
        labelled.solve_ex(a.assign_coords(solution=1), b)


REFUSED = {
    "not labelled": (lambda a, b: (a.values, b), TypeError, r"a is ndarray.*DataArray\(a, dims="),
    "dataset": (
        lambda a, b: (a.to_dataset(name="a"), b),
        TypeError,
        r"choose a variable of it, a\[\.\.\.\]",
    ),
    "no col": (lambda a, b: (a.rename(col="c"), b), ValueError, r"a has no dimension 'col'"),
    "no row": (lambda a, b: (a, b.isel(row=0)), ValueError, r"b has no dimension 'row'"),
    "col in b": (lambda a, b: (a, b.expand_dims(col=3)), ValueError, "b has the dimension 'col'"),
    "other rows": (lambda a, b: (a, b.assign_coords(row=[1, 2, 3])), ValueError, "row"),
    "fewer pixels": (
        lambda a, b: (a, b.isel(pixel=slice(4)).drop_vars("pixel")),
        ValueError,
        "a has 6 along 'pixel', b 4$",
    ),
    "fewer labels": (
        lambda a, b: (a, b.isel(pixel=slice(4))),
        ValueError,
        r"a has 6 along 'pixel', b 4; xarray\.align\(a, b, join='inner'\) keeps what both have$",
    ),
    "pixels in another order": (
        lambda a, b: (a.assign_coords(pixel=range(6)), b.assign_coords(pixel=range(5, -1, -1))),
        ValueError,
        r"differ, .* b\.assign_coords\(.*, else xarray\.align\(a, b, join='inner'\) keeps",
    ),
    "pixels shifted": (
        lambda a, b: (a.assign_coords(pixel=range(6)), b.assign_coords(pixel=range(1, 7))),
        ValueError,
        r"of a and b along 'pixel' differ, first at 0: 0 and 1; .* b\.assign_coords\({'pixel': a\[",
    ),
    "dates of other calendars": (
        lambda a, b: (
            a.assign_coords(pixel=xr.date_range("2000", periods=6, calendar="noleap")),
            b.assign_coords(pixel=xr.date_range("2000", periods=6)),
        ),
        ValueError,
        "differ, first at 0: 2000-01-01 00:00:00 and 2000-01-01 00:00:00; where they mean the same",
    ),
    "a pixel after one without a label": (
        lambda a, b: (
            a.assign_coords(pixel=[np.nan, 1, 2, 3, 4, 5]),
            b.assign_coords(pixel=[np.nan, 1, 3, 2, 4, 5]),
        ),
        ValueError,
        r"differ, first at 2: 2\.0 and 3\.0",
    ),
    "a pixel without a label in one": (
        lambda a, b: (
            a.assign_coords(pixel=[0, np.nan, 2, 3, 4, 5]),
            b.assign_coords(pixel=[0, 1.0, 2, 3, 4, 5]),
        ),
        ValueError,
        r"differ, first at 1: nan and 1\.0",
    ),
    "pixels after rows without labels": (
        lambda a, b: (
            a.transpose("row", ...).drop_vars("row").assign_coords(pixel=range(6)),
            b.assign_coords(pixel=range(1, 7)),
        ),
        ValueError,
        "along 'pixel' differ, first at 0: 0 and 1",
    ),
    "other pixels": (lambda a, b: (a.assign_coords(pixel=range(6)), b), ValueError, "pixel"),
    "a chunked": (
        lambda a, b: (a.chunk(row=2), b),
        ValueError,
        r"a is chunked along 'row', in \(2, 1\).*a\.chunk\({'row': -1, 'col': -1}\)",
    ),
    "b chunked": (lambda a, b: (a, b.chunk(row=1)), ValueError, "b is chunked along 'row'"),
    "not square": (lambda a, b: (a.isel(col=[0, 1]), b), np.linalg.LinAlgError, "square"),
}


@pytest.mark.parametrize(("change", "error", "text"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_solved_is_refused(change, error, text):
    with pytest.raises(error, match=text):
        labelled.solve(*change(*pixels(pixel=6, row=3)))


def test_a_word_is_no_flag():
    with pytest.raises(TypeError, match="keep_attrs='no' must be True or False"):
        labelled.solve(*pixels(pixel=6, row=3), keep_attrs="no")


def test_without_xarray_an_error_says_what_to_install():
    code = (
        "import sys; sys.modules['xarray'] = None; import dasksolve; dasksolve.labelled.solve(1, 2)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert 'ImportError: labelled arrays need xarray: pip install "dasksolve[xarray]"' in run.stderr


def test_right_hand_sides_of_one_matrix_stay_in_chunks():
    a = xr.DataArray(2 * np.eye(3), dims=("row", "col"))
    y = xr.DataArray(np.random.default_rng(0).random((20, 25, 3)), dims=("y", "x", "row"))
    x = labelled.solve(a, y.chunk(y=5, x=25))
    assert x.chunksizes["y"] == (5, 5, 5, 5)
    assert (x.values == y.values / 2).all()
    s = labelled.solve_ex(a, y.chunk(y=5, x=10))
    assert (s.status.shape, int(s.status)) == ((), 0)
    assert (s.solution.values == y.values / 2).all()


@pytest.mark.parametrize("sizes", [(0, 2), (2, 0), (0, 0)])
def test_no_right_hand_sides_along_several_dimensions_stay_lazy(sizes):
    a, b = pixels(pixel=6, row=3, run=sizes[0], member=sizes[1])
    x = labelled.solve(a, b.chunk(pixel=2))
    assert x.chunks is not None
    assert x.compute().sizes == labelled.solve(a, b).sizes


def test_chunks_of_no_length_are_none():
    a, b = pixels(row=3, run=3, member=2)
    x = labelled.solve(a, b.chunk(row=(0, 3), run=(1, 0, 2), member=(2, 0)))
    np.testing.assert_array_equal(x.values, labelled.solve(a, b).values)


# Regressions


def images(dtype=np.float64):
    """A stack of images with gaps, of a known trend."""
    rng = np.random.default_rng(0)
    time = np.datetime64("2001-01-01", "ns") + np.arange(60) * np.timedelta64(30, "D")
    shape = (4, 60, 5)
    values = 10 + 0.01 * np.arange(60)[None, :, None] + rng.standard_normal(shape)
    values[rng.random(shape) < 0.3] = np.nan
    coordinates = {"time": time, "y": np.arange(4) * 10, "area": ("y", list("abcd"))}
    return xr.DataArray(values.astype(dtype), coordinates, ("y", "time", "x"), attrs={"units": "K"})


def trend(stack):
    month = xr.DataArray(np.arange(60.0), {"time": stack.time}, "time")
    return xr.concat(
        [xr.ones_like(month), month], dim=xr.DataArray(["mean", "trend"], dims="term", name="term")
    )


@pytest.mark.parametrize("chunks", [None, {"y": 2}], ids=["NumPy", "dask"])
def test_a_regression_keeps_coordinates_and_labels_its_coefficients(chunks):
    stack = images()
    design = trend(stack)
    wanted = dasksolve.regress(stack.values, design.values.T, axis=1, covariance=True)
    lazy = stack.chunk(chunks) if chunks else stack
    fit = labelled.regress(lazy, design, covariance=True)
    assert fit.coef.dims == fit.stderr.dims == ("y", "term", "x")
    assert fit.covariance.dims == ("y", "x", "term", "term_2")
    assert fit.rss.dims == ("y", "x")
    assert fit.term.values.tolist() == ["mean", "trend"]
    assert set(fit.coords) == {"y", "area", "term"}
    for name, values in wanted._asdict().items():
        assert (fit[name].chunks is None) == (chunks is None)
        np.testing.assert_array_equal(fit[name].values, values)


@KEPT
def test_attributes_of_y_are_those_of_coefficients_as_in_xarray(option, given, kept):
    stack = images()
    with xr.set_options(keep_attrs=option):
        fit = labelled.regress(stack, trend(stack), keep_attrs=given)
    assert fit.coef.attrs == fit.stderr.attrs == ({"units": "K"} if kept else {})
    assert fit.attrs == fit.status.attrs == fit.rss.attrs == fit["count"].attrs == {}


def test_weights_are_matched_by_name():
    stack = images()
    weights = xr.DataArray(np.random.default_rng(1).random((60, 4)), dims=("time", "y"))
    weights = weights.assign_coords(time=stack.time, y=stack.y)
    fit = labelled.regress(stack, trend(stack), weights=weights)
    full = np.broadcast_to(weights.values.T[..., None], stack.shape)
    wanted = dasksolve.regress(stack.values, trend(stack).values.T, axis=1, weights=full)
    np.testing.assert_array_equal(fit.coef.values, wanted.coef)


def test_weights_of_some_dimensions_take_no_memory_beside_lazy_series():
    y = xr.DataArray(da.zeros((60, 1 << 12, 1 << 12)), dims=("time", "y", "x"))  # 8 GB
    weights = xr.DataArray(np.ones(1 << 12), dims="x")
    tracemalloc.start()
    try:
        labelled.regress(y.chunk(time=-1), trend_of(60), weights=weights)
        assert tracemalloc.get_traced_memory()[1] < 32 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("fit", [labelled.regress, labelled.polyfit])
@pytest.mark.parametrize("pixel", [[9, 7], [7], [7, 9, 11]], ids=["order", "fewer", "more"])
def test_weights_of_other_coordinates_are_refused(fit, pixel):
    y = xr.DataArray(np.random.default_rng(0).random((20, 2)), {"pixel": [7, 9]}, ("time", "pixel"))
    weights = xr.DataArray(np.ones(len(pixel)), {"pixel": pixel}, dims="pixel")
    given = (y, trend_of(20)) if fit is labelled.regress else (y, "time", 1)
    said = "coordinates of y and weights along 'pixel' differ" if len(pixel) == 2 else "y has 2 al"
    with pytest.raises(ValueError, match=said):
        fit(*given, weights=weights)
    assert fit(*given, weights=weights.reindex(pixel=[7, 9])).sizes["pixel"] == 2


def trend_of(count):
    return xr.DataArray(np.stack([np.ones(count), np.arange(count)], 1), dims=("time", "term"))


@pytest.mark.parametrize("as_dimension", [True, False])
@pytest.mark.parametrize("name", ["coef", "count", "status", "power", "other", "degree", "cov_i"])
def test_a_name_stands_in_the_way_only_of_a_result_that_has_it(name, as_dimension):
    y = xr.DataArray(np.arange(12.0).reshape(6, 2), dims=("time", "pixel"))
    y = y.rename(pixel=name) if as_dimension else y.assign_coords({name: 3})
    for fit, taken in (
        (lambda: labelled.regress(y, trend_of(6)), Regression._fields),
        (lambda: labelled.polyfit(y, "time", 1, cov=True), ("degree", "cov_i", "cov_j")),
    ):
        if name in taken:
            kind = "dimension" if as_dimension else "coordinate"
            with pytest.raises(ValueError, match=f"y has a {kind} '{name}', as a part .*rename"):
                fit()
        else:
            found = fit()
            assert name in (found.dims if as_dimension else found.coords)


@pytest.mark.parametrize("name", ["term", "term_2"])
def test_a_coordinate_that_is_called_as_the_coefficients_is_refused(name):
    y = xr.DataArray(np.zeros((6, 2)), {name: ("pixel", [7, 9])}, ("time", "pixel"))
    with pytest.raises(ValueError, match=rf"y has a coordinate '{name}', .*drop_vars"):
        labelled.regress(y, trend_of(6), covariance=True)


@pytest.mark.parametrize("name", ["pixel", "coef", "term_2"])
def test_a_label_of_coefficients_that_is_called_as_another_part_is_refused(name):
    y = xr.DataArray(np.zeros((6, 2)), {"pixel": [7, 9]}, ("time", "pixel"))
    design = trend_of(6)
    labelled_so = design.assign_coords({name: ("term", ["a", "b"])})
    with pytest.raises(ValueError, match=rf"design has a coordinate '{name}', .*drop_vars"):
        labelled.regress(y, labelled_so, covariance=True)
    with pytest.raises(ValueError, match=r"design has a dimension 'coef', .*rename"):
        labelled.regress(y, design.rename(term="coef"))
    scalar = design.assign_coords({name: 1})  # which does not go with the fit
    assert "term" in labelled.regress(y, scalar, covariance=True).coef.dims


@pytest.mark.parametrize("name", ["status", "rcond"])
def test_a_coordinate_that_is_called_as_a_diagnostic_is_refused(name):
    a, b = pixels(pixel=6, row=3)
    with pytest.raises(ValueError, match=rf"b has a coordinate '{name}', .*b\.drop_vars"):
        labelled.solve_ex(a, b.assign_coords({name: 1}))
    assert labelled.solve(a, b.assign_coords({name: 1}))[name] == 1


POLYFITS = {
    "coefficients": {},
    "covariance": {"cov": True},
    "unscaled": {"cov": "unscaled"},
    "everything": {"cov": True, "full": True},
    "gaps are not skipped": {"skipna": False},
}


@pytest.mark.parametrize("options", POLYFITS.values(), ids=POLYFITS)
@pytest.mark.parametrize("gaps", [False, True])
def test_polyfit_is_that_of_xarray(options, gaps):
    stack = images() if gaps else images().fillna(11)
    found, wanted = (
        labelled.polyfit(stack, "time", 2, **options),
        stack.polyfit("time", 2, **options),
    )
    assert set(found) == set(wanted)
    assert found.attrs == wanted.attrs
    np.testing.assert_array_equal(found.degree, wanted.degree)
    for name in set(wanted) - ({"polyfit_covariance"} if gaps else set()):
        one, other = xr.broadcast(found[name].drop_vars("area", errors="ignore"), wanted[name])
        scale = abs(other).max([dim for dim in other.dims if dim in "xy"])
        xr.testing.assert_allclose(one / scale, other / scale, rtol=1e-7, atol=1e-7)
    if "polyfit_covariance" in wanted:
        assert found.polyfit_covariance.dims == ("cov_i", "cov_j", "y", "x")


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("rcond", [0.3, 0.01, 1e-3, 1e-12])
def test_singular_values_below_rcond_count_as_zero_as_in_xarray(rcond, weighted):
    stack = images().fillna(11)[:, :, :2]
    y = stack.assign_coords(time=1 + np.arange(60) / 60)
    weights = 1 + np.arange(60.0) ** 2 if weighted else None
    with (
        pytest.warns(np.exceptions.RankWarning, match=r"[123] terms? of 4 can be told apart")
        if rcond > 1e-12
        else nullcontext()
    ):
        given = None if weights is None else xr.DataArray(weights, dims="time")
        found = labelled.polyfit(y, "time", 3, rcond=rcond, weights=given)
    with warnings.catch_warnings(record=True):
        w = None if weights is None else np.sqrt(weights)
        wanted = y.polyfit("time", 3, rcond=rcond, w=w)
    xr.testing.assert_allclose(
        found.polyfit_coefficients.drop_vars("area"), wanted.polyfit_coefficients, rtol=1e-9
    )


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("observations", [1, 3, 9])
def test_singular_values_are_those_of_xarray_with_weights_and_of_few_observations(
    observations, weighted
):
    times = 1.5 + np.arange(observations) ** 1.5
    y = xr.DataArray(np.ones((observations, 2)), {"time": times}, ("time", "pixel"))
    weights = 1.0 + np.arange(observations) if weighted else None
    given = None if weights is None else xr.DataArray(weights, dims="time")
    found = labelled.polyfit(y, "time", 4, full=True, weights=given)
    with warnings.catch_warnings(record=True):
        wanted = y.polyfit("time", 4, full=True, w=None if weights is None else np.sqrt(weights))
    for name in ("time_singular_values", "time_matrix_rank"):
        np.testing.assert_allclose(found[name], wanted[name], rtol=1e-9)


@pytest.mark.parametrize("kind", ["whole", "lazy", "weights of pixels", "weights of times"])
def test_unscaled_covariances_do_not_depend_on_the_numbers(kind):
    """Series of zeros, exact ones, and ones of three numbers have no noise to divide by."""
    y = xr.DataArray(np.zeros((9, 3)), {"time": np.arange(9.0)}, ("time", "pixel"))
    y[:, 1] = 1 + 2 * y.time + y.time**2
    y[3:, 2] = np.nan
    weights = {
        "weights of pixels": xr.DataArray([1.0, 2.0, 3.0], dims="pixel"),
        "weights of times": xr.DataArray(1 + np.arange(9.0), dims="time"),
    }.get(kind)
    given = y.chunk(pixel=2) if kind == "lazy" else y
    found = labelled.polyfit(given, "time", 2, cov="unscaled", weights=weights)
    found = found.polyfit_covariance.transpose("pixel", ...).values
    w = (xr.ones_like(y) * (1 if weights is None else weights)).transpose("time", "pixel").values
    for pixel, there in ((0, 9), (1, 9), (2, 3)):
        design = np.vander(np.arange(there), 3)
        wanted = np.linalg.inv(design.T @ (w[:there, pixel, None] * design))
        np.testing.assert_allclose(found[pixel], wanted, rtol=1e-9)


@pytest.mark.parametrize("kind", ["time last", "time between", "lazy", "one by one"])
def test_the_bits_of_a_polyfit_do_not_depend_on_how_the_numbers_lie(kind):
    rng = np.random.default_rng(0)
    y = xr.DataArray(rng.standard_normal((60, 20, 30)), dims=("time", "y", "x"))
    y = y.where(rng.random(y.shape) > 0.3)
    given = {
        "time last": [y.transpose("y", "x", "time")],
        "time between": [y.transpose("x", "time", "y")],
        "lazy": [y.transpose("y", "x", "time").chunk(y=11, x=13)],
        "one by one": [y[:, :, i : i + 1] for i in range(30)],
    }[kind]
    found = xr.concat([labelled.polyfit(part, "time", 3, cov=True) for part in given], "x")
    wanted = labelled.polyfit(y, "time", 3, cov=True)
    xr.testing.assert_equal(found.transpose(*wanted.dims), wanted.transpose(*wanted.dims))


@pytest.mark.parametrize("calendar", ["noleap", "360_day", "standard"])
def test_dates_of_any_calendar_count_as_in_xarray(calendar):
    pytest.importorskip("cftime")
    dates = xr.date_range("2001-01-30", periods=60, freq="ME", calendar=calendar, use_cftime=True)
    stack = images().fillna(11).assign_coords(time=dates)
    found, wanted = labelled.polyfit(stack, "time", 1), stack.polyfit("time", 1)
    one, other = (
        fit.polyfit_coefficients.drop_vars("area", errors="ignore") for fit in (found, wanted)
    )
    xr.testing.assert_allclose(one, other, rtol=1e-8)


def test_standard_errors_of_a_polyfit_are_those_of_the_observations_that_are_there():
    stack = images()
    fit = labelled.polyfit(stack, "time", 1, cov=True)
    one = stack[1, :, 2].dropna("time")
    wanted = one.polyfit("time", 1, cov=True).polyfit_covariance
    np.testing.assert_allclose(fit.polyfit_covariance.isel(y=1, x=2).values, wanted, rtol=1e-6)


@pytest.mark.parametrize("unit", ["s", "us", "ns"])
def test_durations_count_as_in_xarray(unit):
    after = np.arange(20).astype("m8[D]").astype(f"m8[{unit}]")
    y = xr.DataArray(np.random.default_rng(0).random(20), {"after": after}, "after")
    fit = labelled.polyfit(y, "after", 2).polyfit_coefficients
    np.testing.assert_allclose(fit, y.polyfit("after", 2).polyfit_coefficients, rtol=1e-9)


@pytest.mark.parametrize("dim", ["time", "month"])
def test_a_coordinate_that_is_no_dimension_is_a_variable_too(dim):
    stack = images().assign_coords(month=("time", np.arange(60.0) ** 1.1)).chunk(y=2)
    weights = xr.DataArray(np.linspace(1, 2, 60), dims="time")
    found = labelled.polyfit(stack, dim, 1, weights=weights, cov=True, full=True)
    named = stack.swap_dims(time=dim).drop_vars({"time", "month"} - {dim})
    wanted = labelled.polyfit(named, dim, 1, weights=weights.rename(time=dim), cov=True, full=True)
    xr.testing.assert_identical(found, wanted)
    theirs = stack.polyfit(dim, 1, w=weights**0.5).polyfit_coefficients
    xr.testing.assert_allclose(found.polyfit_coefficients.drop_vars("area"), theirs)


def test_a_dimension_is_not_that_of_equations_and_of_unknowns():
    a = xr.DataArray(np.eye(2), dims=("row", "col"))
    with pytest.raises(ValueError, match=r"dims=\('row', 'row'\) must be two different names"):
        labelled.solve(a, a.isel(col=0), dims=("row", "row"))


def test_a_list_is_the_name_of_no_variable():
    with pytest.raises(ValueError, match=r"y has no dimension \['time'\]: its dimensions are"):
        labelled.polyfit(images(), ["time"], 1)


def test_the_keyword_of_xarray_for_weights_is_refused():
    with pytest.raises(TypeError, match=r"polyfit\(\) has no keyword 'w'; .*weights=w\*\*2"):
        labelled.polyfit(images(), "time", 1, w=np.ones(60))


@pytest.mark.parametrize("unit", ["s", "ms", "us"])
def test_a_polynomial_of_times_beyond_those_of_nanoseconds(unit):
    years = np.arange("1000", "3000", dtype="M8[Y]").astype(f"M8[{unit}]")
    y = xr.DataArray((years - years[0]) / np.timedelta64(1, "D"), {"time": years}, ("time",))
    slope = labelled.polyfit(y, "time", 1).polyfit_coefficients.values[0]
    np.testing.assert_allclose(slope * 86_400e9, 1, rtol=1e-12)  # days a day


def test_a_coordinate_that_is_not_finite_is_named():
    stack = images().rename(time="t")
    t = stack.t.values.copy()
    t[3:5] = np.datetime64("NaT", "ns")
    with pytest.raises(ValueError, match=r"coordinate 't' is NaT at 3 and 1 more place: .*isel"):
        labelled.polyfit(stack.assign_coords(t=t), "t", 1)


def test_float32_is_fitted_in_float64_as_by_xarray():
    values = (1e3 + np.arange(200.0)[:, None] * [1e-3, 1, 2]).astype("f4")
    y = xr.DataArray(values, {"t": np.arange(200.0)}, ("t", "pixel"))
    found = labelled.polyfit(y, "t", 2).polyfit_coefficients
    assert found.dtype == np.float64
    wanted = y.polyfit("t", 2).polyfit_coefficients
    np.testing.assert_allclose(found, wanted, rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize("option", [{"cov": "foo"}, {"cov": 1}, {"full": "no"}, {"skipna": "no"}])
def test_what_is_no_option_of_a_polyfit_is_refused(option):
    with pytest.raises((TypeError, ValueError), match=r"cov=.*unscaled|='no' must be True or"):
        labelled.polyfit(images(), "time", 1, **option)


def test_a_flag_of_numpy_is_one_of_python():
    given, same = (labelled.polyfit(images(), "time", 1, cov=yes) for yes in (np.True_, True))
    xr.testing.assert_identical(given, same)


def test_a_polynomial_in_tiny_units_warns_of_nothing():
    y = xr.DataArray(np.arange(20.0), {"t": np.linspace(0, 1e-310, 20)}, ("t",))
    assert labelled.polyfit(y, "t", 1).polyfit_coefficients.shape == (2,)


def test_a_name_of_a_polyfit_is_refused_before_it_is_fitted_and_dates_are_no_series():
    stack = images()
    with pytest.raises(ValueError, match="y has a coordinate 'time_matrix_rank', as a part"):
        labelled.polyfit(stack.assign_coords(time_matrix_rank=2), "time", 1)
    with pytest.raises(TypeError, match="dtype datetime64"):
        labelled.polyfit(stack.time.drop_vars("time"), "time", 1)


def test_a_polynomial_of_words_is_refused():
    stack = images()[:2].rename(time="t").isel(t=slice(3)).assign_coords(t=list("abc"))
    with pytest.raises(TypeError, match=r"'t' has dtype <U1.*assign_coords"):
        labelled.polyfit(stack, "t", 1)


UNFIT = {
    "not labelled": (lambda y, x: (y.values, x), TypeError, "y is ndarray"),
    "no time": (lambda y, x: (y.rename(time="t"), x), ValueError, "y has no dimension 'time'"),
    "other times": (lambda y, x: (y, x.assign_coords(time=np.arange(60))), ValueError, "time"),
    "three": (lambda y, x: (y, x.expand_dims("k")), ValueError, "design must have the dimensions"),
}


@pytest.mark.parametrize(("change", "error", "text"), UNFIT.values(), ids=UNFIT)
def test_a_regression_that_makes_no_sense_is_refused(change, error, text):
    stack = images()
    with pytest.raises(error, match=text):
        labelled.regress(*change(stack, trend(stack)))


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize(
    ("coordinate", "deg"),
    [
        pytest.param(np.arange("2000", "2020", dtype="M8[M]").astype("M8[ns]"), 3, id="times"),
        pytest.param(2000 + np.arange(240) / 12, 2, id="decimal years"),
        pytest.param(2000 + np.arange(240) / 12, 4, id="decimal years to the fourth"),
    ],
)
def test_polyfit_of_coordinates_far_from_zero_fits_as_well_as_near_it(dtype, coordinate, deg):
    values = np.random.default_rng(0).standard_normal((240, 2)).astype(dtype)
    y = xr.DataArray(values, {"t": coordinate}, ("t", "pixel"))
    fit = labelled.polyfit(y, "t", deg, cov=True)
    near = np.arange(240.0)
    expected = np.stack(
        [np.polynomial.Polynomial.fit(near, v, deg)(near) for v in values.T.astype(float)], axis=1
    )
    found = xr.polyval(y["t"], fit["polyfit_coefficients"]).transpose("t", "pixel")
    if coordinate.dtype.kind == "M":  # months are not equally long
        expected = xr.polyval(y["t"], y.astype(float).polyfit("t", deg).polyfit_coefficients)
    np.testing.assert_allclose(found, expected, atol=3e-5 if dtype == "f4" else 1e-5)
    assert found.dtype == np.float64
    assert (np.diagonal(fit["polyfit_covariance"]) > 0).all()


def test_polyfit_along_a_dimension_whose_name_is_a_number():
    y = xr.DataArray(np.random.default_rng(0).standard_normal((5, 5)), dims=(0, 1))
    found, wanted = labelled.polyfit(y, 0, 1), y.polyfit(0, 1)
    xr.testing.assert_allclose(found.polyfit_coefficients, wanted.polyfit_coefficients)


@pytest.mark.parametrize("deg", [-1, 1.5, True, "1"])
def test_polyfit_refuses_what_is_no_degree(deg):
    y = xr.DataArray(np.ones(5), {"t": np.arange(5)}, ("t",))
    with pytest.raises(ValueError, match=f"deg={deg!r} must be a degree"):
        labelled.polyfit(y, "t", deg)
