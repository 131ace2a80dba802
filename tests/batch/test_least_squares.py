"""Least squares with a matrix for each system: against LAPACK, with gaps and weights."""

import re

import dask.array as da
import mpmath
import numpy as np
import pytest
from families import DTYPES, numbers

import dasksolve
from dasksolve import Status

SHAPES = [(30, 3), (12, 8), (7, 7), (40, 20), (1, 1)]


def problems(rows, n, dtype=np.float64, count=21, k=None):
    rng = np.random.default_rng([rows, n])
    a = numbers(rng, dtype, count, rows, n)
    b = numbers(rng, dtype, *((count, rows) if k is None else (count, rows, k)))
    return a, b


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("rows", "n"), SHAPES)
@pytest.mark.parametrize("k", [None, 3])
def test_answers_are_those_of_lapack(rows, n, k, dtype):
    a, b = problems(rows, n, dtype, k=k)
    found = dasksolve.lstsq_ex(a, b)
    assert found.x.dtype == dtype
    assert (set(found.status), set(found.rank), set(found.count)) == ({0}, {n}, {rows})
    for m in range(len(a)):
        wanted, _, _, values = np.linalg.lstsq(a[m], b[m], rcond=None)
        size = abs(wanted).max() * values[0] / values[-1] * np.finfo(dtype).eps
        assert abs(found.x[m] - wanted).max() <= 20 * size
        rss = (abs(b[m] - a[m] @ wanted) ** 2).sum(axis=0)
        tolerance = 300 * np.finfo(dtype).eps
        np.testing.assert_allclose(found.rss[m], rss, rtol=tolerance, atol=tolerance)


def test_hard_matrices_are_solved_as_well_as_by_lapack():
    # Láuchli's, for which normal equations fail, and powers of decimal years.
    small = np.concatenate([np.ones((1, 3)), 1e-9 * np.eye(3)])
    powers = (2001 + np.arange(24) / 12)[:, None] ** np.arange(3)
    for a in (small, powers):
        b = np.random.default_rng(0).standard_normal(len(a))
        x = dasksolve.lstsq(a, b)
        with mpmath.workdps(60):
            rows = mpmath.matrix(a.tolist())
            exact = rows * mpmath.qr_solve(rows, mpmath.matrix(b.tolist()))[0]
            ours, theirs = (
                max(map(abs, rows * mpmath.matrix(coef.tolist()) - exact))
                for coef in (x, np.linalg.lstsq(a, b, rcond=None)[0])
            )
        assert ours <= 10 * theirs + 1e-14


@pytest.mark.parametrize("dtype", [np.float32, np.complex128])
def test_rows_with_nan_or_without_weight_are_left_out(dtype):
    a, b = problems(20, 3, dtype)
    rng = np.random.default_rng(0)
    gone = rng.random((21, 20)) < 0.3
    weights = rng.uniform(0.5, 2, (21, 20))
    wanted = dasksolve.lstsq_ex(a, b, weights=np.where(gone, 0, weights))
    np.testing.assert_array_equal(wanted.count, (~gone).sum(axis=1))
    in_b, in_a = b.copy(), a.copy()
    in_b[gone], in_a[gone, 1] = np.nan, np.nan
    for left, right in ((a, in_b), (in_a, b)):
        found = dasksolve.lstsq_ex(left, right, weights=weights)
        for name, one, other in zip(found._fields, found, wanted, strict=True):
            np.testing.assert_array_equal(one, other, err_msg=name)
    for m in range(21):
        root = np.sqrt(weights[m, ~gone[m]])
        x = np.linalg.lstsq(a[m, ~gone[m]] * root[:, None], b[m, ~gone[m]] * root, rcond=None)[0]
        np.testing.assert_allclose(wanted.x[m], x, atol=100 * np.finfo(dtype).eps)


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("shape", [(20,), (21, 20)])
def test_rows_whose_weights_are_masked_are_left_out(shape, lazy):
    a, b = problems(20, 3, np.float64)
    weights = np.random.default_rng(0).uniform(0.5, 2, shape)
    masked = np.ma.MaskedArray(weights, weights < 0.8)
    wanted = dasksolve.lstsq_ex(a, b, weights=masked.filled(0))
    assert wanted.count.max() < 20
    found = dasksolve.lstsq_ex(a, b, weights=da.from_array(masked) if lazy else masked)
    for name, one, other in zip(found._fields, found, wanted, strict=True):
        np.testing.assert_array_equal(one, other, err_msg=name)


