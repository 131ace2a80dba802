"""The kernels that hold one system a lane: accuracy, verdicts, containment, bits."""

import numpy as np
import pytest
import scipy.linalg
from families import backward_error, bound, check_verdicts, orders, random, wilkinson

from dasksolve.kernels import pick
from dasksolve.kernels.diagnostics.verdicts import UNBOUNDED
from dasksolve.kernels.lu.interleaved import CACHED
from dasksolve.status import Status

DTYPES = [np.float32, np.float64, np.complex64, np.complex128]
# Orders of each kernel: in registers, in a tile, with one panel, more, and a remainder.
ORDERS = [1, 3, 12, 17, 26]


@pytest.fixture(params=DTYPES, ids=lambda dtype: dtype.__name__)
def dtype(request):
    return np.dtype(request.param)


@pytest.fixture(params=ORDERS, ids=lambda n: f"N={n}")
def n(request):
    return request.param


def solve(a, b):
    a, b = np.ascontiguousarray(a), np.ascontiguousarray(b)
    x, status = np.full_like(b, 7), np.full(len(a), -1, np.int8)
    pick("gen", a.shape[1], b.shape[2], 10**6, a.dtype)(a, b, x, status)
    return x, status


def graded(rng, n):
    scales = 10.0 ** np.linspace(-150, 150, n)
    return np.stack([random(np.dtype(float), n, n) * scales[:, None], scales * rng.random((n, n))])


MATRICES = {
    "random": lambda rng, n: rng.standard_normal((19, n, n)),
    "graded": graded,
    "hilbert": lambda rng, n: scipy.linalg.hilbert(min(n, 12))[None],
    "growth": lambda rng, n: wilkinson(n)[None],
    "permutation": lambda rng, n: np.stack([np.eye(n)[rng.permutation(n)] for _ in range(5)]),
    "lower": lambda rng, n: np.tril(rng.standard_normal((5, n, n))) + 3 * np.eye(n),
    "upper": lambda rng, n: np.triu(rng.standard_normal((5, n, n))) + 3 * np.eye(n),
}


@pytest.mark.parametrize("matrices", MATRICES.values(), ids=MATRICES)
def test_backward_error_is_at_most_twice_lapacks(matrices, n):
    rng = np.random.default_rng(1)
    a = matrices(rng, n)
    b = rng.standard_normal((*a.shape[:2], 1))
    x, status = solve(a, b)
    assert (status == Status.OK).all()
    assert (backward_error(a, b, x) <= bound(a, b)).all()


@pytest.mark.parametrize("columns", [1, 3, "N"])
def test_random_systems_of_any_dtype(dtype, n, columns):
    k = n if columns == "N" else columns
    a, b = random(dtype, 19, n, n), random(dtype, 19, n, k, seed=1)
    x, status = solve(a, b)
    assert (status == Status.OK).all()
    assert backward_error(a, b, x).max() < n * np.finfo(dtype).eps


def test_bits_do_not_depend_on_the_place_in_the_batch(dtype, n):
    a, b = random(dtype, 21, n, n), random(dtype, 21, n, 2, seed=1)
    x, _ = solve(a, b)
    order = np.random.default_rng(0).permutation(21)
    np.testing.assert_array_equal(solve(a[order], b[order])[0], x[order])
    for part in (slice(0, 1), slice(3, 12), slice(13, 21)):
        np.testing.assert_array_equal(solve(a[part], b[part])[0], x[part])


def test_bits_do_not_depend_on_the_number_of_columns(dtype, n):
    a, b = random(dtype, 3, n, n), random(dtype, 3, n, 21, seed=1)
    x, _ = solve(a, b)
    for column in (0, 18, 20):
        np.testing.assert_array_equal(
            solve(a, b[..., column : column + 1])[0], x[..., column : column + 1]
        )


def test_bits_do_not_depend_on_whether_the_batch_stays_in_the_cache(dtype):
    n = 58  # a tile of which is too large to be read early
    systems = CACHED // (n * n * dtype.itemsize) + 1
    a, b = random(dtype, systems, n, n), random(dtype, systems, n, 1, seed=1)
    x, _ = solve(a, b)
    np.testing.assert_array_equal(solve(a[3:9], b[3:9])[0], x[3:9])


