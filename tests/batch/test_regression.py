"""Regressions of many series on one design: against statsmodels, 60 digits, and themselves."""

import tracemalloc

import dask.array as da
import mpmath
import numpy as np
import pytest
import statsmodels.api as sm

import dasksolve
from dasksolve import PerformanceWarning, Status, kernels
from dasksolve.batch import basis, fit, regression
from dasksolve.storage.conventions import Packing

P = 120
MONTHS = np.arange(P) / 12


def harmonics(years, *columns):
    waves = [f(2 * np.pi * k * MONTHS) for k in (1, 2) for f in (np.cos, np.sin)]
    return np.stack([np.ones(P), years, *waves, *columns], axis=1)


DESIGN = harmonics(MONTHS)


def series(gap=0.3, count=60, dtype=np.float64, seed=0):
    """(P, count) with gaps, and with all the special cases that a series can be."""
    rng = np.random.default_rng(seed)
    y = 10 + 0.3 * MONTHS[:, None] + np.sin(2 * np.pi * MONTHS)[:, None]
    y = (y + 0.2 * rng.standard_normal((P, count))).astype(dtype)
    y[rng.random(y.shape) < gap] = np.nan
    n = DESIGN.shape[1]
    for column, known in ((1, 0), (2, n), (3, n - 1), (4, n + 1)):
        y[:, column] = np.nan
        y[5 : 5 + known, column] = 1 + rng.random(known)
    y[7, 5], y[9, 6] = np.inf, -np.inf
    y[:, 7], y[:, 8] = 0, 3
    y[:, 9] *= np.sqrt(np.finfo(dtype).max) / 1e3
    y[:, 10] *= np.sqrt(np.finfo(dtype).tiny)
    return y


EXPECTED = {1: 6, 3: 6, 5: 3, 6: 3}


def assert_same(found, wanted):
    for name, one, other in zip(found._fields, found, wanted, strict=True):
        np.testing.assert_array_equal(one, other, err_msg=name)


def along(found):
    """Results of series that lie along the last axis as those of the first."""
    coef, stderr, *others = found
    return dasksolve.Regression(coef.T, stderr.T, *others)


# Against others


@pytest.mark.parametrize("gap", [0.2, 0.5, 0.8])
@pytest.mark.parametrize("weighted", [False, True], ids=["equal", "weights"])
def test_standard_errors_are_those_of_statsmodels(gap, weighted):
    y = series(gap)
    w = np.random.default_rng(1).uniform(0.1, 3, y.shape) if weighted else np.ones(y.shape)
    found = dasksolve.regress(y, DESIGN, weights=w if weighted else None, covariance=True)
    for m in (0, *range(11, 60)):
        known = ~np.isnan(y[:, m])
        wanted = sm.WLS(y[known, m], DESIGN[known], weights=w[known, m]).fit()
        assert found.count[m] == known.sum()
        np.testing.assert_allclose(found.coef[:, m], wanted.params, rtol=1e-8)
        np.testing.assert_allclose(found.stderr[:, m], wanted.bse, rtol=1e-10)
        np.testing.assert_allclose(found.rss[m], wanted.ssr, rtol=1e-10)
        scale = np.outer(wanted.bse, wanted.bse)
        np.testing.assert_allclose(
            found.covariance[m] / scale, wanted.cov_params() / scale, atol=1e-10
        )


@pytest.mark.parametrize("gap", [0.2, 0.5, 0.8])
def test_a_ridge_is_more_observations_of_zero(gap):
    y, ridge = series(gap), np.array([0, 0.5, 1, 2, 3, 100.0])
    w = np.random.default_rng(1).uniform(0.1, 3, P)
    found = dasksolve.regress(y, DESIGN, weights=w, ridge=ridge)
    for m in range(11, 60):
        known = ~np.isnan(y[:, m])
        rows = np.concatenate([DESIGN[known], np.diag(np.sqrt(ridge))])
        weights = np.concatenate([w[known], np.ones(6)])
        wanted = sm.WLS(np.pad(y[known, m], (0, 6)), rows, weights=weights).fit()
        residual = y[known, m] - DESIGN[known] @ wanted.params
        rss = (w[known] * residual**2).sum()
        variances = np.diag(wanted.normalized_cov_params)
        np.testing.assert_allclose(found.coef[:, m], wanted.params, rtol=1e-8)
        np.testing.assert_allclose(found.rss[m], rss, rtol=1e-10)
        np.testing.assert_allclose(
            found.stderr[:, m], np.sqrt(variances * rss / (known.sum() - 6)), rtol=1e-10
        )


HARD = {
    "decimal years, cubed": np.stack([(2001 + MONTHS) ** k for k in range(4)], axis=1),
    "years to the fifth": np.stack([MONTHS**k for k in range(6)], axis=1),
    "days since year 0": harmonics(730500 + MONTHS * 365.25),
}


@pytest.mark.parametrize("gap", [0.2, 0.7])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("design", HARD.values(), ids=HARD)
def test_fitted_values_are_no_worse_than_those_of_lstsq(design, dtype, gap):
    y = series(gap, 16, dtype)[:, 11:]
    single = dtype == np.float32 and design.shape[1] == 4
    found = dasksolve.regress(y, design, on_deficient="lstsq" if single else "nan")
    assert set(found.status) == {Status.RANK_DEFICIENT if single else Status.OK}
    errors = []
    with mpmath.workdps(60):
        for m in range(y.shape[1]):
            known = ~np.isnan(y[:, m])
            rows = mpmath.matrix(design[known].tolist())
            right = mpmath.matrix(y[known, m].astype(float).tolist())
            exact = rows * mpmath.qr_solve(rows, right)[0]
            lapack = np.linalg.lstsq(design[known].astype(dtype), y[known, m], rcond=None)[0]
            fitted = [rows * mpmath.matrix(c.tolist()) for c in (found.coef[:, m], lapack)]
            errors.append([float(max(map(abs, values - exact))) for values in fitted])
    ours, theirs = np.max(errors, axis=0)
    assert ours <= 1.01 * theirs


