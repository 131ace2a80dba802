"""The kernel that solves one system at a time, against LAPACK: accuracy, statuses, bits."""

import numpy as np
import pytest
from families import backward_error, bound, check_verdicts, random, systems, wilkinson

from dasksolve.kernels import compiled
from dasksolve.kernels.diagnostics.verdicts import UNBOUNDED
from dasksolve.kernels.lu import single
from dasksolve.status import Status

DTYPES = [np.float32, np.float64, np.complex64, np.complex128]


def solve(a, b, kernel=single.kernel, n=0):
    x = np.full_like(b, 7)
    status = np.full(len(a), Status.PENDING, np.int8)
    compiled(kernel, n, a.dtype)(a, b, x, status)
    return x, status


@pytest.fixture(params=DTYPES, ids=lambda dtype: dtype.__name__)
def dtype(request):
    return request.param


def scales(n, decades):
    return 10.0 ** np.linspace(-decades, decades, n)[np.random.default_rng(n).permutation(n)]


def decades(dtype):
    return 150 if np.finfo(dtype).eps < 1e-10 else 15


def hilbert(n):
    return 1 / (np.arange(n)[:, None] + np.arange(n) + 1)


MATRICES = {
    "random 37": lambda dtype: random(dtype, 37, 37),
    "random 96": lambda dtype: random(dtype, 96, 96),
    "graded rows": lambda dtype: scales(50, decades(dtype))[:, None] * random(dtype, 50, 50),
    "graded columns": lambda dtype: scales(50, decades(dtype)) * random(dtype, 50, 50),
    "graded both": lambda dtype: (
        scales(41, decades(dtype) / 2)[:, None]
        * random(dtype, 41, 41)
        * scales(41, decades(dtype) / 2)[::-1]
    ),
    "Hilbert 6": lambda dtype: hilbert(6),
    "Hilbert 10": lambda dtype: hilbert(10),
    "Wilkinson 24": lambda dtype: wilkinson(24),
    "Wilkinson 60": lambda dtype: wilkinson(60),
    "permutation": lambda dtype: np.eye(43)[np.random.default_rng(3).permutation(43)],
    "lower triangle": lambda dtype: np.tril(random(dtype, 40, 40)),
    "upper triangle": lambda dtype: np.triu(random(dtype, 40, 40)),
    "nearly singular": lambda dtype: random(dtype, 33, 1) + 1e-3 * random(dtype, 33, 33),
}


@pytest.mark.parametrize("name", MATRICES)
def test_backward_error_is_at_most_twice_lapacks(name, dtype):
    a = MATRICES[name](dtype).astype(dtype)
    b = random(dtype, len(a), 40, seed=1)  # so that no lucky rounding of one column decides
    x, status = solve(a[None], b[None])
    assert status[0] == Status.OK
    assert backward_error(a[None], b[None], x) <= bound(a[None], b[None])


@pytest.mark.parametrize("columns", [1, 3, "n"])
@pytest.mark.parametrize("n", [1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33, 64, 65, 71, 129])
def test_every_shape(n, columns, dtype):
    columns = n if columns == "n" else columns
    a, b = systems(n, 2, dtype=dtype, k=columns)
    x, status = solve(a, b)
    assert (status == Status.OK).all()
    assert (backward_error(a, b, x) < 2 * np.sqrt(n) * np.finfo(dtype).eps).all()


def test_no_systems(dtype):
    x, status = solve(*systems(5, 0, dtype=dtype, k=2))
    assert x.shape == (0, 5, 2)
    assert status.shape == (0,)


def with_value(array, position, value):
    array = array.copy()
    array[position] = value
    return array