@pytest.mark.parametrize("n", [*ORDERS, 24])  # whole panels: the last is factored in registers
def test_a_bad_system_changes_no_other(dtype, n):
    a, b = random(dtype, 20, n, n), random(dtype, 20, n, 2, seed=1)
    expected, _ = solve(a, b)
    a[3, n // 2, n - 1] = np.nan
    a[4, n - 1, 0] = np.inf
    a[5, :, n // 2] = 0
    b[6, 0, 1] = -np.inf
    a[7, 0], a[7, n - 1] = 0, np.nan
    a[8] = 0
    flaws = {3: 3, 4: 3, 5: 1, 6: 3, 7: 3, 8: 1}
    x, status = solve(a, b)
    assert status.tolist() == [flaws.get(i, 0) for i in range(20)]
    assert np.array_equal(x[6, :, 0], expected[6, :, 0])  # the column beside is as it was
    x[6, :, 0] = x[6, :, 1]
    assert np.isnan(x[list(flaws)]).all()
    assert dtype.kind != "c" or np.isnan(x[3:9].imag).all()
    sound = [i for i in range(20) if i not in flaws]
    np.testing.assert_array_equal(x[sound], expected[sound])


@pytest.mark.parametrize(
    ("diagonal", "rhs", "status"),
    [
        pytest.param([1e-320, 1], [1, 1], UNBOUNDED, id="reciprocal overflows"),
        pytest.param([1e-320, 1], [0, 1], UNBOUNDED, id="even for zero"),
        pytest.param([1e-200, 1], [1e200, 1], UNBOUNDED, id="x overflows"),
        pytest.param([1e-300, 1], [1e-300, 1], Status.OK, id="small but normal"),
        pytest.param([0.0, 1], [0, 1], Status.SINGULAR, id="zero"),
        pytest.param([-0.0, 1], [0, 1], Status.SINGULAR, id="negative zero"),
    ],
)
def test_pivots_at_the_edge(diagonal, rhs, status):
    x, found = solve(np.diag(diagonal)[None], np.array(rhs, float)[None, :, None])
    assert found[0] == status
    assert np.isnan(x).all() == (status != Status.OK)


def test_growth_to_infinity_is_not_ok():
    a = np.array([[[1e308, 1e308], [-1e308, 1e308]]])
    x, status = solve(a, np.ones((1, 2, 1)))
    assert status[0] == UNBOUNDED
    assert np.isnan(x).all()


def small_integers(n, count):
    rng = np.random.default_rng(n)
    a = rng.integers(-4, 5, (count, n, n)).astype(float)
    a[::2, -1] = a[::2, 0] + a[::2, n // 2]
    a[1::4, :, -1] = 3 * a[1::4, :, 0]
    return a


@pytest.mark.parametrize("n", orders(2, 3, 4, 5))
def test_verdicts_on_small_integers_are_lapacks(n):
    a = small_integers(n, 2000)
    _, status = solve(a, np.ones((len(a), n, 1)))
    check_verdicts(a, status == Status.SINGULAR)


def test_verdicts_on_complex_integers_are_lapacks():
    rng = np.random.default_rng(0)
    a = rng.integers(-4, 5, (2000, 2, 2)) + 1j * rng.integers(-4, 5, (2000, 2, 2))
    a[::2, 1] = a[::2, 0] * (rng.integers(-2, 3, (1000, 1)) + 1j)
    _, status = solve(a, np.ones((2000, 2, 1), complex))
    check_verdicts(a, status == Status.SINGULAR)


@pytest.mark.parametrize("n", [3, 12, 24, 26])
def test_a_zero_row_or_column_is_singular_anywhere(n):
    a = np.stack([random(np.dtype(float), n, n, seed=seed) for seed in range(2 * n)])
    for i in range(n):
        a[i, i] = 0
        a[n + i, :, i] = 0
    assert (solve(a, np.ones((2 * n, n, 1)))[1] == Status.SINGULAR).all()


def test_no_systems():
    assert solve(np.empty((0, 3, 3)), np.empty((0, 3, 1)))[0].shape == (0, 3, 1)