def test_a_basis_is_right_to_the_last_bit():
    design = HARD["decimal years, cubed"]
    found = basis.orthogonalized(design, np.zeros(4))
    found_r = found.packed[:16].reshape(4, 4)
    with mpmath.workdps(60):
        q, r = mpmath.qr(mpmath.matrix(np.ldexp(design, -found.exponents).tolist()), mode="skinny")
        for i in range(4):
            sign = mpmath.sign(r[i, i])
            assert max(abs(q[k, i] * sign - found.q[k, i]) for k in range(P)) < 2**-53
            for j in range(i, 4):
                assert abs(r[i, j] * sign - found_r[i, j]) <= abs(r[i, j]) * 2**-53


# Bits


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_series_has_the_same_bits_wherever_it_stands(dtype):
    y = series(dtype=dtype)
    wanted = dasksolve.regress(y, DESIGN, covariance=True)
    assert_same(along(dasksolve.regress(y.T.copy(), DESIGN, axis=1, covariance=True)), wanted)
    assert_same(dasksolve.regress(y.T.copy().T, DESIGN, covariance=True), wanted)
    assert_same(dasksolve.regress(y, DESIGN, covariance=True, workers=2), wanted)
    apart = np.repeat(y, 2, axis=1)[:, ::2]
    assert_same(dasksolve.regress(apart, DESIGN, covariance=True), wanted)
    between = np.ascontiguousarray(y.reshape(P, 3, 20).swapaxes(0, 1))
    found = dasksolve.regress(between, DESIGN, axis=1)
    np.testing.assert_array_equal(found.coef.swapaxes(0, 1).reshape(6, 60), wanted.coef)
    for start, stop in ((0, 1), (3, 20), (17, 60), (59, 60)):
        found = dasksolve.regress(y[:, start:stop], DESIGN)
        np.testing.assert_array_equal(found.coef, wanted.coef[:, start:stop])
        np.testing.assert_array_equal(found.stderr, wanted.stderr[:, start:stop])
    one = dasksolve.regress(y[:, 20], DESIGN)
    assert one.coef.shape == (6,)
    np.testing.assert_array_equal(one.coef, wanted.coef[:, 20])


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("place", [None, 0, 4_000, -1])
def test_no_thread_looks_through_what_the_others_have_fitted(place, axis, workers, monkeypatch):
    # It would be in another cache: the thread that has fitted a run knows if there is more to do.
    looks = []

    def looking(*given, look=regression.left_over):
        looks.append(given)
        return look(*given)

    monkeypatch.setattr(regression, "left_over", looking)
    monkeypatch.setattr(regression, "PIECE", 1 << 20)  # several runs for each thread
    y = np.tile(series(0.2)[:, 11:], 100)
    if place is not None:
        y[3, place] = np.inf
    given = y.T.copy() if axis else y
    status = dasksolve.regress(given, DESIGN, axis=axis, workers=workers).status
    np.testing.assert_array_equal(np.flatnonzero(status), [] if place is None else [place % 4_900])
    assert len(looks) == (place is not None)


@pytest.mark.parametrize("threads", [1, 2, 7])
@pytest.mark.parametrize(
    ("above", "series"), [(1, 100_003), (1, 35_000), (3, 40_000), (500, 17), (2, 1)]
)
def test_runs_cover_all_series_once_and_are_short_where_threads_end(above, series, threads):
    of = fit.describe((above, P, series), np.dtype(float), DESIGN, fit.FitOptions(axis=1))
    runs = list(regression._runs(of, above, series, threads))
    assert [(a, start) for a, start, _ in runs] == [(0, 0)] + [
        (a, stop) if stop < series else (a + 1, 0) for a, _, stop in runs[:-1]
    ]
    assert runs[-1][::2] == (above - 1, series)
    sizes = [stop - start for _, start, stop in runs]
    most, least = (regression._size(of, size) for size in (regression.RUN, regression.PIECE))
    few = regression.STRIP  # too few for a call of their own
    assert max(sizes) < most + few
    assert max(sizes[-threads:]) < (most if threads == 1 else least) + few
    assert min(sizes) >= min(few, series)
    if threads * most < above * series:
        assert sizes[0] == min(most, series)


@pytest.mark.parametrize("observations", [5, 53, P])  # in blocks of four, each the whole one's bits
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_weights_in_common_and_of_each_series_give_the_same_bits(dtype, observations):
    """What series have in common is looked up; with weights of their own it is summed."""
    rng = np.random.default_rng(observations)
    y, design = rng.standard_normal((observations, 75)).astype(dtype), DESIGN[:observations, :3]
    y[rng.random(y.shape) < 0.3] = np.nan
    weights = rng.random(observations)
    weights[2] = 0
    for given in (np.ones(observations), weights):
        wanted = dasksolve.regress(y, design, weights=given, ridge=0.5)
        own = np.broadcast_to(given[:, None], y.shape)
        assert_same(dasksolve.regress(y, design, weights=own, ridge=0.5), wanted)
        few = dasksolve.regress(y[:, :9], design, weights=given, ridge=0.5)
        assert_same(few, [values if values is None else values[..., :9] for values in wanted])


