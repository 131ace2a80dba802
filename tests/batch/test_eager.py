"""NumPy in, NumPy out: accuracy, layouts, failures that stay where they are, the same bits."""

import operator

import numpy as np
import pytest
from families import (
    BACKWARD_C,
    CASES,
    DTYPES,
    SOME_DTYPES,
    backward_error,
    bound,
    case,
    grid,
    orders,
    read_only,
    same_bits,
    systems,
    unaligned,
)
from scipy.linalg import get_lapack_funcs

import dasksolve
from dasksolve import Status
from dasksolve.batch import diagnosis, eager, pieces
from dasksolve.batch.options import STRUCTURES, Options
from dasksolve.batch.problem import describe

ORDERS = orders(1, 2, 3, 4, 5, 8, 12, 13, 16, 17, 32, 40)
NAN, INF = np.nan, np.inf


def statuses(a, b):
    """x and the status of every system."""
    problem = describe(a.shape, a.dtype, b.shape, b.dtype)
    return eager.solve_with_status(a, b, problem, Options(on_singular="nan"))


@pytest.mark.parametrize(("family", "n", "dtype"), CASES)
def test_backward_error_is_within_the_bound(family, n, dtype):
    a, b = case(family, n, dtype)
    x = dasksolve.solve(a, b)
    assert x.dtype == dtype
    assert (backward_error(a, b, x) <= bound(a, b)).all()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("k", [1, 2, 3, 8, 17, 64])
@pytest.mark.parametrize("n", [1, 3, 8, 21, 64])
def test_any_number_of_columns_is_solved_within_the_bound(n, k, dtype):
    a, b = systems(n, 7, k=k, dtype=dtype)
    assert (backward_error(a, b, dasksolve.solve(a, b)) <= bound(a, b)).all()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("n", ORDERS)
def test_vectors_are_matrices_of_one_column(n, dtype):
    a, b = systems(n, 21, dtype=dtype)
    assert same_bits(dasksolve.solve(a, b), dasksolve.solve(a, b[..., None])[..., 0])


@pytest.mark.parametrize(
    ("a_shape", "b_shape"),
    [
        pytest.param((3, 3), (3,), id="one system"),
        pytest.param((3, 3), (3, 2), id="one system, K columns"),
        pytest.param((5, 3, 3), (5, 3), id="a stack of vectors"),
        pytest.param((5, 3, 3), (3,), id="one vector for every system"),
        pytest.param((4, 5, 3, 3), (3,), id="one vector for systems of two axes"),
        pytest.param((2, 2, 2), (2, 2), id="vectors, though M == N"),
        pytest.param((3, 3), (5, 3, 2), id="one matrix for every b"),
        pytest.param((4, 5, 3, 3), (4, 5, 3), id="two batch axes"),
        pytest.param((4, 5, 3, 3), (4, 5, 3, 2), id="two batch axes, K columns"),
        pytest.param((4, 1, 3, 3), (1, 5, 3), id="both broadcast"),
        pytest.param((1, 3, 3), (5, 3), id="a has size one"),
        pytest.param((5, 3, 3), (1, 3), id="b has size one"),
        pytest.param((5, 3, 3), (4, 1, 3, 2), id="b has more batch axes"),
        pytest.param((2, 3, 2, 1, 3, 3), (2, 1, 2, 3, 3, 2), id="four batch axes"),
        pytest.param((0, 3, 3), (0, 3), id="no systems"),
        pytest.param((0, 3, 3), (1, 3, 2), id="no systems against one b"),
        pytest.param((4, 0, 3, 3), (3,), id="no systems in the second axis"),
        pytest.param((5, 0, 0), (5, 0), id="N is zero"),
        pytest.param((5, 0, 0), (5, 0, 2), id="N is zero, K columns"),
        pytest.param((0, 0), (0,), id="one system with N zero"),
        pytest.param((5, 3, 3), (5, 3, 0), id="K is zero"),
        pytest.param((5, 0, 0), (5, 0, 0), id="N and K are zero"),
    ],
)
def test_broadcasting_is_that_of_numpy(a_shape, b_shape):
    rng = np.random.default_rng(1)
    a, b = rng.standard_normal(a_shape), rng.standard_normal(b_shape)
    vectors = b.ndim == 1 or b.ndim == a.ndim - 1
    x = dasksolve.solve(a, b)
    expected = np.linalg.solve(a, b[..., None])[..., 0] if vectors else np.linalg.solve(a, b)
    assert x.shape == expected.shape
    assert x.dtype == expected.dtype
    if x.size:
        a, b, x = (a, b[..., None], x[..., None]) if vectors else (a, b, x)
        assert (backward_error(a, b, x) <= BACKWARD_C * a.shape[-1] * np.finfo(x.dtype).eps).all()


