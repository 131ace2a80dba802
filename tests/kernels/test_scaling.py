"""Systems out of range are solved once more, scaled by powers of two: by every door, to the bit."""

import math
from fractions import Fraction

import dask.array as da
import numba
import numpy as np
import pytest
from families import DTYPES, grid, numbers, same_bits

import dasksolve
from dasksolve import Status
from dasksolve.batch.options import STRUCTURES
from dasksolve.kernels import scaling


def near(dtype, place):
    """A power of two near the end of the dtype's range where numbers are subnormal, or overflow."""
    info = np.finfo(dtype)
    return info.minexp - 8 if place == "tiny" else info.maxexp - 1


def systems(dtype, place, n=5, count=12, k=3):
    """a and b whose solution by scaled numbers is known, and those."""
    rng = np.random.default_rng(n)
    wide = numbers(rng, dtype, count, n, n)
    a = wide @ wide.conj().swapaxes(-1, -2) + np.eye(n, dtype=dtype)
    b = numbers(rng, dtype, count, n, k)
    if place == "tiny":  # digits that survive so near to zero
        a, b = (np.round(v.view(v.real.dtype) * 8).view(dtype) / 8 for v in (a, b))
    near_one = a, b
    by = near(dtype, place) - (6 if place == "huge" else 0)
    return *near_one, scaling.shifted(a, by), scaling.shifted(b, by)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("place", ["tiny", "huge"])
@pytest.mark.parametrize("assume_a", STRUCTURES)
def test_every_structure_is_solved_at_the_ends_of_the_range(assume_a, place, dtype):
    a, b, far_a, far_b = systems(dtype, place)
    expected = dasksolve.solve(a, b, assume_a=assume_a)
    for _ in range(2):
        s = dasksolve.solve_ex(far_a, far_b, assume_a=assume_a)
        assert not s.status.any()
        eps = np.finfo(dtype).eps
        np.testing.assert_allclose(s.x, expected, rtol=1e3 * eps, atol=1e3 * eps)
        assert s.backward_error.max() < 30 * eps
        assert s.rcond.min() > 100 * eps
        far_a, far_b = far_a[::-1], far_b[::-1]  # wherever they stand
        expected = expected[::-1]


def mixed(dtype, n, k=3):
    """Systems in and out of range, graded ones and a singular one that is tiny."""
    rng = np.random.default_rng(n)
    a, b = numbers(rng, dtype, 12, n, n), numbers(rng, dtype, 12, n, k)
    low = np.finfo(dtype).minexp
    a[1], b[1] = (scaling.shifted(v, low - 3) for v in (a[1], b[1]))
    huge = np.finfo(dtype).max
    a[4], b[4] = a[4] / abs(a[4]).max() * huge, b[4] / 8 / abs(b[4]).max() * huge
    graded = (np.arange(n) % 2 * (low - 9)).astype(np.int32)
    a[6], b[6] = scaling.shifted(a[6], graded[:, None]), scaling.shifted(b[6], graded[:, None])
    a[8] = scaling.shifted(np.ones((n, n), dtype), low - 9)
    b[10, 0, 1] = np.inf
    a[11], b[11] = np.eye(n), 0.8 * huge  # forward substitution overflows, and x does not
    a[11, 1, :2] = -1, 4
    return a, b


@pytest.mark.parametrize(("n", "dtype"), grid(2, 20, complex_up_to=2))
def test_every_door_gives_the_same_bits(n, dtype):
    a, b = mixed(dtype, n)
    x = dasksolve.solve(a, b, on_singular="nan")
    assert np.flatnonzero(np.isnan(x).any(axis=(1, 2))).tolist() == [8, 10]
    alone = [dasksolve.solve(a[m], b[m], on_singular="nan") for m in range(len(a))]
    assert same_bits(np.stack(alone), x)
    one = [dasksolve.solve(a, b[..., j], on_singular="nan") for j in range(3)]
    assert same_bits(np.stack(one, axis=-1), x)
    with np.errstate(all="raise"):
        assert same_bits(dasksolve.solve_ex(a, b).x, x)
        f = dasksolve.factor(a)
        assert same_bits(f.solve(b), x)
    chunked = da.from_array(a, chunks=(5, n, n)), da.from_array(b, chunks=(5, n, 3))
    assert same_bits(dasksolve.solve(*chunked, on_singular="nan").compute(), x)
    assert same_bits(dasksolve.factor(chunked[0]).solve(b).compute(), x)
    s = dasksolve.solve_ex(a, b)
    assert s.status[8] == Status.SINGULAR
    assert not np.isnan(s.rcond[np.isfinite(x).any(axis=(1, 2))]).any()
    assert not np.isnan(s.backward_error[np.isfinite(x).any(axis=(1, 2))]).any()


