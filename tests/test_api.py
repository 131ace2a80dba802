"""The one door: what it promises to a reader of its documentation."""

import inspect
from dataclasses import fields

import dask.array as da
import numpy as np
import pytest
from families import same_bits

import dasksolve
from dasksolve import cli, labelled
from dasksolve.batch.options import Options


def test_policy_is_given_by_name_and_arrays_by_place():
    kinds = {p.name: p.kind for p in inspect.signature(dasksolve.solve).parameters.values()}
    by_name = inspect.Parameter.KEYWORD_ONLY
    assert [name for name, kind in kinds.items() if kind is not by_name] == ["a", "b"]


DOORS = {
    "solve": dasksolve.solve,
    "solve_ex": dasksolve.solve_ex,
    "solve_tridiagonal": dasksolve.solve_tridiagonal,
    "inv": dasksolve.inv,
    "factor": dasksolve.factor,
    "solve_zarr": dasksolve.solve_zarr,
    "labelled.solve": labelled.solve,
    "labelled.solve_ex": labelled.solve_ex,
}
EVERY = {field.name: field.default for field in fields(Options)}


@pytest.mark.parametrize("door", DOORS)
def test_every_door_has_the_defaults_of_the_options(door):
    # What exists to look at systems that fail does not raise for the first of them.
    own = {"on_singular": "nan"} if "_ex" in door or "zarr" in door else {}
    parameters = inspect.signature(DOORS[door]).parameters
    given = {name: p.default for name, p in parameters.items() if name in EVERY}
    if door == "solve_tridiagonal":  # a diagonal there
        del given["lower"]
    assert given == {name: (EVERY | own)[name] for name in given}
    assert all(parameters[name].kind is inspect.Parameter.KEYWORD_ONLY for name in given)


@pytest.mark.parametrize(
    ("door", "without"),
    [
        ("solve", {"diagnostics", "refine"}),
        ("solve_ex", {"diagnostics"}),
        ("solve_zarr", set()),
        ("labelled.solve", {"diagnostics", "refine"}),
        ("labelled.solve_ex", {"diagnostics"}),
    ],
)
def test_every_door_takes_all_options(door, without):
    assert set(EVERY) - set(inspect.signature(DOORS[door]).parameters) == without


def test_the_command_line_takes_all_options():
    words = vars(cli.parser().parse_args(["solve", "a", "b", "out"]))
    assert {name: words[name] for name in EVERY} == EVERY | {"on_singular": "nan"}


@pytest.mark.parametrize("kind", ["NumPy", "dask"])
@pytest.mark.parametrize("m", [1, 3, 5])
@pytest.mark.parametrize("dtype", [pytest.param("f4", marks=pytest.mark.slow), "f8", "c16", "i8"])
def test_inverses(m, dtype, kind):
    rng = np.random.default_rng(0)
    a = (4 * rng.standard_normal((m, 3, 3)) + 12 * np.eye(3)).astype(dtype)
    found = dasksolve.inv(a if kind == "NumPy" else da.from_array(a, chunks=(2, 3, 3)))
    assert isinstance(found, np.ndarray) == (kind == "NumPy")
    found = np.asarray(found)
    eps = np.finfo(found.dtype).eps
    assert np.abs(found @ a - np.eye(3)).max() < 100 * eps
    assert same_bits(found[-1], dasksolve.solve(a[-1], np.eye(3, dtype=found.dtype)))
    assert same_bits(found[-1], dasksolve.inv(a[-1]))


@pytest.mark.parametrize("shape", [(0, 0), (3, 0, 0), (0, 3, 3), (2, 0, 3, 3), (9, 1, 1)])
def test_inverses_of_nothing_and_of_numbers(shape):
    assert same_bits(dasksolve.inv(np.full(shape, 2.0)), np.full(shape, 0.5))


def test_inverses_of_a_structure_and_of_singular_matrices():
    a = np.stack([np.diag([2.0, 4.0]), np.diag([1.0, 0.0])])
    a[:, 1, 0] = np.nan
    found = dasksolve.inv(a, assume_a="sym", on_singular="lstsq")
    assert np.allclose(found, [[[0.5, 0], [0, 0.25]], [[1, 0], [0, 0]]], rtol=0, atol=1e-15)
    with pytest.raises(dasksolve.SingularSystemError, match="flat index 1"):
        dasksolve.inv(a, assume_a="sym")
    with pytest.raises(np.linalg.LinAlgError, match=r"a must be square.*\(2, 3\)"):
        dasksolve.inv(np.ones((2, 3)))
    with pytest.raises(TypeError, match="a has dtype float16"):
        dasksolve.inv(np.eye(2, dtype="f2"))


@pytest.mark.slow
def test_numbers_at_the_ends_of_their_range_raise_nothing_where_numpy_is_told_to_raise():
    tiny, wide = np.float32(1e-30), np.array([[1.0, 1e-200], [1.0, 1e-200], [1.0, 3e-200]])
    a = np.array([[1.0, tiny], [1.0, tiny], [1.0, tiny]], np.float32)
    with np.errstate(all="raise"):
        series = dasksolve.regress(np.array([[tiny], [tiny], [tiny]]), wide, ridge=[0, 1e-320])
        one = dasksolve.regress(np.full((1, 3), tiny), [[1.0]], on_deficient="lstsq")
        found = dasksolve.lstsq_ex(a[None], tiny * a[None, :, 0], on_deficient="lstsq")
        x = dasksolve.solve(a[None, :2], a[None, :2, 1], on_singular="lstsq")
        dasksolve.factor(np.diag([1e-200, 1.0])[None]).slogdet()
        sign, log = dasksolve.factor(np.diag([1e-200 + 1j, 1.0])[None]).slogdet()
    np.testing.assert_allclose(series.coef[0], tiny, rtol=1e-5)
    np.testing.assert_array_equal(one.coef, np.full((1, 3), tiny))
    assert found.status == dasksolve.Status.RANK_DEFICIENT
    np.testing.assert_allclose(found.x[0], [tiny, 0], atol=1e-37)
    np.testing.assert_allclose(x[0], [tiny, 0], atol=1e-37)
    np.testing.assert_allclose([sign[0], log[0]], [1j, 0], atol=1e-15)