def test_lists_are_arrays():
    assert dasksolve.solve([[2, 0], [0, 4]], [2, 2]).tolist() == [1.0, 0.5]


def every_other(values):
    wide = np.full((2 * values.shape[0], *values.shape[1:-1], 2 * values.shape[-1]), NAN, "c16")
    wide = wide.astype(values.dtype) if values.dtype.kind == "c" else wide.real.astype(values.dtype)
    wide[::2, ..., ::2] = values
    return wide[::2, ..., ::2]


LAYOUTS = {
    "F order": np.asfortranarray,
    "each matrix in F order": lambda v: v.swapaxes(-1, -2).copy().swapaxes(-1, -2),
    "batch axis last": lambda v: np.moveaxis(np.moveaxis(v, 0, -1).copy(), -1, 0),
    "every other": every_other,
    "backwards": lambda v: np.flip(np.flip(v, (0, -1)).copy(), (0, -1)),
    "another byte order": lambda v: v.astype(v.dtype.newbyteorder()),
    "unaligned": unaligned,
    "read-only": read_only,
}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("n", [3, 24])
def test_the_layout_in_memory_changes_no_bit(n, layout, dtype):
    a, b = systems(n, 19, k=2, dtype=dtype)
    assert same_bits(dasksolve.solve(layout(a), layout(b)), dasksolve.solve(a, b))


def test_a_matrix_repeated_by_strides_of_zero_is_solved_for_every_b():
    a, b = systems(3, 10)
    x = dasksolve.solve(np.broadcast_to(a[0], a.shape), b)
    assert same_bits(x, dasksolve.solve(a[:1].repeat(10, axis=0), b))


@pytest.mark.parametrize("on_singular", ["nan", "lstsq"])
def test_the_input_is_never_written_to(on_singular):
    a, b = systems(3, 100, k=2)
    a[5], b[6] = 0, NAN
    before = a.copy(), b.copy()
    dasksolve.solve(a, b, on_singular=on_singular)
    assert same_bits(a, before[0])
    assert same_bits(b, before[1])


def test_x_shares_no_memory_with_b():
    b = np.ones((3, 4))
    assert not np.shares_memory(dasksolve.solve(np.eye(3), b), b)


@pytest.mark.parametrize(
    ("a_dtype", "b_dtype"),
    [("i1", "i1"), ("u8", "i8"), ("?", "?"), ("i4", "f4"), ("f4", "c8"), ("c8", "f8"), ("?", "c8")],
)
def test_mixed_input_is_solved_in_the_dtype_that_it_promotes_to(a_dtype, b_dtype):
    rng = np.random.default_rng(2)
    a = (np.tril(rng.integers(0, 2, (9, 3, 3)), -1) + np.eye(3)).astype(a_dtype)
    b = rng.integers(0, 2, (9, 3)).astype(b_dtype)
    dtype = np.result_type(a, b) if np.result_type(a, b).kind in "fc" else np.dtype(np.float64)
    assert same_bits(dasksolve.solve(a, b), dasksolve.solve(a.astype(dtype), b.astype(dtype)))


@pytest.mark.parametrize("place", ["a", "b"])
def test_a_mask_is_not_dropped_without_a_word(place):
    given = {"a": np.eye(3), "b": np.ones(3)}
    given[place] = np.ma.masked_equal(given[place], 1)
    with pytest.raises(TypeError, match=f"{place} is a masked array; fill it first"):
        dasksolve.solve(**given)


@pytest.mark.parametrize("workers", [0, -2, 1.5, None, "all"], ids=repr)
def test_a_number_of_workers_that_means_nothing_is_refused(workers):
    with pytest.raises(ValueError, match=f"workers={workers!r} must be a positive integer, or -1"):
        dasksolve.solve(np.eye(3), np.ones(3), workers=workers)


