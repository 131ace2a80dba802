"""Backward errors that `check` finds quickly."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from dasksolve.batch.diagnosis import backward_errors, errors_to_rounding
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
