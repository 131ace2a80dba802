"""The expert driver: status, condition and backward error of every system."""

import dask
import dask.array as da
import numpy as np
import pytest
from dask.callbacks import Callback
from families import SOME_DTYPES, grid, same_bits, systems

import dasksolve
from dasksolve import SingularSystemError, Status, kernels

GRID = grid(5, 12, 130, slow=(1, 2, 8, 40), complex_up_to=12)  # of each kernel


def true_rcond(a):
    return 1 / np.linalg.cond(a.astype(np.result_type(a, np.float64)), 1)


def true_backward_error(a, b, x):
    long = np.clongdouble if x.dtype.kind == "c" else np.longdouble
    a, b, x = a.astype(long), b.astype(long), x.astype(long)

    def norm(v):
        return np.abs(v).max(axis=-2)

    rest = norm(np.einsum("mij,mjk->mik", a, x) - b)
    return (rest / (np.abs(a).sum(-1).max(-1)[:, None] * norm(x) + norm(b))).max(axis=-1)


@pytest.mark.parametrize(("n", "dtype"), GRID)
def test_diagnostics_are_true_and_x_has_the_bits_of_solve(n, dtype):
    a, b = systems(n, 20 if n > 100 else 300, dtype=dtype, k=3)
    s = dasksolve.solve_ex(a, b)
    eps = np.finfo(dtype).eps
    assert s.x.tobytes() == dasksolve.solve(a, b).tobytes()
    assert (s.status.dtype, s.rcond.dtype, s.backward_error.dtype) == (np.int8, float, float)
    assert not s.status.any()
    ratio = s.rcond / true_rcond(a)
    assert ratio.min() > 1 - 1e4 * n * eps  # the inverse's norm is never overestimated
    assert ratio.max() < (10 if n > 8 else 1 + 1e4 * n * eps)
    error = true_backward_error(a, b, s.x)
    np.testing.assert_allclose(s.backward_error, error, rtol=1e-3, atol=4 * eps)


def graded(rng, systems, n):
    rows, columns = 10.0 ** rng.uniform(-1.5, 1.5, (2, systems, n))
    return rng.standard_normal((systems, n, n)) * rows[:, :, None] * columns[:, None, :]


FAMILIES = {
    "random": lambda rng, systems, n: rng.standard_normal((systems, n, n)),
    "uniform": lambda rng, systems, n: rng.random((systems, n, n)),
    "graded": graded,
    "graded rows": lambda rng, systems, n: graded(rng, systems, 1) * rng.random((systems, n, n)),
}


@pytest.mark.parametrize("dtype", SOME_DTYPES)
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("n", [5, pytest.param(12, marks=pytest.mark.slow)])
def test_rcond_is_within_a_factor_of_ten_on_a_hundred_thousand(n, family, dtype):
    systems = 100_000 // len(FAMILIES)
    a = FAMILIES[family](np.random.default_rng(1), systems, n).astype(dtype)
    if dtype.kind == "c":
        a = a + 1j * FAMILIES[family](np.random.default_rng(2), systems, n).astype(a.real.dtype)
    rcond, true = dasksolve.solve_ex(a, np.ones(n, dtype)).rcond, true_rcond(a)
    known = true > 100 * n * np.finfo(dtype).eps
    assert known.sum() > 20
    ratio = rcond[known] / true[known]
    assert 0.9 < ratio.min() <= ratio.max() < 10


@pytest.mark.parametrize(("n", "dtype"), grid(3, 12, 40, complex_up_to=3))
@pytest.mark.parametrize("exponent", [-0.9, -0.5, 0.5, 0.9])
def test_diagnostics_at_the_ends_of_the_range(exponent, n, dtype):
    a, b = systems(n, 5, dtype=dtype, k=1)
    scale = dtype.type(2.0 ** int(exponent * np.finfo(dtype).maxexp))
    s, far = dasksolve.solve_ex(a, b), dasksolve.solve_ex(a * scale, b * scale)
    np.testing.assert_allclose(far.rcond, s.rcond, rtol=1e-3)
    np.testing.assert_allclose(
        far.backward_error, s.backward_error, rtol=1e-3, atol=4 * np.finfo(dtype).eps
    )
    assert np.array_equal(far.status, s.status)


@pytest.mark.parametrize("exponent", [-0.6, 0.6])
@pytest.mark.parametrize("n", [3, *(pytest.param(n, marks=pytest.mark.slow) for n in (12, 40))])
@pytest.mark.parametrize("char", [*"dF", *(pytest.param(c, marks=pytest.mark.slow) for c in "fD")])
def test_the_backward_error_where_the_matrix_alone_is_out_of_range(char, n, exponent):
    dtype = np.dtype(char)
    a, b = systems(n, 5, dtype=dtype, k=2)
    a[:, 1] = a[:, 0] + a[:, 1] / 1000  # then ‖A‖ ‖x‖, of which A has a part, is most of all
    scale = dtype.type(2.0 ** int(exponent * np.finfo(dtype).maxexp))
    s, far = dasksolve.solve_ex(a, b), dasksolve.solve_ex(a * scale, b)
    np.testing.assert_array_equal(far.x * scale, s.x)
    np.testing.assert_allclose(
        far.backward_error, s.backward_error, rtol=1e-3, atol=4 * np.finfo(dtype).eps
    )


