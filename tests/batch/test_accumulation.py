"""Observations that come a part after the other."""

import numpy as np
import pytest

from dasksolve.batch import fit as fits
from dasksolve.batch.accumulation import Accumulation
from dasksolve.batch.regression import run


@pytest.mark.slow
@pytest.mark.parametrize("own", [False, True], ids=["shared", "own"])
@pytest.mark.parametrize("at_once", [1, 3, 10])  # sums are taken of four
@pytest.mark.parametrize("n", [1, 3, 4])  # LLVM failed at answers of one column, and of an odd one
def test_parts_give_the_bits_of_the_whole(n: int, at_once: int, own: bool) -> None:
    rng = np.random.default_rng(n)
    rows, series = 53, 333
    design, y = rng.standard_normal((rows, n)), rng.standard_normal((rows, series)).astype("f4")
    y[rng.random(y.shape) < 0.3] = np.nan
    y[:, 7], y[3, 9], y[:, 11] = 0, np.inf, np.nan
    weights = rng.random(y.shape if own else rows).astype("f4")
    weights[rng.random(weights.shape) < 0.1] = 0
    fit = fits.describe(y.shape, y.dtype, design, fits.FitOptions(covariance=True))
    parts = Accumulation(fit, y.shape, at_once, None, series)
    starts = range(0, rows, at_once)
    for start in starts:
        parts.add(y[start : start + at_once], weights[start : start + at_once], start)
    parts.turn()
    for start in starts:
        parts.add(y[start : start + at_once], weights[start : start + at_once], start)
    found = parts.answers()
    assert not parts.care(found)
    for one, other in zip(parts.regression(found), run(y, weights, fit), strict=True):
        np.testing.assert_array_equal(one, other)