def test_more_observations_than_shares_are_kept_of():
    rng = np.random.default_rng(0)
    y, design = rng.standard_normal((40_001, 20)), rng.standard_normal((40_001, 3))
    y[rng.random(y.shape) < 0.3] = np.nan
    found = dasksolve.regress(y, design)
    for m in (0, 19):
        known = ~np.isnan(y[:, m])
        coef, rss, *_ = np.linalg.lstsq(design[known], y[known, m])
        np.testing.assert_allclose(found.coef[:, m], coef, rtol=1e-10)
        np.testing.assert_allclose(found.rss[m], rss[0], rtol=1e-10)


@pytest.mark.parametrize("count", [8, 100, 300, 1000])
@pytest.mark.parametrize("weighted", [False, True], ids=["equal", "weights"])
def test_strips_of_any_length_give_the_same_bits(count, weighted):
    rng = np.random.default_rng(0)
    y, design = rng.standard_normal((30, count)), rng.standard_normal((30, 2))
    w = rng.random(y.shape) if weighted else None
    across = dasksolve.regress(y, design, weights=w)
    w = w.T.copy() if weighted else None
    assert_same(along(dasksolve.regress(y.T.copy(), design, axis=1, weights=w)), across)


@pytest.mark.parametrize("full", [False, True], ids=["observations", "all"])
def test_missing_masked_and_without_weight_are_the_same(full):
    y = series()
    w = np.random.default_rng(2).uniform(0.5, 2, y.shape if full else P)
    wanted = dasksolve.regress(y, DESIGN, weights=w)
    missing = np.isnan(y)
    masked = np.ma.MaskedArray(np.where(missing, 7, y), missing)
    assert_same(dasksolve.regress(masked, DESIGN, weights=w), wanted)
    weights = np.where(missing, 0, w if full else w[:, None])
    assert_same(dasksolve.regress(np.where(missing, 7, y), DESIGN, weights=weights), wanted)
    weights[missing] = np.nan
    assert_same(dasksolve.regress(np.where(missing, 7, y), DESIGN, weights=weights), wanted)
    if not full:
        w[10] = 0
        y[10] = np.nan
        wanted = dasksolve.regress(y, DESIGN)
        y[10] = 8
        ones = np.ones(P)
        ones[10] = 0
        assert_same(dasksolve.regress(y, DESIGN, weights=ones), wanted)


# Mathematics


def test_a_row_that_is_left_out_is_missing():
    y = series(0.1)[:, 11:]
    y[40] = np.nan
    found = dasksolve.regress(y, DESIGN)
    wanted = dasksolve.regress(np.delete(y, 40, axis=0), np.delete(DESIGN, 40, axis=0))
    np.testing.assert_allclose(found.coef, wanted.coef, rtol=1e-11)
    np.testing.assert_allclose(found.stderr, wanted.stderr, rtol=1e-11)


def test_a_design_of_subnormal_numbers_has_answers_that_are_in_range():
    y = series(0.1)[:, 11:]
    found = dasksolve.regress(y * 2.0**-1000, DESIGN * 2.0**-1030)
    lost = dasksolve.regress(y, DESIGN * 2.0**-1070)
    rounded = dasksolve.regress(y, np.ldexp(DESIGN * 2.0**-1030, 1030))
    np.testing.assert_allclose(found.coef, rounded.coef * 2.0**30, rtol=1e-6)
    assert set(found.status) == {Status.OK}
    assert set(lost.status) == {Status.NONFINITE}
    assert np.isnan(lost.coef).all()


@pytest.mark.parametrize(
    ("dtype", "y_power", "weights_power", "design_power"),
    [
        pytest.param("f4", 62, 0, 0, id="few observations, near the largest number"),
        pytest.param("f4", -67, 40, 0, id="variances times noise of single precision"),
        pytest.param("f8", -540, 140, 0, id="variances times noise of double precision"),
        pytest.param("f4", -40, 0, -80, id="covariances of a tiny design"),
        pytest.param("f4", 40, 0, 80, id="covariances of a huge design"),
        pytest.param("f8", -400, 0, -530, id="covariances of a tiny design, double precision"),
    ],
)
def test_errors_that_are_in_range_are_right_though_what_makes_them_is_not(
    dtype, y_power, weights_power, design_power
):
    y = np.random.default_rng(0).standard_normal((P, 60)).astype(dtype)
    if y_power == 62:
        y[np.random.default_rng(1).random(y.shape) < 0.9] = np.nan
    weights = np.full(P, 2.0**weights_power)
    scaled = np.ldexp(y, y_power), DESIGN * 2.0**design_power
    found = dasksolve.regress(*scaled, weights=weights, covariance=True)
    wanted = dasksolve.regress(y.astype(float), DESIGN, covariance=True)
    tolerance = 1e3 * np.finfo(dtype).eps
    back = design_power - y_power
    np.testing.assert_allclose(np.ldexp(found.stderr, back), wanted.stderr, rtol=tolerance)
    if design_power:
        covariance = np.ldexp(found.covariance.astype(float), 2 * back)
        tolerance *= wanted.covariance.max()
        np.testing.assert_allclose(covariance, wanted.covariance, rtol=0, atol=tolerance)


