"""Iterative refinement: `refine=True`."""

from fractions import Fraction

import dask
import dask.array as da
import numpy as np
import pytest
import zarr
from families import SOME_DTYPES, same_bits, wilkinson

import dasksolve
from dasksolve import Status, kernels


def batch(systems=12, n=40):
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((systems, n, n)), rng.standard_normal((systems, n, 2))
    a[3] = a[7] = wilkinson(n)
    a[5] = 0
    return a, b


@pytest.mark.parametrize("dtype", SOME_DTYPES)
def test_the_residual_is_exact_but_for_its_last_rounding(dtype):
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 3, 12, 12)), rng.standard_normal((2, 3, 12, 2))
    a, b = ((v[0] + 1j * v[1] if dtype.kind == "c" else v[0]).astype(dtype) for v in (a, b))
    x, r = dasksolve.solve(a, b), np.empty_like(b)
    kernels.residuals(dtype)(a, b, x, r)

    def exact(*pairs):
        return float(sum(Fraction(float(p)) * Fraction(float(q)) for p, q in pairs))

    for m, i, c in np.ndindex(b.shape):
        row, column, right = a[m, i], x[m, :, c], b[m, i, c]
        real = [(right.real, 1), *zip(-row.real, column.real, strict=True)]
        real += zip(row.imag, column.imag, strict=True)
        imaginary = [(right.imag, 1), *zip(-row.real, column.imag, strict=True)]
        imaginary += zip(-row.imag, column.real, strict=True)
        expected = exact(*real) + (1j * exact(*imaginary) if dtype.kind == "c" else 0)
        assert abs(r[m, i, c] - expected) <= 4 * np.finfo(dtype).eps * np.abs(r).max()


def test_unstable_answers_are_refined_and_stable_ones_kept():
    a, b = batch()
    plain, refined = dasksolve.solve_ex(a, b), dasksolve.solve_ex(a, b, refine=True)
    eps = np.finfo(float).eps
    assert (plain.backward_error[[3, 7]] > 1e3 * eps).all()
    assert (refined.backward_error[[3, 7]] <= 4 * eps).all()
    good = plain.backward_error <= 4 * eps
    assert same_bits(refined.x[good], plain.x[good])
    assert np.isnan(refined.x[5]).all()
    assert np.array_equal(refined.status, plain.status)
    assert refined.status[5] == Status.SINGULAR
    for one, every in zip(dasksolve.solve_ex(a[3], b[3], refine=True), refined, strict=True):
        assert same_bits(one, every[3])


@pytest.mark.parametrize("lost", [np.nan, np.inf])
def test_a_column_that_is_not_finite_keeps_no_other_from_being_refined(lost):
    a, b = batch()
    expected = dasksolve.solve_ex(a, b[..., :1], refine=True)
    b[:, 4, 1] = lost
    found = dasksolve.solve_ex(a, b, refine=True)
    assert same_bits(found.x[..., :1], expected.x)
    assert same_bits(found.backward_error, expected.backward_error)
    assert np.isnan(found.x[..., 1]).all()


def test_every_face_refines_to_the_same_bits(tmp_path):
    a, b = batch()
    expected = dasksolve.solve_ex(a, b, refine=True)
    lazy = dasksolve.solve_ex(da.from_array(a, chunks=(5, -1, -1)), b, refine=True)
    for one, two in zip(dask.compute(*lazy), expected, strict=True):
        assert same_bits(one, two)
    b = np.random.default_rng(1).standard_normal((12, 40, 80))
    b[:, :-6, :40] = 0  # whose solutions alone are exact enough
    expected = dasksolve.solve_ex(a, b, refine=True)
    with pytest.warns(dasksolve.PerformanceWarning, match="b has chunks of"):
        lazy = dasksolve.solve_ex(a, da.from_array(b, chunks=(5, -1, 40)), refine=True)
    for one, two in zip(dask.compute(*lazy), expected, strict=True):
        assert same_bits(one, two)
    paths = [str(tmp_path / name) for name in ("a", "b", "out")]
    for path, values in zip(paths, (a, b), strict=False):
        zarr.create_array(path, data=values, chunks=(4, *values.shape[1:]))
    report = dasksolve.solve_zarr(*paths, refine=True)
    assert same_bits(zarr.open_array(paths[2] + "/x")[...], expected.x)
    assert report.counts[Status.SINGULAR] == 1
    with pytest.raises(ValueError, match=r"options\.refine was True, is now False"):
        dasksolve.solve_zarr(*paths, resume=True)