@pytest.mark.parametrize("weight", [-1, np.inf])
def test_a_weight_that_is_none_is_a_matter_of_its_own_system(weight):
    a, b = problems(20, 3, np.float64)
    weights = np.ones((21, 20))
    weights[7, 3] = weight
    status = dasksolve.lstsq_ex(a, b, weights=da.from_array(weights)).status.compute()
    assert list(np.flatnonzero(status == Status.NONFINITE)) == [7]


@pytest.mark.parametrize("on_deficient", ["nan", "lstsq"])
def test_each_status_at_its_place(on_deficient):
    a, b = problems(9, 3, count=40)
    a[3, :, 2] = 2 * a[3, :, 0]
    a[4] = 0
    a[5, 2:] = np.nan
    a[6, 0, 0], b[7, 1] = np.inf, -np.inf
    a[8], b[9] = a[8] * 1e200, b[9] * 1e-250
    a[10, :, 1] *= 1e-300
    b[11] = np.nan
    found = dasksolve.lstsq_ex(a, b, on_deficient=on_deficient)
    wanted = np.zeros(40, int)
    wanted[[3, 4, 5, 11]], wanted[[6, 7]] = Status.RANK_DEFICIENT, Status.NONFINITE
    np.testing.assert_array_equal(found.status, wanted)
    assert found.rank[[3, 4, 5, 11]].tolist() == [2, 0, 2, 0]
    shown = wanted == Status.NONFINITE if on_deficient == "lstsq" else wanted > 0
    np.testing.assert_array_equal(np.isnan(found.x).any(axis=1), shown)
    scales = np.ones((40, 3))
    scales[8], scales[9], scales[10, 1] = 1e-200, 1e-250, 1e300
    for m in (0, 8, 9, 10):
        plain = problems(9, 3, count=40)
        x = np.linalg.lstsq(plain[0][m], plain[1][m], rcond=None)[0]
        np.testing.assert_allclose(found.x[m] / scales[m], x, rtol=1e-12)
    if on_deficient == "lstsq":
        np.testing.assert_allclose(found.x[3], np.linalg.lstsq(a[3], b[3], rcond=None)[0])
        np.testing.assert_allclose(found.x[5], np.linalg.lstsq(a[5, :2], b[5, :2], rcond=None)[0])


BIG = np.finfo(float).max / 2
EXTREME = {
    "x overflows": (np.full((3, 1), 1e-200), np.full(3, 1e200), None, Status.NONFINITE),
    "x of float32 does": (
        np.full((3, 1), 1e-30, np.float32),
        np.full(3, 1e30, np.float32),
        None,
        Status.NONFINITE,
    ),
    "x of complex128 does": (np.full((3, 1), 1e-200j), np.full(3, 1e200), None, Status.NONFINITE),
    "Inf and -Inf in a": ([[np.inf, -np.inf], [1, 2], [3, 5]], np.ones(3), None, Status.NONFINITE),
    "in a and b": ([[np.inf], [1], [1]], [-np.inf, 1, 1], None, Status.NONFINITE),
    "in a of complex128": (
        [[complex(np.inf, -np.inf)], [1], [1]],
        np.ones(3),
        None,
        Status.NONFINITE,
    ),
    "rows overflow": ([[BIG, BIG], [BIG, -BIG], [BIG, BIG / 8]], [BIG, 1, 1], None, Status.OK),
    "as do deficient ones": (np.full((3, 2), BIG), np.full(3, BIG), None, Status.RANK_DEFICIENT),
    "and with weights": (
        np.full((3, 2), 1e200),
        np.ones(3),
        np.full(3, 1e300),
        Status.RANK_DEFICIENT,
    ),
    "those of complex128": (
        np.full((3, 2), BIG * 1j),
        np.full(3, BIG),
        None,
        Status.RANK_DEFICIENT,
    ),
    "x of deficient ones does": (
        np.full((3, 2), 1e-200),
        np.full(3, 1e200),
        None,
        (Status.RANK_DEFICIENT, Status.NONFINITE),
    ),
}