def troubled(n=5):
    """Trouble of every kind at known places."""
    a, b = systems(n, 120)
    a[7] = 0
    a[20, :, 1] = a[20, :, 0]  # not singular to the last bit, most often
    a[20] = np.triu(a[20])
    a[20, 1, 1] = 0
    a[33, -1, 0] = np.nan
    b[60, 2] = np.inf
    a[61] = np.diag([1.0] * (n - 1) + [1e-18])
    b[62] = 0
    a[119] = np.diag([1.0] * (n - 1) + [5e-324])
    status = np.zeros(len(a), np.int8)
    status[[7, 20]] = Status.SINGULAR
    status[[33, 60, 119]] = Status.NONFINITE
    status[61] = Status.ILL_CONDITIONED
    return a, b, status


def test_every_trouble_is_named_where_it_is():
    a, b, status = troubled()
    s = dasksolve.solve_ex(a, b)
    assert np.array_equal(s.status, status)
    assert np.array_equal(np.isnan(s.x).all(axis=-1), np.isin(status, (1, 3)))
    assert np.array_equal(s.rcond == 0, status == Status.SINGULAR)
    assert np.array_equal(np.isnan(s.rcond), status == Status.NONFINITE)
    assert np.array_equal(np.isnan(s.backward_error), np.isnan(s.x).any(axis=-1))
    assert s.rcond[61] == pytest.approx(1e-18)
    assert s.backward_error[62] == 0


@pytest.mark.parametrize("order", ["same", "reversed"])
def test_threads_and_dask_give_the_bits_of_numpy(order):
    a, b, _ = troubled()
    if order == "reversed":
        a, b = a[::-1], b[::-1]
    expected = dasksolve.solve_ex(a, b)
    lazy = dasksolve.solve_ex(
        da.from_array(a, chunks=(17, -1, -1)), da.from_array(b, chunks=(17, -1))
    )
    assert [part.chunks[0] for part in lazy] == [(17,) * 7 + (1,)] * 4
    for found in (dasksolve.solve_ex(a, b, workers=2), dask.compute(*lazy)):
        for name, one, two in zip(expected._fields, found, expected, strict=True):
            assert one.tobytes() == np.ascontiguousarray(two).tobytes(), name


