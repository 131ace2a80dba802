"""Regressions of many series on one design: against statsmodels, 60 digits, and themselves."""

import mpmath
import numpy as np
import pytest
import statsmodels.api as sm
from seasons import DESIGN, MONTHS, P, assert_same, harmonics, series

import dasksolve
from dasksolve import Status
from dasksolve.batch import basis, fit, regression
from dasksolve.storage.conventions import Packing

EXPECTED = {1: 6, 3: 6, 5: 3, 6: 3}


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


@pytest.mark.parametrize("count", [8, 100, 300, 1000, 1024])
@pytest.mark.parametrize("weighted", [False, True], ids=["equal", "weights"])
def test_strips_of_any_length_give_the_same_bits(count, weighted):
    rng = np.random.default_rng(0)
    y, design = rng.standard_normal((30, count)), rng.standard_normal((30, 2))
    w = rng.random(y.shape) if weighted else None
    across = dasksolve.regress(y, design, weights=w)
    w = w.T.copy() if weighted else None
    assert_same(along(dasksolve.regress(y.T.copy(), design, axis=1, weights=w)), across)


@pytest.mark.parametrize("begin", range(8))
def test_bits_do_not_depend_on_where_memory_begins(begin):
    rng = np.random.default_rng(0)
    y, design = rng.standard_normal((30, 200)), rng.standard_normal((30, 2))
    moved = np.empty(y.size + 8)[begin:][: y.size].reshape(y.shape)
    moved[...] = y
    assert_same(dasksolve.regress(moved, design), dasksolve.regress(y, design))


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


def test_the_shortest_answer_is_without_what_rcond_says_is_none():
    rng = np.random.default_rng(0)
    design = rng.standard_normal((20, 3))
    design[:, 2] = design[:, 1] + 1e-4 * design[:, 2]
    y = rng.standard_normal((20, 5))
    found = dasksolve.regress(y, design, rcond=1e-2, on_deficient="lstsq")
    assert set(found.status) == {Status.RANK_DEFICIENT}
    np.testing.assert_allclose(found.coef, np.linalg.lstsq(design, y, rcond=1e-2)[0], atol=1e-13)


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