@pytest.mark.parametrize(("a", "b", "weights", "status"), EXTREME.values(), ids=EXTREME)
@pytest.mark.parametrize("on_deficient", ["nan", "lstsq"])
@pytest.mark.parametrize("lazy", [False, True])
def test_extreme_numbers_are_a_matter_of_their_own_system(
    a, b, weights, status, on_deficient, lazy
):
    a, b = np.array(a), np.array(b)
    batch = np.random.default_rng(0).standard_normal((3, *a.shape)).astype(a.dtype)
    batch[1] = a
    right = np.stack([np.ones_like(b), b, np.ones_like(b)])
    given = da.from_array(batch) if lazy else batch
    found = dasksolve.lstsq_ex(given, right, weights=weights, on_deficient=on_deficient)
    found = type(found)._make(map(np.asarray, found))
    wanted = status[on_deficient == "lstsq"] if isinstance(status, tuple) else status
    assert found.status.tolist() == [Status.OK, wanted, Status.OK]
    assert np.isfinite(found.x[[0, 2]]).all()
    solved = wanted == Status.OK or (wanted == Status.RANK_DEFICIENT and on_deficient == "lstsq")
    assert np.isnan(found.x[1]).all() != solved
    assert np.isnan(found.rss[1]) == (not solved)
    assert np.isnan(found.rcond[1]) == (wanted == Status.NONFINITE)
    if solved:
        scale_a, scale_b = abs(a).max(), abs(b).max()
        x = np.linalg.lstsq(a / scale_a, b / scale_b, rcond=None)[0] / (scale_a / scale_b)
        np.testing.assert_allclose(found.x[1], x, rtol=1e-13)


@pytest.mark.parametrize(("of_a", "of_b"), [(-0.4, -0.9), (0.2, -0.95), (-0.9, -0.9)])
@pytest.mark.parametrize("char", "fdFD")
def test_products_of_a_and_b_that_underflow_count(char, of_a, of_b):
    a, b = problems(9, 3, count=40, k=2)
    a, b = (v.astype(char) for v in (a, b))
    b[5], b[6, :, 1] = 0, 0
    scale_a, scale_b = (2.0 ** int(e * np.finfo(char).maxexp) for e in (of_a, of_b))
    far = b * np.array([scale_b, 1]).astype(char)  # each column has a scale of its own
    found, plain = dasksolve.lstsq_ex(a * a.dtype.type(scale_a), far), dasksolve.lstsq_ex(a, b)
    assert not found.status.any()
    ratio = np.array([scale_b / scale_a, 1 / scale_a])
    np.testing.assert_array_equal(found.x, (plain.x * ratio).astype(char))


def test_b_that_no_column_of_a_has_a_part_of_is_no_smaller_for_that():
    a = np.array([[[1.0], [-1.0]]] * 3) * [[[1]], [[2.0**-300]], [[2.0**-600]]]
    found = dasksolve.lstsq_ex(a, np.full((3, 2), 2.0**-830))
    assert found.status.tolist() == [Status.OK] * 3
    assert not found.x.any()


def test_nothing_times_a_power_that_overflows_is_nothing():
    found = dasksolve.lstsq_ex(np.diag([1e-310, 1]), [0, 1e308])
    np.testing.assert_array_equal(found.x, [0, 1e308])
    found = dasksolve.lstsq_ex([[1e300]], [1e300], weights=[1e300])
    assert (found.x.item(), found.rss, found.status) == (1, 0, Status.OK)


@pytest.mark.slow
@pytest.mark.parametrize("power", [-400, 350])
@pytest.mark.parametrize("lazy", [False, True])
def test_weights_beyond_single_precision_count(power, lazy):
    a, b = problems(12, 3, np.float32)
    weights = np.random.default_rng(0).uniform(0.5, 2, (21, 12))
    weights[:, 4] = 0
    wanted = dasksolve.lstsq_ex(a, b, weights=weights)
    weights[7] *= 2.0**power
    found = dasksolve.lstsq_ex(da.from_array(a) if lazy else a, b, weights=weights)
    rss = wanted.rss.copy()
    rss[7] = np.inf if power > 0 else 0
    for name, one, other in zip(found._fields, found, wanted._replace(rss=rss), strict=True):
        np.testing.assert_array_equal(one, other, err_msg=name)
    shared = dasksolve.lstsq_ex(a, b, weights=weights[7])
    np.testing.assert_array_equal(shared.x[7], wanted.x[7])
    assert set(shared.count) == {11}