@pytest.mark.parametrize("weights", [(1e160, 1e-160), (1e299, 1e-299), (1.0, 1e-300)])
def test_heavy_and_light_observations_that_have_no_coefficient_in_common(weights):
    design, y = np.repeat(np.eye(2), 4, axis=0), np.zeros((8, 3))  # else rounding is all of rss
    y[4:] = np.random.default_rng(0).standard_normal((4, 3))
    found = dasksolve.regress(y, design, weights=np.repeat(weights, 4), covariance=True)
    variances = ((y[4:] - y[4:].mean(axis=0)) ** 2).sum(axis=0) / 6 / 4
    assert set(found.status) == {Status.OK}
    np.testing.assert_allclose(found.coef[1], y[4:].mean(axis=0), rtol=1e-13)
    np.testing.assert_allclose(found.stderr[1], np.sqrt(variances), rtol=1e-13)
    np.testing.assert_allclose(found.covariance[:, 1, 1], variances, rtol=1e-13)


def test_covariances_in_units_beyond_single_precision():
    design = np.stack([np.ones(20), np.linspace(1, 2, 20)], axis=1)
    y = np.random.default_rng(0).standard_normal((20, 16)).astype(np.float32)
    y[:, 0] = 0
    wanted = dasksolve.regress(y, design, covariance=True).covariance[:, 0, 1]
    y *= np.float32(1e-17)
    found = dasksolve.regress(y, design * [1e-5, 1e-45], covariance=True)  # 1e45 is infinite
    assert not found.covariance[0].any()
    np.testing.assert_allclose(found.covariance[:, 0, 1], wanted * 1e16, rtol=1e-4)


@pytest.mark.parametrize("power", [-1000, -500, 0])
def test_a_ridge_may_be_large_beside_any_design(power):
    y = series(0)[:, 11:]
    found = dasksolve.regress(y, DESIGN * 2.0**-1030, ridge=2.0**power)
    assert set(found.status) == {Status.OK}
    wanted = np.ldexp(DESIGN.T @ y, -1030 - power)
    np.testing.assert_allclose(found.coef, wanted, rtol=1e-9, atol=1e-321 + abs(wanted).max() / 1e9)


@pytest.mark.parametrize("observations", [1, 2, 3, 9])
def test_a_ridge_on_the_careful_path(observations):
    y, design = np.ones((observations, 4)), np.ones((observations, 2))
    design[:, 1] = np.arange(observations)
    y[0, 1], y[0, 2] = np.inf, np.nan
    y[:, 3] = 1e200
    found = dasksolve.regress(y, design, ridge=1, min_count=0, covariance=True)
    assert found.status.tolist() == [Status.OK, Status.NONFINITE, Status.OK, Status.OK]
    for m in (0, 2, 3):
        known = ~np.isnan(y[:, m])
        gram = design[known].T @ design[known] + np.eye(2)
        scale = 1e200 if m == 3 else 1
        wanted = np.linalg.solve(gram, design[known].T @ (y[known, m] / scale))
        np.testing.assert_allclose(found.coef[:, m] / scale, wanted, atol=1e-14)
    assert np.isnan(found.covariance[0]).all() == (observations < 3)


@pytest.mark.parametrize("gap", [0.2, 0.8])
def test_scaling_and_order_change_what_they_must(gap):
    y = series(gap)[:, 11:]
    found = dasksolve.regress(y, DESIGN)
    scales = 2.0 ** np.array([0, 30, -40, 5, 300, -7])
    scaled = dasksolve.regress(y, DESIGN * scales)
    np.testing.assert_array_equal(scaled.coef * scales[:, None], found.coef)
    np.testing.assert_array_equal(scaled.rcond, found.rcond)
    order = np.random.default_rng(0).permutation(P)
    permuted = dasksolve.regress(y[order], DESIGN[order])
    np.testing.assert_allclose(permuted.coef, found.coef, rtol=1e-9)
    np.testing.assert_allclose(permuted.rss, found.rss, rtol=1e-11)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("on_deficient", ["nan", "lstsq"])
def test_each_status_at_its_place(dtype, on_deficient):
    y = series(dtype=dtype)
    found = dasksolve.regress(y, DESIGN, on_deficient=on_deficient, min_count=6)
    wanted = np.zeros(60, int)
    wanted[list(EXPECTED)] = list(EXPECTED.values())
    np.testing.assert_array_equal(found.status, wanted)
    np.testing.assert_array_equal(found.count, (~np.isnan(y)).sum(axis=0))
    np.testing.assert_array_equal(
        np.isnan(found.coef[0]),
        wanted == Status.NONFINITE if on_deficient == "lstsq" else wanted > 0,
    )
    assert np.isnan(found.stderr[:, [1, 2, 3, 5, 6]]).all()
    assert not np.isnan(found.stderr[:, 4]).any()
    for m in (7, 8):
        value = y[0, m]
        np.testing.assert_allclose(found.coef[:, m], [value, *[0] * 5], atol=1e-6)
    assert (found.coef[:, 7] == found.stderr[:, 7]).all()
    tolerance = 1e3 * np.finfo(dtype).eps
    for m in (9, 10):
        size = np.nanmax(abs(y[:, m])).astype(float)
        known = ~np.isnan(y[:, m])
        coef = np.linalg.lstsq(DESIGN[known], y[known, m] / size, rcond=None)[0]
        np.testing.assert_allclose(found.coef[:, m] / size, coef, atol=tolerance)
    if on_deficient == "lstsq":
        known = ~np.isnan(y[:, 3])
        coef = np.linalg.lstsq(DESIGN[known], y[known, 3].astype(float), rcond=None)[0]
        np.testing.assert_allclose(found.coef[:, 3], coef, atol=tolerance)
        assert not found.coef[:, 1].any()