@pytest.mark.parametrize(
    "a",
    [
        pytest.param(lambda dtype: np.zeros((20, 20)), id="zero"),
        pytest.param(lambda dtype: np.ones((20, 20)), id="ones"),
        pytest.param(lambda dtype: np.eye(20) - np.eye(20)[:, 11, None] * np.eye(20)[11], id="gap"),
        pytest.param(
            lambda dtype: random(dtype, 20, 20) * (np.arange(20) != 17), id="a column of zeros"
        ),
        pytest.param(lambda dtype: np.outer(2.0 ** np.arange(20), np.ones(20)), id="rank one"),
    ],
)
def test_singular(a, dtype):
    a = a(dtype).astype(dtype)
    x, status = solve(a[None], random(dtype, 1, len(a), 2))
    assert status[0] == Status.SINGULAR
    assert np.isnan(x).all()
    assert np.isnan(x.imag).all() or not np.iscomplexobj(x)


def tiny(dtype):
    return np.finfo(dtype).smallest_subnormal


def huge(dtype):
    return np.finfo(dtype).max


@pytest.mark.parametrize(
    ("a", "b"),
    [
        pytest.param(lambda d: with_value(np.eye(20), (0, 0), tiny(d)), np.ones, id="tiny pivot"),
        pytest.param(
            lambda d: with_value(np.eye(20), (19, 19), tiny(d)), np.ones, id="tiny last pivot"
        ),
        pytest.param(lambda d: wilkinson(20) * (huge(d) / 4), np.ones, id="pivot overflows"),
        pytest.param(
            lambda d: np.eye(20) * 1e3 * np.finfo(d).tiny,
            lambda shape: np.full(shape, 1e10),
            id="x overflows",
        ),
    ],
)
def test_overflow_is_never_ok(a, b, dtype):
    a = a(dtype).astype(dtype)
    b = b((len(a), 2)).astype(dtype)
    x, status = solve(a[None], b[None])
    assert status[0] == UNBOUNDED
    assert np.isnan(x).all()


BAD = [np.nan, np.inf, -np.inf]


@pytest.mark.parametrize("value", BAD)
@pytest.mark.parametrize("position", [(0, 0), (0, 18), (18, 0), (11, 7), (18, 18)])
def test_bad_elements_harm_only_their_own_system(position, value, dtype):
    a, b = systems(19, 5, dtype=dtype, k=2)
    clean, _ = solve(a, b)
    a[1, *position] = value
    b[3, position[0], 1] = value
    x, status = solve(a, b)
    bad = [False, True, False, True, False]
    np.testing.assert_array_equal(status, np.where(bad, Status.NONFINITE, Status.OK))
    np.testing.assert_array_equal(x[3, :, 0], clean[3, :, 0])  # the column beside is as it was
    assert np.isnan(x[1]).all()
    assert np.isnan(x[3, :, 1]).all()
    np.testing.assert_array_equal(x[np.invert(bad)], clean[np.invert(bad)])


@pytest.mark.parametrize("n", [5, 24, 51])
def test_bits_do_not_depend_on_the_place_in_the_batch(n, dtype):
    a, b = systems(n, 7, dtype=dtype, k=3)
    a[2] = 0
    together, _ = solve(a, b)
    alone = np.concatenate([solve(a[m : m + 1], b[m : m + 1])[0] for m in range(7)])
    np.testing.assert_array_equal(alone, together)


def test_bits_do_not_depend_on_the_columns_beside(dtype):
    a, b = systems(30, 1, dtype=dtype, k=40)
    together, _ = solve(a, b)
    one, _ = solve(a, np.ascontiguousarray(b[:, :, 17:18]))
    np.testing.assert_array_equal(one, together[:, :, 17:18])


def test_input_is_left_as_it_was(dtype):
    a, b = systems(21, 2, dtype=dtype, k=1)
    before = a.copy(), b.copy()
    solve(a, b)
    np.testing.assert_array_equal(a, before[0])
    np.testing.assert_array_equal(b, before[1])


@pytest.mark.parametrize("n", [2, 3, 4])
def test_singular_matrices_of_small_integers_are_those_of_lapack(n):
    a = np.random.default_rng(n).integers(-4, 5, (500, n, n)).astype(float)
    a[::2, -1] = a[::2, 0] * 2 - a[::2, 1]
    b = np.ones((500, n, 1))
    _, status = solve(a, b)
    assert (status == Status.SINGULAR).sum() > 20
    check_verdicts(a, status == Status.SINGULAR)