@pytest.mark.parametrize("dtype", [np.float32, np.complex64])
@pytest.mark.parametrize("on_deficient", ["nan", "lstsq"])
@pytest.mark.parametrize("power", [-300, 300])
def test_squares_are_in_range_where_weights_alone_are_not(dtype, on_deficient, power):
    a, b = problems(12, 3, dtype)
    a[3, :, 2] = 0
    b = b * dtype(2.0 ** (-power // 3))
    weights = np.ones((21, 12))
    weights[3:7] = 2.0**power
    found = dasksolve.lstsq_ex(a, b, weights=weights, on_deficient=on_deficient)
    double = dasksolve.lstsq_ex(
        *(v.astype(np.result_type(v, float)) for v in (a, b)),
        weights=weights,
        on_deficient=on_deficient,
    )
    np.testing.assert_array_equal(found.status, double.status)
    assert np.isfinite(found.rss[4:7]).all()
    assert found.rss[4:7].all()
    np.testing.assert_allclose(found.rss[3:7], double.rss[3:7], rtol=1e-5)


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.complex64])
@pytest.mark.parametrize("on_deficient", ["nan", "lstsq"])
@pytest.mark.parametrize("power", [-300, 300])
def test_squares_are_those_of_the_x_beside_them(dtype, on_deficient, power, lazy):
    a, b = problems(12, 3, dtype, count=1000, k=2)
    shares = np.random.default_rng(0).uniform(0.3, 3, (1000, 1)) * 12 * np.finfo(dtype).eps
    a[..., 2] = a[..., 1] + (a[..., 2] * shares).astype(dtype)  # nearly or just deficient
    b *= dtype(2.0 ** (-power * 0.35))
    weights = 2.0**power * np.random.default_rng(1).uniform(0.5, 2, 12)
    a[::3, 1, 2], b[::5, 2, 1], weights[3] = np.nan, np.nan, 0
    given = da.from_array(a, chunks=(300, 12, 3)) if lazy else a
    found = dasksolve.lstsq_ex(given, b, weights=weights, on_deficient=on_deficient)
    status, x, rss = (np.asarray(v) for v in (found.status, found.x, found.rss))
    assert set(status) == {Status.OK, Status.RANK_DEFICIENT}
    solved = (status == Status.OK) | (on_deficient == "lstsq")
    for answer in (x.reshape(1000, -1), rss):
        np.testing.assert_array_equal(np.isfinite(answer).T, [solved] * answer.shape[1])
    missing = np.isnan(a).any(axis=2) | np.isnan(b).any(axis=2)
    wide = np.result_type(dtype, float)
    squares = weights[:, None] * abs(b - a.astype(wide) @ x.astype(wide)) ** 2
    squares[missing] = 0
    np.testing.assert_allclose(rss[solved], squares.sum(axis=1)[solved], rtol=1e-6)
    one = int(np.argmax(solved))
    alone = dasksolve.lstsq_ex(a[one], b[one], weights=weights, on_deficient=on_deficient)
    np.testing.assert_array_equal(alone.rss, rss[one])


@pytest.mark.parametrize(
    ("char", "powers"), [("f", (0, 45, -40)), ("F", (0, 45, -40)), ("d", (0, 300, -300))]
)
def test_the_condition_does_not_depend_on_units(char, powers):
    a, b = problems(12, 3, char)
    a[..., 2] = a[..., 1] + a.dtype.type(0.01) * a[..., 2]
    rcond = float(np.median(dasksolve.lstsq_ex(a, b).rcond))
    wanted = dasksolve.lstsq_ex(a, b, rcond=rcond)
    assert {*wanted.status} == {Status.OK, Status.RANK_DEFICIENT}
    units = np.ldexp(1.0, powers).astype(char)
    found = dasksolve.lstsq_ex(a * units, b, rcond=rcond)
    np.testing.assert_array_equal(found.rcond, wanted.rcond)
    np.testing.assert_array_equal(found.status, wanted.status)
    np.testing.assert_array_equal(found.x * units, wanted.x)