@pytest.mark.parametrize("rcond", [None, 0.05])
@pytest.mark.parametrize("assume_a", ["gen", "upper triangular"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_what_is_said_of_a_system_does_not_depend_on_the_chunks_of_its_columns(
    dtype, assume_a, rcond
):
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal((40, 3, k)).astype(dtype) for k in (3, 12))
    b[:20, 0, :3] = np.nan
    b[20:30, 0, 4] = np.finfo(dtype).max
    b[35:, :, 7] = np.finfo(dtype).smallest_subnormal
    how = {"assume_a": assume_a, "rcond": rcond}
    expected = dasksolve.solve_ex(a, b, **how)
    assert not np.isnan(expected.rcond).any()  # each has a finite column
    assert (expected.rcond < 0.05).any()
    lazy = dasksolve.solve_ex(a, da.from_array(b, chunks=(40, 3, 3)), **how)
    assert lazy.x.numblocks == (1, 1, 4)
    for name, one, two in zip(expected._fields, dask.compute(*lazy), expected, strict=True):
        assert same_bits(one, two), name


def test_a_column_that_is_not_finite_has_no_other_kernel_compiled(monkeypatch):
    picked, pick = [], kernels.pick
    monkeypatch.setattr(kernels, "pick", lambda *which: picked.append(which) or pick(*which))
    a, b = np.random.default_rng(0).standard_normal((2, 40, 3, 3))
    b[5, :, 1] = np.nan
    assert np.isfinite(dasksolve.solve_ex(a, b).rcond).all()
    assert {k for _, _, k, *_ in picked} == {3}


def test_no_column_beside_a_matrix_that_is_out_of_range():
    a = np.stack([np.eye(20), np.eye(20) * 1e-310, np.eye(20) * 1e308])
    s = dasksolve.solve_ex(a, np.ones((3, 20, 0)))
    assert s.x.shape == (3, 20, 0)
    assert s.status.tolist() == [Status.OK] * 3
    assert s.rcond.tolist() == [1, 1, 1]
    assert s.backward_error.tolist() == [0, 0, 0]


def test_one_dask_task_a_chunk_solves():
    a, b, _ = troubled()
    lazy = dasksolve.solve_ex(da.from_array(a, chunks=(30, -1, -1)), b)
    solved = []
    with Callback(posttask=lambda key, *_: solved.append(str(key).startswith("('solve_ex-"))):
        dask.compute(*lazy)
    assert sum(solved) == 4


def test_a_least_squares_solution_has_a_backward_error():
    a, b, status = troubled()
    s = dasksolve.solve_ex(a, b, on_singular="lstsq")
    for i in np.flatnonzero(status == Status.SINGULAR):
        expected, *_ = np.linalg.lstsq(a[i], b[i], rcond=None)
        np.testing.assert_allclose(s.x[i], expected, atol=1e-14)
        error = true_backward_error(a[[i]], b[[i], :, None], s.x[[i], :, None])
        assert s.backward_error[i] == pytest.approx(error[0], rel=1e-3)
        assert s.rcond[i] == 0
    same = ~np.isin(status, Status.SINGULAR)
    assert s.x[same].tobytes() == dasksolve.solve(a, b, on_singular="nan")[same].tobytes()


def test_raising_names_the_singular_systems():
    a, b, _ = troubled()
    with pytest.raises(SingularSystemError) as caught:
        dasksolve.solve_ex(a, b, on_singular="raise")
    assert caught.value.indices.tolist() == [7, 20]
    with pytest.raises(SingularSystemError) as caught:
        dask.compute(
            *dasksolve.solve_ex(da.from_array(a, chunks=(15, -1, -1)), b, on_singular="raise")
        )
    assert caught.value.indices.tolist() in ([7], [20])


@pytest.mark.parametrize(
    "shapes", [((0, 3, 3), (0, 3)), ((4, 0, 0), (4, 0)), ((4, 2, 2), (4, 2, 0))]
)
def test_nothing_to_solve(shapes):
    a, b = np.broadcast_to(np.eye(shapes[0][-1]), shapes[0]), np.zeros(shapes[1])
    s = dasksolve.solve_ex(a, b)
    assert s.x.shape == b.shape
    assert s.rcond.tolist() == [1.0] * len(a)
    assert s.backward_error.tolist() == [0.0] * len(a)


def test_one_system_alone():
    s = dasksolve.solve_ex(2 * np.eye(2), [2.0, 4.0])
    assert (s.x.tolist(), s.status[()], s.rcond[()], s.backward_error[()]) == ([1, 2], 0, 1, 0)


@pytest.mark.parametrize("lower", [False, True])
def test_a_structure_is_diagnosed_from_the_triangle_that_is_meant(lower):
    a, b, _ = troubled()
    a = a @ a.swapaxes(-1, -2) + 0.1 * np.eye(5)
    a[61] = np.diag([1.0] * 4 + [1e-18])
    a[70] = -np.eye(5)
    garbage = np.where(np.tri(5, k=-1, dtype=bool).T if lower else np.tri(5, k=-1), np.nan, a)
    s = dasksolve.solve_ex(garbage, b, assume_a="pos", lower=lower)
    general = dasksolve.solve_ex(a, b)
    assert (
        s.x.tobytes()
        == dasksolve.solve(garbage, b, assume_a="pos", lower=lower, on_singular="nan").tobytes()
    )
    fine = np.isin(general.status, (Status.OK, Status.ILL_CONDITIONED))
    fine[[62, 70]] = False
    assert s.status[70] == Status.NOT_POSITIVE_DEFINITE
    assert np.array_equal(s.status[fine], general.status[fine])
    np.testing.assert_allclose(s.rcond[fine], general.rcond[fine], rtol=1e-6)
    assert (s.rcond[70], s.status[61]) == (0, Status.ILL_CONDITIONED)
    error = true_backward_error(a[fine], b[fine][..., None], s.x[fine][..., None])
    np.testing.assert_allclose(s.backward_error[fine], error, atol=1e-15)


@pytest.mark.parametrize("n", [3, 12, 40])
@pytest.mark.parametrize("systems", [1, 30])
def test_a_pivot_whose_reciprocal_overflows_is_solved_scaled_by_any_kernel(n, systems):
    for pivot in (5e-324, 6e-309):
        a = np.stack([np.eye(n) * pivot] * systems)
        s = dasksolve.solve_ex(a, np.full((systems, n), pivot))
        assert (s.status == Status.OK).all()
        assert (s.x == 1).all()
        np.testing.assert_allclose(s.rcond, 1)


@pytest.mark.parametrize("options", [{}, {"refine": True}, {"rcond": 1e-10}], ids=str)
def test_one_matrix_with_a_column_that_is_not_finite(options):
    b = np.array([[1, np.nan], [1, 2.0]])
    s = dasksolve.solve_ex(np.eye(2), b, **options)
    np.testing.assert_array_equal(s.x, [[1, np.nan], [1, np.nan]])
    assert (s.status, s.rcond, s.backward_error) == (Status.NONFINITE, 1, 0)