@pytest.mark.slow
@pytest.mark.parametrize(("n", "dtype"), grid(2, 20, complex_up_to=2))
def test_numba_gives_the_same_bits(n, dtype):
    a, b = mixed(dtype, n)
    x, status = np.empty_like(b), np.empty(len(a), np.int8)
    solve_into(a, b, x, status)
    assert same_bits(x, dasksolve.solve(a, b, on_singular="nan"))
    found = dasksolve.solve_ex(a, b).status
    assert np.array_equal(status, np.where(found == Status.ILL_CONDITIONED, Status.OK, found))


@numba.njit
def solve_into(a, b, x, status):
    dasksolve.nopython.solve_into(a, b, x, status)


def test_bands_are_solved_as_the_matrices():
    rng = np.random.default_rng(0)
    lower, diagonal, upper = rng.integers(-8, 9, (3, 9, 30)) * 2.0**-1074 * 2.0**10
    diagonal[diagonal == 0] = 2.0**-1064
    lower[5], diagonal[5], upper[5] = 0, 1, 0
    b = rng.integers(-8, 9, (9, 30)) * 2.0**-1060
    lower[:, 0] = upper[:, -1] = np.nan
    x = dasksolve.solve_tridiagonal(lower, diagonal, upper, b)
    dense = np.zeros((9, 30, 30))
    rows = np.arange(30)
    dense[:, rows, rows] = diagonal
    dense[:, rows[1:], rows[:-1]] = lower[:, 1:]
    dense[:, rows[:-1], rows[1:]] = upper[:, :-1]
    assert np.isfinite(x).all()
    assert same_bits(x, dasksolve.solve(dense, b, assume_a="tridiagonal"))
    error = dasksolve.solve_ex(dense, b, assume_a="tridiagonal").backward_error
    assert error.max() < 1e-15


def test_a_tiny_matrix_that_is_not_positive_definite_is_called_so():
    a = np.stack([np.eye(3), np.diag([1.0, -1.0, 1.0]), np.diag([1.0, 0.0, 1.0])]) * 1e-310
    x = dasksolve.solve_ex(a, np.full((3, 3), 1e-310), assume_a="pos")
    assert x.status.tolist() == [0] + [Status.NOT_POSITIVE_DEFINITE] * 2
    assert x.x[0] == pytest.approx(1, rel=1e-15)


def test_factors_keep_what_they_were_scaled_by(tmp_path):
    a, b = mixed(np.dtype(float), 5)
    f = dasksolve.factor(a)
    f.to_zarr(tmp_path / "f")
    again = dasksolve.Factorization.open(tmp_path / "f")
    assert same_bits(again.solve(b).compute(), f.solve(b))
    near = np.linalg.solve(scaling.shifted(a[1], 1000).T, scaling.shifted(b[1], 1000))
    np.testing.assert_allclose(f.solve(b, transposed=True)[1], near)
    sign, logabsdet = f.slogdet()
    for m in (1, 4, 6):
        exact = determinant(a[m])
        assert sign[m] == np.sign(exact)
        size = abs(exact)
        assert logabsdet[m] == pytest.approx(math.log(size.numerator) - math.log(size.denominator))


def determinant(a):
    rows, result = [[Fraction(float(v)) for v in row] for row in a], Fraction(1)
    for k in range(len(rows)):
        chosen = max(range(k, len(rows)), key=lambda i: abs(rows[i][k]))
        if chosen != k:
            rows[k], rows[chosen] = rows[chosen], rows[k]
            result = -result
        result *= rows[k][k]
        for i in range(k + 1, len(rows)):
            factor = rows[i][k] / rows[k][k]
            rows[i] = [x - factor * y for x, y in zip(rows[i], rows[k], strict=True)]
    return result


def test_scaling_is_exact():
    rng = np.random.default_rng(0)
    a = rng.standard_normal((50, 4, 4)) * 2.0 ** rng.integers(-300, 300, (50, 4, 4))
    a[0, 2] = 0
    scaled, rows, columns = scaling.equilibrated(a)
    back = scaling.shifted(scaled, -rows[..., None] - columns[..., None, :])
    assert same_bits(back, a)
    assert scaled.max() < 1
    assert (np.abs(scaled).max(axis=-2) >= 0.5).all()