@pytest.mark.parametrize("n", [2, fit.MOST + 1])
@pytest.mark.parametrize(
    ("on_deficient", "status"), [("nan", Status.TOO_FEW), ("lstsq", Status.NONFINITE)]
)
def test_too_few_observations_are_that_whatever_they_are(n, on_deficient, status):
    rng = np.random.default_rng(0)
    y = rng.standard_normal((30, 20))
    y[0, 3], y[20:, 3] = np.inf, np.nan
    design = rng.standard_normal((30, n))
    found = dasksolve.regress(y, design, min_count=25, on_deficient=on_deficient)
    assert found.status[3] == status
    assert found.count[3] == 20
    assert np.isnan(found.coef[:, 3]).all()


@pytest.mark.parametrize("m", [1, 3, 5, 9])
def test_a_single_series_is_one_of_many(m):
    y = series()
    wanted = dasksolve.regress(y[:, [m]], DESIGN, on_deficient="lstsq", covariance=True)
    found = dasksolve.regress(y[:, m], DESIGN, on_deficient="lstsq", covariance=True)
    for name, one, other in zip(found._fields, found, wanted, strict=True):
        np.testing.assert_array_equal(one, other.reshape(one.shape), err_msg=name)


def test_deficient_rows_of_a_good_design_are_found_and_solved():
    y, design = np.full((8, 2), np.nan), np.ones((8, 2))
    design[:, 1] = [1, 1, 1, 1, 2, 3, 4, 5]
    y[:, 0] = 2 * design[:, 1]
    y[:4, 1] = [1, 2, 3, 4]
    found = dasksolve.regress(y, design)
    assert found.status.tolist() == [Status.OK, Status.RANK_DEFICIENT]
    assert found.rcond[1] < 1e-15
    np.testing.assert_allclose(found.coef[:, 0], [0, 2], atol=1e-14)
    assert np.isnan(found.coef[:, 1]).all()
    found = dasksolve.regress(y, design, on_deficient="lstsq")
    np.testing.assert_allclose(found.coef[:, 1], [1.25, 1.25])
    np.testing.assert_allclose(found.rss[1], 5)
    found = dasksolve.regress(y, design, ridge=0.1)
    assert found.status.tolist() == [Status.OK] * 2


def test_a_design_without_full_rank_has_no_answers_but_the_shortest():
    rng = np.random.default_rng(0)
    design = rng.standard_normal((20, 3))[:, [0, 1, 2, 1]]
    y = rng.standard_normal((20, 5))
    assert set(dasksolve.regress(y, design).status) == {Status.RANK_DEFICIENT}
    assert set(dasksolve.regress(y, 0 * design, rcond=0).status) == {Status.RANK_DEFICIENT}
    found = dasksolve.regress(y, design, on_deficient="lstsq")
    np.testing.assert_allclose(found.coef, np.linalg.lstsq(design, y, rcond=None)[0], atol=1e-13)


