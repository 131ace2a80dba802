"""Regressions of dask arrays: the bits of those in memory, a task for each block."""

import dask.array as da
import numpy as np
import pytest
from seasons import DESIGN, P, series

import dasksolve
from dasksolve import PerformanceWarning, kernels


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