# Singular matrices, NaN, Inf, underflow and overflow


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("n", ORDERS)
def test_nan_stands_in_the_singular_systems_alone(n, dtype):
    a, b = systems(n, 37, dtype=dtype)
    expected = dasksolve.solve(a, b)
    a[[0, 11, 36], :, n // 2] = 0
    x, status = statuses(a, b)
    assert np.flatnonzero(status == Status.SINGULAR).tolist() == [0, 11, 36]
    assert np.count_nonzero(status) == 3
    assert np.isnan(x[status != Status.OK]).all()
    assert same_bits(x[status == Status.OK], expected[status == Status.OK])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("n", ORDERS)
@pytest.mark.parametrize("bad", [NAN, INF, -INF])
@pytest.mark.parametrize("place", ["a", "b"])
def test_nan_and_inf_stay_in_their_system_wherever_they_stand_in_it(place, bad, n, dtype):
    a, b = systems(n, 2 * n + 2, k=2, dtype=dtype)
    expected = dasksolve.solve(a, b)
    for i in range(n):  # every row in turn, in every second system
        (a if place == "a" else b)[2 * i, i, -i % 2] = bad
    x, status = statuses(a, b)
    assert status.tolist() == [Status.NONFINITE, Status.OK] * n + [Status.OK] * 2
    for i in range(n):
        if place == "a":
            expected[2 * i] = x[0, 0, 0]
        else:
            expected[2 * i, :, -i % 2] = x[0, 0, 0]
    assert np.isnan(x[0, 0, 0])
    assert same_bits(x, expected)


@pytest.mark.parametrize("bad", [complex(0, NAN), complex(0, INF), complex(INF, NAN)], ids=str)
def test_an_imaginary_part_that_is_not_finite_counts(bad):
    a, b = systems(3, 4, dtype=np.complex128)
    a[2, 1, 0] = bad
    x, status = statuses(a, b)
    assert status.tolist() == [0, 0, Status.NONFINITE, 0]
    assert np.isnan(x[2]).all()


@pytest.mark.parametrize("assume_a", STRUCTURES)
@pytest.mark.parametrize("n", [5, pytest.param(20, marks=pytest.mark.slow)])
def test_columns_that_are_not_finite_are_lost_alone(n, assume_a):
    a, b = systems(n, 9, k=20)
    a = a @ a.swapaxes(-1, -2) + n * np.eye(n)
    expected = dasksolve.solve_ex(a, b, assume_a=assume_a)
    spoilt = b.copy()
    spoilt[1, 0, 3], spoilt[1, n - 1, 17], spoilt[4, 1, 0], spoilt[5] = NAN, INF, -INF, NAN
    s = dasksolve.solve_ex(a, spoilt, assume_a=assume_a)
    lost = ~np.isfinite(spoilt).all(axis=1, keepdims=True)
    assert same_bits(s.x, np.where(lost, s.x[5, 0, 0], expected.x))
    assert same_bits(s.x, dasksolve.solve(a, spoilt, assume_a=assume_a))
    assert np.isnan(s.x[5, 0, 0])
    assert np.flatnonzero(s.status == Status.NONFINITE).tolist() == [1, 4, 5]
    assert np.isnan(s.rcond).tolist() == [m == 5 for m in range(9)]
    assert np.isnan(s.backward_error).tolist() == [m == 5 for m in range(9)]
    assert s.rcond[[1, 4]] == pytest.approx(expected.rcond[[1, 4]], rel=1e-6)
    assert s.backward_error[[1, 4]].max() < 4 * np.finfo(float).eps


@pytest.mark.parametrize("n", [3, 20])
@pytest.mark.parametrize("k", [2, 9])
def test_factors_lose_columns_alone(n, k):
    a, b = systems(n, 9, k=k)
    b[2, 1, 1] = NAN
    for transposed in (False, True):
        whole = dasksolve.solve(a.swapaxes(-1, -2) if transposed else a, b)
        x = dasksolve.factor(a).solve(b, transposed=transposed)
        assert np.isnan(x[2]).all(axis=0).tolist() == [j == 1 for j in range(k)]
        np.testing.assert_allclose(x, whole, rtol=1e-9)


def test_bands_lose_columns_alone():
    rng = np.random.default_rng(0)
    lower, diagonal, upper, b = *rng.standard_normal((3, 9, 12)), rng.standard_normal((9, 12, 11))
    expected = dasksolve.solve_tridiagonal(lower, diagonal, upper, b)
    b[3, 5, 9] = INF
    expected[3, :, 9] = NAN
    x = dasksolve.solve_tridiagonal(lower, diagonal, upper, b)
    np.testing.assert_array_equal(x, expected)


def test_one_matrix_beside_many_vectors_loses_those_that_are_not_finite():
    b = np.ones((2, 10_000))
    b[0, 123] = NAN
    x = dasksolve.solve([[4.0, 1.0], [1.0, 3.0]], b)
    assert np.flatnonzero(np.isnan(x).any(axis=0)).tolist() == [123]


def test_a_singular_matrix_is_one_to_the_columns_that_are_finite():
    a, b = np.ones((3, 2, 2)), np.ones((3, 2, 3))
    a[1] = np.eye(2)
    b[:, 0, 1] = NAN
    b[2] = NAN
    x, status = statuses(a, b)
    assert status.tolist() == [Status.SINGULAR, Status.NONFINITE, Status.NONFINITE]
    least = dasksolve.solve(a, b, on_singular="lstsq")
    assert least[0, 0] == pytest.approx([0.5, NAN, 0.5], nan_ok=True)
    assert np.isnan(x[0]).all()
    with pytest.raises(dasksolve.SingularSystemError) as error:
        dasksolve.solve(a, b)
    assert error.value.indices.tolist() == [0]


def test_a_singular_system_with_nan_in_b_raises_nothing():
    assert np.isnan(dasksolve.solve(np.zeros((2, 2)), [1, NAN])).all()


TINY = 5e-324
EXTREMES = [
    pytest.param([[TINY]], [1.0], id="the reciprocal of the smallest number"),
    pytest.param([[TINY]], [TINY], id="the smallest number by itself"),
    pytest.param([[1e-309]], [1e-309], id="a pivot whose reciprocal overflows"),
    pytest.param([[1e-310, 0], [0, 1]], [1e-310, 1], id="a subnormal pivot, x of size one"),
    pytest.param([[1e-310, 0], [0, 1]], [1, 1], id="a subnormal pivot, x overflows"),
    pytest.param([[3e-310, 1e-310], [1e-310, 2e-310]], [1e-310, 2e-310], id="all subnormal"),
    pytest.param([[2e-310, 1.0], [1e-310, 1.0]], [1, 1], id="a subnormal first column"),
    pytest.param([[1, 1e-200], [1e-200, 0]], [1, 1], id="the last pivot underflows"),
    pytest.param([[1e300, 1e308], [-1e300, 1e308]], [1, 1], id="the last pivot overflows"),
    pytest.param(
        [[1, 0, 1.5e308], [-1, 1, 1.5e308], [0, 0, 1]], [1, 1, 1], id="an overflow above a zero"
    ),
    pytest.param([[1, 1e300], [0, 1]], [1, 1e10], id="x overflows going back"),
    pytest.param([[1, 0], [-1, 1]], [1.5e308, 1.5e308], id="b overflows going forward"),
    pytest.param([[1e-200, 0], [0, 1e200]], [1e-200, 1e200], id="1e±200"),
    pytest.param([[1.7e308]], [1.7e308], id="the largest numbers"),
    pytest.param([[1e-200 + 1e-200j]], [1e-200], id="|z|² underflows"),
    pytest.param([[1e200 + 1e200j]], [1e200], id="|z|² overflows"),
    pytest.param([[1e308 + 1.5e308j]], [1e308 + 1e308j], id="|re|+|im| overflows"),
    pytest.param([[1e-310 + 1e-310j]], [1e-310], id="a subnormal complex pivot"),
    pytest.param([[1e-310j, 1], [1, 1e-310]], [1, 1j], id="a subnormal corner"),
    pytest.param([[1, 1e-30], [1e-30, 0]], [1, 1], id="1e-60"),
    pytest.param([[1e30, 1e38], [-1e30, 1e38]], [1, 1], id="1e38"),
    pytest.param([[1e-45]], [1e-45], id="the smallest number of single precision"),
    pytest.param([[1e-40]], [1e-40], id="a subnormal number of single precision"),
    pytest.param([[1e-20 + 1e-20j]], [1e-20], id="|z|² underflows in single precision"),
    pytest.param([[1e25 + 1e25j]], [1e25], id="|z|² overflows in single precision"),
]


@pytest.mark.parametrize(
    "single", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["double", "single"]
)
@pytest.mark.parametrize("copies", [1, 40])
@pytest.mark.parametrize(("a", "b"), EXTREMES)
def test_underflow_and_overflow_are_never_wrong_and_ok(a, b, copies, single):
    a, b = np.array([a] * copies), np.array([b] * copies)[..., None]
    dtype = np.result_type(a, b)
    if single:
        dtype = np.dtype(np.complex64 if dtype.kind == "c" else np.float32)
    with np.errstate(over="ignore", under="ignore"):
        a, b = a.astype(dtype), b.astype(dtype)
    x, status = statuses(a, b)
    (gesv,) = get_lapack_funcs(("gesv",), (a, b))
    *_, reference, info = gesv(a[0], b[0])
    if info == 0 and np.isfinite(reference).all():
        assert status[0] == Status.OK
    if status[0] == Status.OK:
        assert np.isfinite(x).all()
        assert (backward_error(a, b, x) <= bound(a, b) + underflow(a, b, x)).all()
    else:
        assert np.isnan(x).all()
    assert (status == status[0]).all()


def underflow(a, b, x):
    """What results that round to a multiple of the smallest number add to the backward error."""
    step = np.finfo(a.dtype).smallest_subnormal.astype(np.longdouble)
    a, b, x = (np.abs(v).astype(np.longdouble).max() for v in (a, b, x))
    return 4 * step * (1 / a + 1 / x + 1 / (a * x + b))


@pytest.mark.parametrize(
    ("a", "b", "x"),
    [
        pytest.param([[1e-200 + 1e-200j]], [1e-200], [0.5 - 0.5j], id="|z|² underflows"),
        pytest.param([[1e200 + 1e200j]], [1e200], [0.5 - 0.5j], id="|z|² overflows"),
        pytest.param([[0, 1e-300], [1e300, 0]], [1e-300, 1e300], [1, 1], id="1e±300"),
    ],
)
def test_what_complex_and_real_numbers_can_hold_is_solved(a, b, x):
    assert np.abs(dasksolve.solve(np.array(a), np.array(b)) - x).max() < 1e-15


@pytest.mark.parametrize("dtype", DTYPES[2:], ids=str)
def test_complex_pivots_are_the_largest_by_re_plus_im(dtype):
    # By |re| + |im| the pivot is 1+i, all is exact, and the second pivot is zero. By the modulus
    # it is p, and rounding leaves something in some of these.
    p, c = (v.ravel() for v in np.meshgrid([1.5, 1.625, 1.6875, 1.75, 1.875], np.arange(1.0, 33)))
    a = np.array([[1 + 1j + 0 * c, c], [p, (1 - 1j) / 2 * p * c]], dtype)
    _, status = statuses(np.moveaxis(a, -1, 0), np.ones((len(c), 2), dtype))
    assert (status == Status.SINGULAR).all()


# The same bits everywhere


@pytest.fixture(params=DTYPES, ids=str)
def dtype(request):
    return request.param


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("n", ORDERS)
def test_a_system_alone_has_the_bits_that_it_has_in_a_batch(n, k, dtype):
    a, b = systems(n, 70, k=k, dtype=dtype)
    alone = np.stack([dasksolve.solve(a[i], b[i]) for i in range(70)])
    assert same_bits(dasksolve.solve(a, b), alone)


@pytest.mark.parametrize("n", ORDERS)
def test_a_batch_of_any_length_from_any_place_has_the_same_bits(n, dtype):
    a, b = systems(n, 70, dtype=dtype)
    x = dasksolve.solve(a, b)
    parts = [slice(s, s + m) for m in (1, 2, 3, 5, 7, 8, 9, 15, 16, 17, 31, 33) for s in (0, 1, 36)]
    assert all(same_bits(dasksolve.solve(a[part], b[part]), x[part]) for part in parts)


@pytest.mark.parametrize("n", ORDERS)
def test_a_permuted_batch_has_the_same_bits(n, dtype):
    a, b = systems(n, 70, dtype=dtype)
    order = np.random.default_rng(3).permutation(70)
    assert same_bits(dasksolve.solve(a[order], b[order]), dasksolve.solve(a, b)[order])


@pytest.mark.parametrize("n", ORDERS)
def test_bad_neighbours_change_no_bit(n, dtype):
    a, b = systems(n, 70, dtype=dtype)
    x = dasksolve.solve(a, b)
    a[::3], b[1::3] = 0, NAN
    assert same_bits(dasksolve.solve(a, b, on_singular="nan")[2::3], x[2::3])


@pytest.mark.parametrize("k", [1, 4])
@pytest.mark.parametrize(("n", "systems_"), [(1, 300_001), (3, 60_001), (12, 2_003), (100, 53)])
@pytest.mark.parametrize("workers", [2, 5, -1])
def test_the_number_of_workers_changes_no_bit(workers, n, systems_, k):
    a, b = systems(n, systems_, k=k)
    assert same_bits(dasksolve.solve(a, b, workers=workers), dasksolve.solve(a, b))


@pytest.mark.parametrize("transposed", [False, True], ids=["contiguous", "strided"])
def test_several_batch_axes_have_the_bits_of_one(transposed):
    a, b = systems(3, 70 * 11 * 41)
    x = dasksolve.solve(a, b).reshape(70, 11, 41, 3)
    a, b = a.reshape(70, 11, 41, 3, 3), b.reshape(70, 11, 41, 3)
    if transposed:
        a, b, x = (np.swapaxes(values, 0, 2) for values in (a, b, x))
    assert same_bits(dasksolve.solve(a, b), x)


def test_three_bad_systems_among_a_million_leave_the_others_as_they_are():
    a, b = systems(3, 1_000_000)
    expected = dasksolve.solve(a, b)
    a[123_456, :, 1], a[500_001, 2, 2], a[999_999, 0, 1] = 0, NAN, INF
    bad = [123_456, 500_001, 999_999]
    x, status = statuses(a, b)
    assert np.flatnonzero(status).tolist() == bad
    assert [Status(s).name for s in status[bad]] == ["SINGULAR", "NONFINITE", "NONFINITE"]
    assert np.isnan(x[bad]).all()
    assert same_bits(np.delete(x, bad, axis=0), np.delete(expected, bad, axis=0))
    with pytest.raises(dasksolve.SingularSystemError, match="at flat index 123456;") as error:
        dasksolve.solve(a, b, workers=-1)
    assert error.value.indices.tolist() == [123_456]


# Walking through a batch in pieces


@pytest.mark.parametrize("shape", [(), (0,), (1,), (10,), (3, 4), (2, 3, 5), (7, 1, 2), (2, 0)])
@pytest.mark.parametrize("size", [1, 2, 4, 6, 1000])
def test_pieces_cover_a_batch_once_and_in_order(shape, size):
    flat = np.arange(np.prod(shape, dtype=int)).reshape(shape)
    parts = list(pieces.pieces(shape, size))
    assert [i for index, _ in parts for i in flat[index].ravel()] == flat.ravel().tolist()
    assert all(flat[index].size <= size for index, _ in parts)
    assert all(flat[i].ravel().tolist() == list(range(p.start, p.stop)) for i, p in parts)


def test_an_error_in_one_thread_reaches_the_caller():
    with pytest.raises(ZeroDivisionError, match="division"):
        pieces.in_threads(lambda i: operator.truediv(1, i), [3, 2, 1, 0], 2)


def test_backward_errors_agree_with_those_in_long_double():
    a, b = systems(8, 30, k=3)
    x = dasksolve.solve(a, b) * (1 + 1e-9)
    expected = backward_error(a, b, x)
    assert np.abs(diagnosis.backward_errors(a, b, x) / expected - 1).max() < 1e-4


@pytest.mark.parametrize("assume_a", ["gen", "pos"])
@pytest.mark.parametrize("n", [5, 12, 17, 50])
@pytest.mark.parametrize("dtype", SOME_DTYPES)
def test_zeros_have_no_sign_that_depends_on_the_batch(dtype, n, assume_a):
    rng = np.random.default_rng(n)
    b = rng.choice([0.0, -0.0, 1.0, -1.0], (64, n)).astype(dtype)
    a = np.stack([np.eye(n, dtype=dtype)] * 64)
    if assume_a == "gen":
        a = a[:, rng.permutation(n)] * np.where(rng.random((64, n, n)) < 0.5, 1, -1).astype(dtype)
    together = dasksolve.solve(a, b, assume_a=assume_a)
    alone = [dasksolve.solve(a[i], b[i], assume_a=assume_a) for i in range(64)]
    assert same_bits(together, np.stack(alone))
    assert same_bits(together, dasksolve.factor(a).solve(b))


@pytest.mark.parametrize(("n", "dtype"), grid(3, 12, 120, slow=(1, 8, 9, 17), complex_up_to=3))
def test_a_pivot_of_unbounded_magnitude_is_judged_alike_in_any_batch(dtype, n):
    largest = np.finfo(dtype).max
    a = np.stack([np.eye(n, dtype=dtype)] * 40)
    a[::2, 0, 0] = largest * (0.7 + 0.4j) if dtype.kind == "c" else largest
    b = np.ones((40, n, 2), dtype)
    together = dasksolve.solve(a, b, on_singular="nan")
    alone = [dasksolve.solve(a[i], b[i], on_singular="nan") for i in range(40)]
    assert same_bits(together, np.stack(alone))
    assert same_bits(together, dasksolve.factor(a).solve(b))
    assert not np.isnan(together[1::2]).any()