@pytest.mark.parametrize("power", [-110, -180, -270])
@pytest.mark.parametrize("dtype", [np.float32, np.complex64])
def test_weights_too_far_apart_for_single_precision_count(power, dtype):
    a, b = problems(12, 3, dtype)
    a[:, :6, 2], a[:, 6:, :2] = 0, 0  # the last unknown is that of the light rows
    weights = np.random.default_rng(0).uniform(0.5, 2, (21, 12))
    weights[7, 6:] *= 4.0**power
    found = dasksolve.lstsq_ex(a, b, weights=weights)
    double = dasksolve.lstsq_ex(
        *(v.astype(np.result_type(v, float)) for v in (a, b)), weights=weights
    )
    assert set(found.status) == {Status.OK}
    assert set(found.count) == {12}
    np.testing.assert_allclose(found.x[7], double.x[7], rtol=1e-6)
    np.testing.assert_allclose(found.rss, double.rss, rtol=1e-5)
    alone = dasksolve.lstsq_ex(a[7], b[7], weights=weights[7])
    for one, every in zip(alone, found, strict=True):
        np.testing.assert_array_equal(one, every[7])
    light = dasksolve.lstsq(a * np.float32(1e-30), b * np.float32(1e30), weights=weights)
    assert np.isnan(light[7]).all()  # x overflows


def test_heavy_and_light_rows_that_have_no_unknown_in_common():
    a, b = np.array([[1.0, 0], [0, 1], [0, 1]]), np.array([1.0, 2, 4])
    found = dasksolve.lstsq_ex(a, b, weights=[1e300, 1e-300, 1e-300])
    np.testing.assert_allclose(found.x, [1, 3], rtol=1e-15)
    assert found.status == Status.OK


@pytest.mark.parametrize(
    ("dtype", "power", "fill"),
    [(np.float32, -70, 1e36), (np.float64, -530, 1e300), (np.complex64, -70, 1e36)],
)
@pytest.mark.parametrize("missing", ["b", "weight"])
def test_what_stands_in_rows_that_are_missing_does_not_matter(dtype, power, fill, missing):
    a, b = problems(12, 3, dtype)
    a = a * dtype(2.0**power)
    weights = np.ones(12)
    weights[4] = missing != "weight"
    b[:, 4] = np.nan if missing == "b" else fill
    wanted = dasksolve.lstsq_ex(a, b, weights=weights)
    a[:, 4] = fill
    found = dasksolve.lstsq_ex(a, b, weights=weights)
    assert set(found.status) == {Status.OK}
    for name, one, other in zip(found._fields, found, wanted, strict=True):
        np.testing.assert_array_equal(one, other, err_msg=name)


@pytest.mark.parametrize("dtype", [np.int8, np.uint64, np.float16, np.float32, np.longdouble])
def test_roots_of_weights_are_taken_in_double_precision(dtype):
    a, b = problems(12, 3)
    weights = np.arange(1, 13).astype(dtype)
    wanted = dasksolve.lstsq(a, b, weights=weights.astype(float))
    np.testing.assert_array_equal(dasksolve.lstsq(a, b, weights=weights), wanted)


def test_bits_do_not_depend_on_the_batch():
    a, b = problems(11, 4, count=50)
    wanted = dasksolve.lstsq_ex(a, b)
    for part in (slice(0, 1), slice(3, 20), slice(None, None, 2)):
        found = dasksolve.lstsq_ex(a[part], b[part])
        np.testing.assert_array_equal(found.x, wanted.x[part])
        np.testing.assert_array_equal(found.rcond, wanted.rcond[part])
    np.testing.assert_array_equal(dasksolve.lstsq(a, b, workers=2), wanted.x)
    np.testing.assert_array_equal(dasksolve.lstsq(a[3], b[3]), wanted.x[3])


@pytest.mark.parametrize("n", [1, 3, 8])
@pytest.mark.parametrize("rows", [15, 16, 17, 41])
def test_rows_that_are_missing_at_the_end_change_no_bit(n, rows):
    # Whole blocks of rows, some that are cut short, and numbers left over from vectors of eight.
    a, b = problems(rows, n)
    for more in (1, 16, 23):
        rest = np.full((len(a), more, n), np.nan), np.zeros((len(a), more))
        longer = [np.concatenate(pair, axis=1) for pair in zip((a, b), rest, strict=True)]
        for one, other in zip(dasksolve.lstsq_ex(a, b), dasksolve.lstsq_ex(*longer), strict=True):
            assert one.tobytes() == other.tobytes()


