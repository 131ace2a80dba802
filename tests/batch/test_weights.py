"""Weights of observations, in common or of each series: in memory and on dask."""

import tracemalloc

import dask.array as da
import numpy as np
import pytest
from seasons import DESIGN, P, assert_same, series

import dasksolve
from dasksolve import Status


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
