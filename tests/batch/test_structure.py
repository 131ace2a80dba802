"""Structures through every face: only what is meant is read, and all give the same bits."""

from collections.abc import Callable

import dask.array as da
import numpy as np
import pytest
import scipy.linalg
from families import numbers, same_bits
from hypothesis import given, settings
from hypothesis import strategies as st
from stored import Stored

import dasksolve
from dasksolve.batch.options import STRUCTURES, Options
from dasksolve.batch.structure import meant
from dasksolve.cli import main
from dasksolve.status import Status

WORDS = [word for word in STRUCTURES if word != "gen"]
MIRRORED = ("pos", "sym", "her")


def posed(word, lower=False, dtype=np.complex64, n=5, m=40):
    """(a with NaN where nothing is to be read, the matrices that are meant, b)."""
    rng = np.random.default_rng(0)
    a = numbers(rng, dtype, m, n, n) / n + 2 * np.eye(n)
    read = meant(np.ones((n, n)), Options(word, lower)) != 0
    if word in MIRRORED:
        read = np.tri(n, dtype=bool) if lower else np.tri(n, dtype=bool).T
    stored = np.where(read, a, np.nan).astype(dtype)
    return stored, meant(stored, Options(word, lower)), numbers(rng, dtype, m, n)


@pytest.mark.parametrize("lower", [False, True], ids=["upper", "lower"])
@pytest.mark.parametrize("word", WORDS)
def test_what_is_meant_is_what_scipy_reads(word, lower):
    stored, whole, b = posed(word, lower)
    assert np.isfinite(whole).all()
    theirs = np.stack(
        [
            scipy.linalg.solve(a, rhs, assume_a=word, lower=lower)
            for a, rhs in zip(whole, b, strict=True)
        ]
    )
    ours = dasksolve.solve(stored, b, assume_a=word, lower=lower)
    np.testing.assert_allclose(ours, theirs, rtol=1e-4)


@pytest.mark.parametrize("word", WORDS)
def test_dask_gives_the_bits_of_numpy(word):
    stored, _, b = posed(word)
    x = dasksolve.solve(stored, b, assume_a=word)
    lazy = dasksolve.solve(da.from_array(stored, chunks=(7, -1, -1)), b, assume_a=word)
    assert same_bits(lazy.compute(scheduler="sync"), x)
    assert same_bits(dasksolve.solve(stored, b, assume_a=word, workers=2), x)


@pytest.mark.parametrize("word", WORDS)
def test_any_layout_and_dtype(word):
    stored, _, b = posed(word, dtype=float)
    x = dasksolve.solve(stored, b, assume_a=word)
    for a in (np.asfortranarray(stored), stored.astype(">f8"), np.repeat(stored, 2, 0)[::2]):
        assert same_bits(dasksolve.solve(a, b, assume_a=word), x)
    assert dasksolve.solve(stored, np.empty((40, 5, 0)), assume_a=word).shape == (40, 5, 0)
    assert dasksolve.solve(np.empty((0, 5, 5)), b[0], assume_a=word).shape == (0, 5)
    assert dasksolve.solve(np.empty((3, 0, 0)), np.empty((3, 0)), assume_a=word).shape == (3, 0)


@pytest.mark.parametrize("word", WORDS)
def test_least_squares_of_what_is_meant(word):
    stored, _, b = posed(word, dtype=float)
    stored[3] = np.where(np.isnan(stored[3]), np.nan, 0)
    stored[3, 2, 2] = -2
    x = dasksolve.solve(stored, b, assume_a=word, on_singular="lstsq")
    whole = meant(stored[3], Options(word))
    np.testing.assert_allclose(x[3], np.linalg.lstsq(whole, b[3])[0], rtol=1e-12)


def test_the_error_names_what_is_not_definite():
    a = np.stack([np.eye(5)] * 10)
    a[4, 1, 1] = -1
    with pytest.raises(dasksolve.SingularSystemError) as error:
        dasksolve.solve(a, np.ones(5), assume_a="pos")
    assert error.value.indices.tolist() == [4]
    assert error.value.status.tolist() == [Status.NOT_POSITIVE_DEFINITE]
    with pytest.raises(dasksolve.SingularSystemError) as error:
        dasksolve.solve(da.from_array(a, chunks=(3, 5, 5)), np.ones(5), assume_a="pos").compute()
    assert error.value.indices.tolist() == [4]


@pytest.mark.parametrize("word", WORDS)
def test_diagnostics_are_those_of_what_is_meant(word):
    stored, whole, b = posed(word, dtype=float)
    stored[3] = np.where(np.isnan(stored[3]), np.nan, 0)
    stored[5] *= 1e-300  # beyond what a kernel can measure
    b[9, 1] = np.nan
    ours = dasksolve.solve_ex(stored, b, assume_a=word)
    assert same_bits(ours.x, dasksolve.solve(stored, b, assume_a=word, on_singular="nan"))
    singular = Status.NOT_POSITIVE_DEFINITE if word == "pos" else Status.SINGULAR
    assert dict(enumerate(ours.status.tolist())) == {
        m: {3: singular, 9: Status.NONFINITE}.get(m, Status.OK) for m in range(40)
    }
    sound = ours.status == Status.OK
    exact = 1 / np.linalg.cond(whole[sound], 1)
    np.testing.assert_allclose(ours.rcond[sound], exact, rtol=1e-10)
    assert (ours.backward_error[sound] < 1e-15).all()
    assert (ours.rcond[3], np.isnan(ours.rcond[9])) == (0, True)
    assert np.isnan(ours.backward_error[~sound]).all()


@pytest.mark.slow
@pytest.mark.parametrize("word", ["pos", "upper triangular", "her"])
def test_a_job_reads_and_checks_what_is_meant(word: str, store: Callable[..., Stored]) -> None:
    stored, _, b = posed(word, word == "her")
    stored[7, 1, 1] = 0 if word == "upper triangular" else np.nan
    job = store(stored, b)
    lower = ["--lower"] if word == "her" else []
    assert (
        main(["solve", job.a_path, job.b_path, job.out, "--assume-a", word, *lower, "--quiet"]) == 3
    )
    x = dasksolve.solve(stored, b, assume_a=word, lower=bool(lower), on_singular="nan")
    assert same_bits(job.x, x)
    report = dasksolve.check_zarr(job.a_path, job.b_path, job.out)
    assert report.flagged == (7,)
    assert report.worst_backward_error < 1e-6


@settings(max_examples=25, deadline=None, derandomize=True)
@given(word=st.sampled_from(WORDS), seed=st.integers(0, 2**32 - 1), n=st.sampled_from([5, 18]))
def test_the_solution_of_a_product_is_what_was_multiplied(word, seed, n):
    rng = np.random.default_rng(seed)
    a = meant(rng.uniform(-1, 1, (9, n, n)) / n + 2 * np.eye(n), Options(word))
    x = rng.standard_normal((9, n))
    found = dasksolve.solve(a, (a @ x[..., None])[..., 0], assume_a=word)
    np.testing.assert_allclose(found, x, rtol=1e-9, atol=1e-9)
    order = rng.permutation(9)
    again = dasksolve.solve(a[order], (a @ x[..., None])[order, :, 0], assume_a=word)
    assert same_bits(again, found[order])