@pytest.mark.parametrize("k", [None, 2])
@pytest.mark.parametrize("weighted", [False, True])
def test_dask_gives_the_same_bits_lazily(k, weighted, scheduler):
    a, b = problems(11, 4, count=50, k=k)
    w = np.random.default_rng(0).random((50, 11)) if weighted else None
    wanted = dasksolve.lstsq_ex(a, b, weights=w)
    lazy_a = da.from_array(a, chunks=(20, 11, 4))
    lazy = dasksolve.lstsq_ex(lazy_a, b, weights=w)
    assert scheduler.runs == 0
    for name, one, other in zip(lazy._fields, lazy, wanted, strict=True):
        assert (one.shape, one.dtype) == (other.shape, other.dtype)
        np.testing.assert_array_equal(one, other, err_msg=name)
    scheduler.tasks = 0
    dasksolve.lstsq(lazy_a, da.from_array(b, chunks=(20, -1, -1)[: b.ndim])).persist()
    assert scheduler.tasks == 3


def test_batches_broadcast_and_may_be_empty():
    a, b = problems(6, 2)
    np.testing.assert_array_equal(dasksolve.lstsq(a, b[0])[5], dasksolve.lstsq(a[5], b[0]))
    np.testing.assert_array_equal(
        dasksolve.lstsq(a[0], b[:, :, None])[5, :, 0], dasksolve.lstsq(a[0], b[5])
    )
    assert dasksolve.lstsq(a[:0], b[:0]).shape == (0, 2)
    assert dasksolve.lstsq(a, b[..., None][..., :0]).shape == (21, 2, 0)
    assert dasksolve.lstsq(a.astype(int), b.astype(np.float32)).dtype == np.float64


A = np.ones((4, 5, 2))
REFUSED = {
    "wide": ((A.swapaxes(1, 2), np.ones((4, 2)), {}), ValueError, "at least as many equations"),
    "vector": ((A[0, 0], np.ones(2), {}), ValueError, r"a must be of shape \(\.\.\., P, N\)"),
    "rows": ((A, np.ones((4, 4)), {}), ValueError, r"b has shape \(4, 4\)"),
    "weights": ((A, np.ones((4, 5)), {"weights": np.ones(4)}), ValueError, r"\(5,\), one for each"),
    "negative": ((A, np.ones((4, 5)), {"weights": -np.ones(5)}), ValueError, r"weights\[0\] is -1"),
    "infinite": (
        (A, np.ones((4, 5)), {"weights": [1, 2, np.inf, 4, 5]}),
        ValueError,
        r"not be negative or infinite: weights\[2\] is inf",
    ),
    "rows of b": (
        (A, np.ones((4, 7)), {}),
        ValueError,
        rf"\(\.\.\., P\), has P = 7 where a has 5: a has shape {re.escape(str(A.shape))}",
    ),
    "rcond": ((A, np.ones((4, 5)), {"rcond": "x"}), ValueError, "rcond='x' must be None"),
    "word": ((A, np.ones((4, 5)), {"on_deficient": "x"}), ValueError, "'nan', 'lstsq'"),
    "dtype": ((A.astype(np.float16), np.ones((4, 5)), {}), TypeError, "float16"),
}


@pytest.mark.parametrize(("given", "error", "text"), REFUSED.values(), ids=REFUSED)
@pytest.mark.parametrize("lazy", [False, True])
def test_what_cannot_be_solved_is_refused(given, error, text, lazy):
    a, b, options = given
    with pytest.raises(error, match=text):
        dasksolve.lstsq(da.from_array(a) if lazy else a, b, **options)


def test_fewer_rows_than_unknowns_have_no_answer_whatever_counts_as_deficient():
    a, b = np.random.default_rng(0).standard_normal((20, 5, 3)), np.full((20, 5), np.nan)
    b[:, :2] = 1
    found = dasksolve.lstsq_ex(a, b, rcond=0)
    assert (found.status == Status.RANK_DEFICIENT).all()
    assert (found.rank == 2).all()
    assert np.isnan(found.x).all()
    x = dasksolve.lstsq(a, b, rcond=0, on_deficient="lstsq")
    np.testing.assert_allclose(x[0], np.linalg.lstsq(a[0, :2], b[0, :2])[0], rtol=1e-12)