@pytest.mark.parametrize(
    "n", [1, 2, *(pytest.param(n, marks=pytest.mark.slow) for n in (7, 16)), 20]
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_any_number_of_columns(n, dtype):
    rng = np.random.default_rng(n)
    design, y = rng.standard_normal((70, n)), rng.standard_normal((70, 20)).astype(dtype)
    y[rng.random(y.shape) < 0.2] = np.nan
    found = dasksolve.regress(y, design)
    assert not found.status.any()
    for m in range(20):
        known = ~np.isnan(y[:, m])
        wanted = sm.OLS(y[known, m].astype(float), design[known]).fit()
        tolerance = 100 * np.finfo(dtype).eps
        np.testing.assert_allclose(found.coef[:, m], wanted.params, atol=tolerance)
        np.testing.assert_allclose(found.stderr[:, m], wanted.bse, rtol=10 * tolerance)
        condition = np.linalg.cond(design[known] / np.linalg.norm(design[known], axis=0))
        assert 0.99 / condition <= found.rcond[m] <= 1.01 * n / condition


@pytest.mark.parametrize("observations", [0, 1, 2, 5])
def test_few_observations(observations):
    y, design = np.ones((observations, 3)), np.ones((observations, 2))
    design[:, 1] = np.arange(observations)
    for on_deficient in ("nan", "lstsq"):
        found = dasksolve.regress(y, design, covariance=True, on_deficient=on_deficient)
        assert set(found.status) == {Status.TOO_FEW if observations < 2 else Status.OK}
        assert found.coef.shape == (2, 3)
        assert np.isnan(found.covariance).all() == (observations < 3)
    assert dasksolve.regress(y[:, :0], design).coef.shape == (2, 0)


def test_integers_become_doubles_and_byte_order_does_not_matter():
    y = np.random.default_rng(0).integers(-500, 500, (P, 20)).astype(np.int16)
    wanted = dasksolve.regress(y.astype(float), DESIGN)
    assert_same(dasksolve.regress(y, DESIGN), wanted)
    assert_same(
        dasksolve.regress(y.astype(">f8"), DESIGN.astype(">f4").astype(float)),
        dasksolve.regress(y.astype(float), DESIGN.astype(np.float32).astype(float)),
    )
    assert dasksolve.regress(y.astype(np.float32), DESIGN).coef.dtype == np.float32


REFUSED = {
    "rows": ({"design": DESIGN[1:]}, ValueError, "120 observations along axis 0, and design 119"),
    "other axis": ({"axis": 1}, ValueError, r"; axis=0 \(--axis 0\) has as many$"),
    "on its side": ({"design": DESIGN.T}, ValueError, "; transpose the design$"),
    "vector": ({"design": DESIGN[:, 0]}, ValueError, r"\(P, N\).*\(120,\)"),
    "nan": (
        {"design": np.where(DESIGN == 1, np.nan, DESIGN)},
        ValueError,
        r"design\[0, 0\] is nan",
    ),
    "no axis": ({"axis": None}, ValueError, "axis=None is not an axis of y.*from -2 to 1"),
    "word for axis": ({"axis": "0"}, ValueError, "axis='0' is not"),
    "axes": ({"axis": (0,)}, ValueError, r"axis=\(0,\) is not"),
    "float for axis": ({"axis": 1.0}, ValueError, "axis=1.0 is not"),
    "bool for axis": ({"axis": True}, ValueError, "axis=True is not"),
    "word for covariance": ({"covariance": "no"}, TypeError, "covariance='no' must be True or"),
    "half a count": ({"min_count": 2.5}, ValueError, "min_count=2.5 must be None, or an integer"),
    "word for count": ({"min_count": "3"}, ValueError, "min_count='3' must"),
    "bool for count": ({"min_count": True}, ValueError, "min_count=True must"),
    "negative count": ({"min_count": -1}, ValueError, "min_count=-1 must"),
    "no count": ({"min_count": np.nan}, ValueError, "min_count=nan must"),
    "word for ridge": ({"ridge": "x"}, TypeError, "ridge must be real numbers: 'x' has dtype"),
    "complex ridge": ({"ridge": 1j}, TypeError, "ridge must be real numbers: 1j has dtype"),
    "complex weights": ({"weights": np.ones(P, complex)}, TypeError, "weights has dtype complex"),
    "axis": ({"axis": 2}, ValueError, "axis=2 is not an axis of y"),
    "word": ({"on_deficient": "raise"}, ValueError, "'raise' is not one of 'nan', 'lstsq'"),
    "w": ({"w": np.ones(P)}, TypeError, r"no keyword 'w'; .*give weights=w\*\*2"),
    "rcond": ({"rcond": -1}, ValueError, "rcond=-1 must be None, or a number from 0 to 1"),
    "ridge": ({"ridge": [1, 2]}, ValueError, r"ridge must be a number or \(6,\)"),
    "negative ridge": ({"ridge": -1}, ValueError, "not negative"),
    "weights": ({"weights": np.ones(7)}, ValueError, r"shape \(120,\).*\(7,\)"),
    "weight": ({"y": np.ones(P), "weights": [-1]}, ValueError, r"weights\[0\] is -1"),
    "negative": ({"weights": -np.ones(P)}, ValueError, r"weights\[0\] is -1.0"),
    "infinite": (
        {"weights": np.where(np.arange(P) == 5, np.inf, 1)},
        ValueError,
        r"not be negative or infinite: weights\[5\] is inf",
    ),
    "one negative": (
        {"weights": np.where(np.arange(P * 3).reshape(P, 3) == 100, -2.0, 1)},
        ValueError,
        r"weights\[33, 1\] is -2.0",
    ),
    "one negative, Fortran's order": (
        {
            "y": np.ones((3, P)).T,
            "weights": np.where(np.arange(P * 3).reshape(P, 3) == 100, -2.0, 1),
        },
        ValueError,
        r"weights\[33, 1\] is -2.0",
    ),
    "nothing": ({"y": None}, TypeError, "y is None, which is no array"),
    "no design": ({"design": None}, TypeError, "design is None, which is no array"),
    "complex": ({"y": np.ones((P, 3), complex)}, TypeError, "complex128.*real and imaginary"),
    "half": ({"y": np.ones((P, 3), np.float16)}, TypeError, "float16.*astype"),
}


@pytest.mark.parametrize(("change", "error", "text"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_fitted_is_refused(change, error, text):
    given = {"y": np.ones((P, 3)), "design": DESIGN, **change}
    with pytest.raises(error, match=text):
        dasksolve.regress(given.pop("y"), given.pop("design"), **given)


# dask


@pytest.fixture
def kernel_calls(monkeypatch):
    """The list that grows with every kernel that is asked for."""
    calls = []
    regressing = kernels.regressing
    monkeypatch.setattr(
        kernels, "regressing", lambda *key: (calls.append(key), regressing(*key))[1]
    )
    return calls


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_chunks_change_no_bit(axis):
    y = np.moveaxis(series().reshape(P, 5, 12), 0, axis)
    chunks = [3, 4]
    chunks.insert(axis, P)
    wanted = dasksolve.regress(y, DESIGN, axis=axis, covariance=True)
    lazy = dasksolve.regress(da.from_array(y, chunks=chunks), DESIGN, axis=axis, covariance=True)
    for name, one, other in zip(lazy._fields, lazy, wanted, strict=True):
        assert (one.shape, one.dtype) == (other.shape, other.dtype), name
        np.testing.assert_array_equal(one.compute(scheduler="sync"), other, err_msg=name)


def test_one_task_a_block_and_nothing_before(scheduler, kernel_calls):
    y = da.from_array(series(), chunks=(P, 20))
    fit = dasksolve.regress(y, DESIGN)
    assert (scheduler.runs, kernel_calls) == (0, [])
    fit.coef.persist()
    assert (scheduler.runs, scheduler.tasks, len(kernel_calls)) == (1, 3, 3)


WEIGHTS = {
    "of observations": lambda w: w[:, 0],
    "of observations, lazy": lambda w: da.from_array(w[:, 0], chunks=7),
    "of all": lambda w: w,
    "of all, lazy": lambda w: da.from_array(w, chunks=(10, 7)),
    "broadcast": lambda w: w[:, :1],
}


@pytest.mark.parametrize("given", WEIGHTS.values(), ids=WEIGHTS)
@pytest.mark.parametrize("lazy_y", [True, False])
def test_weights_in_blocks(given, lazy_y):
    y, w = series(), np.random.default_rng(0).random((P, 60))
    lazy = dasksolve.regress(
        da.from_array(y, chunks=(P, 20)) if lazy_y else y, DESIGN, weights=given(w)
    )
    wanted = dasksolve.regress(y, DESIGN, weights=np.asarray(given(w)))
    np.testing.assert_array_equal(lazy.coef, wanted.coef)
    np.testing.assert_array_equal(lazy.stderr, wanted.stderr)


FULL = np.random.default_rng(5).uniform(0.5, 2, (P, 60))
BROADCAST = {
    "one for each series": FULL[0],
    "one for all": np.array([2.0]),
    "a number": np.array(3.0),
    "a row": FULL[:1],
    "a column": FULL[:, :1],
    "masked, of observations": np.ma.MaskedArray(FULL[:, 0], FULL[:, 0] < 1),
    "masked, a row": np.ma.MaskedArray(FULL[:1], FULL[:1] < 1),
    "masked, a column": np.ma.MaskedArray(FULL[:, :1], FULL[:, :1] < 1),
    "masked, of all": np.ma.MaskedArray(FULL, FULL < 1),
    "masked integers": np.ma.MaskedArray((4 * FULL).astype(int), FULL < 1),
}


@pytest.mark.parametrize("weights", BROADCAST.values(), ids=BROADCAST)
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("lazy", [False, True])
def test_weights_broadcast_and_those_that_are_masked_are_zero(weights, order, lazy):
    y = np.asarray(series(), order=order)
    column = weights.shape == (P,)
    whole = np.ma.filled(weights, 0)
    whole = np.array(np.broadcast_to(whole[:, None] if column else whole, y.shape), float)
    wanted = dasksolve.regress(y, DESIGN, weights=whole)
    found = dasksolve.regress(y, DESIGN, weights=da.from_array(weights) if lazy else weights)
    assert_same(found, wanted)


@pytest.mark.parametrize("weights", [[2.0], 2.0, np.float32(2), da.full(1, 2.0), da.full((), 2.0)])
def test_a_weight_for_a_single_series_is_one_for_each_observation(weights):
    y = series()[:, 20]
    wanted = dasksolve.regress(y, DESIGN, weights=np.full(P, 2))
    assert_same(dasksolve.regress(y, DESIGN, weights=weights), wanted)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("full", [False, True], ids=["observations", "all"])
@pytest.mark.parametrize("small", [1e-50, 1e-42, 1e40])
def test_weights_beyond_single_precision_count(small, full, axis):
    y = np.moveaxis(series(dtype=np.float32)[:, 11:], 0, axis)
    y = np.ascontiguousarray(y)
    w = np.random.default_rng(3).uniform(0.5, 2, P)
    w[20:40] *= small
    w[50] = 0
    if full:
        w = np.broadcast_to(w[:, None] if axis == 0 else w, y.shape).copy()
    found = dasksolve.regress(y, DESIGN, weights=w, axis=axis)
    wanted = dasksolve.regress(y.astype(float), DESIGN, weights=w, axis=axis)
    np.testing.assert_array_equal(found.count, wanted.count)
    np.testing.assert_array_equal(found.status, wanted.status)
    size = abs(wanted.coef).max()
    np.testing.assert_allclose(found.coef, wanted.coef, atol=1e-5 * size)
    np.testing.assert_allclose(found.stderr, wanted.stderr, rtol=1e-4)


def test_weights_of_half_precision_are_numbers_like_others():
    w = np.random.default_rng(3).uniform(0.5, 2, P).astype(np.float16)
    wanted = dasksolve.regress(series(), DESIGN, weights=w.astype(float))
    assert_same(dasksolve.regress(series(), DESIGN, weights=w), wanted)


PACKINGS = {
    "as images are": Packing(np.dtype("i2"), np.dtype("f8"), (-32768,), 1e-4, None),
    "all at once": Packing(np.dtype("u1"), np.dtype("f4"), (255,), 0.3, -7.0),
    "a number that is none of them": Packing(np.dtype("u2"), np.dtype("f4"), (0.5,), None, 1.0),
    "nothing missing": Packing(np.dtype("i1"), np.dtype("f8"), (), -0.0, None),
}


@pytest.mark.slow
@pytest.mark.parametrize("packing", PACKINGS.values(), ids=PACKINGS)
@pytest.mark.parametrize("axis", [0, 1])
def test_what_the_kernel_unpacks_has_the_bits_of_what_was_unpacked_before(packing, axis):
    info = np.iinfo(packing.stored)
    low, high = (0, 300) if info.max > 255 else (info.min, info.max + 1)
    y = np.random.default_rng(0).integers(low, high, (P, 70)).astype(packing.stored)
    if packing.missing:
        y[np.random.default_rng(1).random(y.shape) < 0.3] = int(packing.missing[0])
    y = np.ascontiguousarray(np.moveaxis(y, 0, axis))
    meant = np.empty(y.shape, packing.dtype)
    packing.unpack(y, meant)
    described = fit.describe(y.shape, meant.dtype, DESIGN, fit.FitOptions(axis, covariance=True))
    found = regression.run(y, np.ones(P), described, packing=packing)
    assert_same(found, dasksolve.regress(meant, DESIGN, axis=axis, covariance=True))
    assert found.count.min() < P or not packing.missing or packing.missing == (0.5,)


@pytest.mark.parametrize("options", [{}, {"rcond": 0.99}], ids=str)
def test_a_weight_of_what_is_missing_may_be_negative(options):
    y = series(0)[:, 11:]
    y[3] = np.nan
    weights = np.ones_like(y)
    weights[3] = -1  # as a mark of what is missing
    found = dasksolve.regress(y, DESIGN, weights=weights, **options)
    wanted = dasksolve.regress(y, DESIGN, weights=np.ones(P), **options)
    for one, other in zip(found[:-1], wanted[:-1], strict=True):
        np.testing.assert_array_equal(one, other)


def test_lazy_weights_that_are_negative_are_not_finite():
    w = np.ones((P, 60))
    w[:, 30] = -1
    found = dasksolve.regress(series(), DESIGN, weights=da.from_array(w, chunks=(P, 20)))
    assert found.status.compute()[30] == Status.NONFINITE
    for weight in (-1.0, np.inf):
        found = dasksolve.regress(np.ones((P, 60)), DESIGN, weights=da.full(P, weight))
        assert (found.status.compute() == Status.NONFINITE).all()


def test_lazy_weights_of_observations_are_not_computed_at_once(scheduler):
    dasksolve.regress(da.ones((P, 60)), DESIGN, weights=da.ones(P, chunks=7))
    assert scheduler.runs == 0


def test_weights_that_broadcast_take_no_memory_beside_lazy_series():
    y = da.zeros((P, 1 << 12, 1 << 12), chunks=(P, 1 << 12, 1 << 8))  # 16 GB
    tracemalloc.start()
    try:
        dasksolve.regress(y, DESIGN, weights=np.ones((1, 1 << 12, 1)))
        assert tracemalloc.get_traced_memory()[1] < 32 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("chunks", [(0, 1), (1, 0), (0, 1, 0)])
def test_one_series_beside_chunks_of_none_is_one(chunks):
    """Which dask itself takes for two, or three."""
    y, w = series()[:, :1], np.full((1, 1), 2.0)
    lazy_y, lazy_w = (da.from_array(values).rechunk((-1, chunks)) for values in (y, w))
    for weights, given in ((None, (lazy_y, None)), (w, (lazy_y, w)), (w, (y, lazy_w))):
        wanted = dasksolve.regress(y, DESIGN, weights=weights)
        found = dasksolve.regress(given[0], DESIGN, weights=given[1])
        for x, of_wanted in zip(found[:-1], wanted[:-1], strict=True):
            np.testing.assert_array_equal(x.compute(), of_wanted)


def test_chunked_observations_are_merged():
    y = series()
    lazy = dasksolve.regress(da.from_array(y, chunks=(10, 20)), DESIGN)
    assert lazy.coef.chunks == ((6,), (20, 20, 20))
    np.testing.assert_array_equal(lazy.coef, dasksolve.regress(y, DESIGN).coef)
    large = da.zeros((P, 1 << 20), chunks=(1, 1 << 20))
    with pytest.warns(PerformanceWarning, match="chunks of \\(1, 1048576\\)") as caught:
        dasksolve.regress(large, DESIGN)
    assert [warning.filename for warning in caught] == [__file__]


def test_masked_blocks_are_missing_where_they_are_masked():
    y = series()
    missing = np.isnan(y)
    masked = np.ma.MaskedArray(np.where(missing, 7, y), missing)
    lazy = dasksolve.regress(da.from_array(masked, chunks=(P, 20)), DESIGN)
    wanted = dasksolve.regress(y, DESIGN)
    np.testing.assert_array_equal(lazy.coef.compute(), wanted.coef)
    np.testing.assert_array_equal(lazy.status.compute(), wanted.status)


@pytest.mark.slow
def test_two_processes_give_the_same_bits(two_processes):
    y = series()
    wanted = dasksolve.regress(y, DESIGN)
    lazy = dasksolve.regress(da.from_array(y, chunks=(P, 7)), DESIGN)
    for one, other in zip(two_processes.compute(lazy[:6], sync=True), wanted, strict=False):
        np.testing.assert_array_equal(one, other)


def test_residuals_that_nearly_underflow_do_not_depend_on_a_neighbour_of_zeros():
    y = np.random.default_rng(0).standard_normal((P, 16)) * 1e-147
    alone = dasksolve.regress(y, DESIGN)
    y[:, 3] = 0
    beside = dasksolve.regress(y, DESIGN)
    others = np.arange(16) != 3
    for one, other in zip(alone[:-1], beside[:-1], strict=True):
        np.testing.assert_array_equal(one[..., others], other[..., others])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_fewer_observations_than_coefficients_have_no_answer_whatever_counts_as_deficient(dtype):
    design, y = np.random.default_rng(0).standard_normal((5, 2)), np.ones((5, 40), dtype)
    y[1:, :30] = np.nan
    found = dasksolve.regress(y, design, rcond=0, min_count=0)
    assert (found.status[:30] == Status.RANK_DEFICIENT).all()
    assert np.isnan(found.coef[:, :30]).all()
    assert (found.status[30:] == Status.OK).all()
    least = dasksolve.regress(y, design, rcond=0, min_count=0, on_deficient="lstsq").coef[:, 0]
    np.testing.assert_allclose(least, np.linalg.lstsq(design[:1], y[:1, 0])[0], rtol=1e-5)
    ridged = dasksolve.regress(y, design, rcond=0, min_count=0, ridge=0.5)
    assert (ridged.status == Status.OK).all()
