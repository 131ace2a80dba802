"""Backward errors that `check` finds quickly."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from dasksolve.batch.diagnosis import (
    backward_errors,
    errors_of_one_matrix,
    errors_to_rounding,
)
from dasksolve.batch.options import STRUCTURES, Options
from dasksolve.batch.structure import meant


@pytest.mark.parametrize("lower", [False, True])
@pytest.mark.parametrize("assume_a", STRUCTURES)
@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128"])
def test_quick_backward_errors_are_right_to_rounding(dtype, assume_a, lower):
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((20, 7, 7)), rng.standard_normal((20, 7, 2))
    if dtype.startswith("complex"):
        a = a + 1j * rng.standard_normal(a.shape)
    a += 9 * np.eye(7)
    a, b = a.astype(dtype), b.astype(dtype)
    options = Options.of(assume_a, lower)
    x = np.linalg.solve(meant(a, options), b)
    x[3, 2, 1] += np.linalg.norm(x[3])  # no solution at all
    x[5, 0] = np.nan
    a[7] *= np.finfo(dtype).max / 100  # out of the range of the quick one
    expected = backward_errors(meant(a, options), b, x)
    found = errors_to_rounding(a, b, x, options)
    assert np.isnan(found[5])
    assert found[3] > 1e-3
    assert_allclose(found, expected, atol=8 * np.finfo(dtype).eps, rtol=1e-3)


@pytest.mark.parametrize("assume_a", ["gen", "her", "tridiagonal"])
@pytest.mark.parametrize("dtype", ["float32", "complex128"])
def test_backward_errors_of_vectors_that_share_a_matrix(dtype, assume_a):
    rng = np.random.default_rng(0)
    options = Options.of(assume_a, True)
    a = (rng.standard_normal((1, 7, 7)) + 9 * np.eye(7)).astype(dtype)
    b = rng.standard_normal((50_000, 7, 1)).astype(dtype)  # more than one piece
    full = meant(a, options)
    x = np.linalg.solve(full, b)
    x[3, 2] += np.linalg.norm(x[3])  # no solution at all
    x[5, 0] = np.nan
    b[7] = x[7] = 0
    x[49_999], b[49_999] = np.finfo(dtype).max / 20, 0  # the product overflows in this dtype
    expected = backward_errors(full, b, x)
    found = errors_of_one_matrix(a, b, x, options)
    assert np.isnan(found[5])
    assert found[3] > 1e-3
    assert_allclose(found, expected, atol=8 * np.finfo(dtype).eps, rtol=1e-3)


@pytest.mark.parametrize("lower", [False, True])
@pytest.mark.parametrize("assume_a", [name for name in STRUCTURES if name != "gen"])
@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_quick_backward_errors_of_any_order_and_number(dtype, assume_a, lower):
    rng, options = np.random.default_rng(1), Options.of(assume_a, lower)
    for systems, n, columns in (
        (3, 1, 1),
        (9, 1, 2),
        (11, 2, 1),
        (8, 4, 3),
        (5, 9, 1),
        (19, 17, 18),
    ):
        a, b = rng.standard_normal((systems, n, n)), rng.standard_normal((systems, n, columns))
        if dtype == "complex128":
            a = a + 1j * rng.standard_normal(a.shape)
        full = meant(a, options)
        x = rng.standard_normal(b.shape).astype(dtype)
        a[meant(np.ones_like(a), options) == 0] = np.nan  # what is not read is no number
        if assume_a in ("pos", "sym", "her"):
            a[:, ~np.tri(n, dtype=bool) if lower else np.tri(n, k=-1, dtype=bool)] = np.nan
        b[-1] = 2 * (full @ x).real[-1]
        found = errors_to_rounding(a, b, x, options)
        rest, norms = abs(full @ x - b).max(axis=1), abs(full).sum(axis=2).max(axis=1)
        sizes = norms[:, None] * abs(x).max(axis=1) + abs(b).max(axis=1)
        assert_allclose(found, (rest / sizes).max(axis=1), rtol=1e-12)
