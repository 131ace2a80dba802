"""NumPy's solver behind the statuses of the kernels."""

import numpy as np
import pytest

from dasksolve.kernels import lapack
from dasksolve.status import Status


def solve(a, b):
    a, b = np.asarray(a), np.asarray(b)
    x = np.full_like(b, 7)
    status = np.full(len(a), Status.PENDING, np.int8)
    lapack.solve(a, b, x, status)
    return x, status


@pytest.fixture(params=[np.float32, np.float64, np.complex64, np.complex128])
def dtype(request):
    return request.param


def random(dtype, *shape):
    rng = np.random.default_rng(shape)
    values = rng.standard_normal(shape) + 1j * rng.standard_normal(shape)
    return (values if np.dtype(dtype).kind == "c" else values.real).astype(dtype)


def test_bits_are_numpys(dtype):
    a, b = random(dtype, 3, 40, 40), random(dtype, 3, 40, 2)
    x, status = solve(a, b)
    assert (status == Status.OK).all()
    np.testing.assert_array_equal(x, np.linalg.solve(a, b))


def test_zero_in_x_is_no_overflow(dtype):
    a = random(dtype, 1, 9, 9)
    x, status = solve(a, a @ np.eye(9, 1, dtype=dtype) * 0)
    assert status[0] == Status.OK
    assert not x.any()


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        pytest.param(lambda a, b: a.fill(0), Status.SINGULAR, id="zero matrix"),
        pytest.param(lambda a, b: a.put(7, np.nan), Status.NONFINITE, id="NaN in a"),
        pytest.param(lambda a, b: a.put(0, -np.inf), Status.NONFINITE, id="Inf in a"),
        pytest.param(lambda a, b: b.put(3, np.inf), Status.NONFINITE, id="Inf in b"),
        pytest.param(
            lambda a, b: np.copyto(a, np.eye(20) * np.finfo(a.dtype).smallest_subnormal),
            Status.NONFINITE,
            id="x overflows",
        ),
    ],
)
def test_a_bad_system_harms_only_itself(spoil, expected, dtype):
    a, b = random(dtype, 3, 20, 20), random(dtype, 3, 20, 2) + 9
    clean, _ = solve(a, b)
    spoil(a[1], b[1])
    x, status = solve(a, b)
    np.testing.assert_array_equal(status, [Status.OK, expected, Status.OK])
    np.testing.assert_array_equal(x[::2], clean[::2])
    assert np.isnan(x[1].real).all()
    assert np.isnan(x[1].imag).all() or not np.iscomplexobj(x)


def test_a_pivot_that_overflows_is_no_zero_in_x():
    huge = np.finfo(float).max
    a, b = np.array([[[1, -1], [1, 1]]]) * huge, np.array([[[1], [3]]]) * (huge / 8)
    np.testing.assert_array_equal(np.linalg.solve(a, b).ravel(), [0.125, 0])  # not [0.25, 0.125]
    x, status = solve(a, b)
    assert status[0] == Status.NONFINITE
    assert np.isnan(x).all()
