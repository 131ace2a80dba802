"""Options: words in all of their spellings, numbers in range, and what counts as singular."""

import json
from operator import attrgetter

import dask.array as da
import numpy as np
import pytest
import zarr
from families import DTYPES, same_bits
from stored import Stored

import dasksolve
from dasksolve import SingularSystemError, Status, labelled
from dasksolve.batch.options import LONG_WORDS, ON_SINGULAR, STRUCTURES, Options
from dasksolve.cli import main

SCIPY = {
    "general": "gen",
    "gen": "gen",
    "positive definite": "pos",
    "pos": "pos",
    "symmetric": "sym",
    "sym": "sym",
    "hermitian": "her",
    "her": "her",
    "upper triangular": "upper triangular",
    "lower triangular": "lower triangular",
    "diagonal": "diagonal",
    "tridiagonal": "tridiagonal",
}


@pytest.mark.parametrize("word", SCIPY)
def test_both_of_scipys_spellings_are_one_word(word):
    assert Options.of(word) == Options(SCIPY[word])
    assert set(SCIPY) == set(STRUCTURES) | set(LONG_WORDS)


def test_equal_options_are_made_once():
    assert Options.of("general", np.False_) is Options.of("general", np.False_)


def test_what_is_equal_to_an_option_is_none():
    for flag in (0, 1, 1.0):
        Options.of(lower=bool(flag))
        with pytest.raises(TypeError, match=f"lower={flag} must be True or False"):
            Options.of(lower=flag)
    Options.of(rcond=1.0)
    with pytest.raises(ValueError, match="rcond=True must be None, or a number"):
        Options.of(rcond=True)


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"assume_a": "spd"}, "assume_a='spd' is not one of 'gen', 'pos', 'sym', 'her', 'upper"),
        ({"assume_a": ["gen"]}, r"assume_a=\['gen'\] is not one of 'gen'"),
        ({"assume_a": None}, "say what all the matrices are"),
        ({"assume_a": "banded"}, 'use "tridiagonal" .* scipy.linalg.solve_banded'),
        ({"on_singular": "warn"}, "on_singular='warn' is not one of 'raise', 'nan', 'lstsq'"),
        ({"on_singular": {}}, "on_singular={} is not one of"),
        ({"rcond": -1.0}, "rcond=-1.0 must be None, or a number from 0 to 1"),
        ({"rcond": np.nan}, "rcond=nan must be"),
        ({"rcond": "1e-3"}, "rcond='1e-3' must be"),
        ({"rcond": [1e-3]}, r"rcond=\[0.001\] must be"),
    ],
)
def test_what_is_no_option_is_refused_with_what_is(given, text):
    with pytest.raises(ValueError, match=text):
        Options.of(**given)


@pytest.mark.parametrize(
    "door",
    [
        *("solve", "solve_ex", "inv", "factor", "lstsq", "lstsq_ex", "regress"),
        *("solve_zarr", "regress_zarr"),
        *("labelled.solve", "labelled.solve_ex", "labelled.regress"),
    ],
)
@pytest.mark.parametrize(
    ("word", "text"),
    [
        ("overwrite_a", "the input is never written to"),
        ("overwrite_b", "the input is never written to"),
        ("check_finite", "NaN and Inf are looked for always"),
        ("transposed", r"a.swapaxes\(-1, -2\), or factor once"),
        ("speed", r"^\S+ has no keyword 'speed'$"),
    ],
)
def test_words_of_scipy_that_mean_nothing_here_are_answered(door, word, text):
    function = attrgetter(door)(dasksolve)
    arrays = (None,) * {"inv": 1, "factor": 1, "solve_zarr": 3, "regress_zarr": 3}.get(door, 2)
    with pytest.raises(TypeError, match=text):
        function(*arrays, **{word: True})


@pytest.mark.parametrize(
    ("door", "word", "text"),
    [
        (dasksolve.solve_zarr, "memory", r"^solve_zarr\(\) .*; did you mean memory_limit\?$"),
        (labelled.solve, "dim", r"^labelled.solve\(\) has no keyword 'dim'; did you mean dims\?$"),
    ],
)
def test_a_word_that_is_nearly_right_is_answered_with_the_right_one(door, word, text):
    with pytest.raises(TypeError, match=text):
        door(None, None, None, **{word: 1})


# rcond: what is nearly singular counts as singular


def few_observations(dtype=np.float64, systems=300):
    """Normal equations of 3 observations for 5 unknowns: of rank 3, but for rounding; a[5] sound"""
    rng = np.random.default_rng(0)
    design = rng.standard_normal((systems, 3, 5)).astype(dtype)
    a = design.conj().swapaxes(-1, -2) @ design
    b = (design.conj().swapaxes(-1, -2) @ rng.standard_normal((systems, 3, 1)))[..., 0]
    a[5] = np.eye(5)
    return a, b.astype(dtype)


CUT = {np.dtype(t): 1e-4 if np.finfo(t).eps > 1e-10 else 1e-10 for t in DTYPES}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("assume_a", ["gen", "her", "pos"])
def test_rank_deficient_systems_get_the_least_norm_answer(dtype, assume_a):
    a, b = few_observations(dtype)
    cut = CUT[np.dtype(dtype)]
    x = dasksolve.solve(a, b, assume_a=assume_a, on_singular="lstsq", rcond=cut)
    whole = a if assume_a == "gen" else np.triu(a) + np.triu(a, 1).conj().swapaxes(-1, -2)
    least = [np.linalg.lstsq(p, q, rcond=cut)[0] for p, q in zip(whole, b, strict=True)]
    eps = np.finfo(dtype).eps
    sizes = np.linalg.norm(least, axis=-1)
    assert (np.linalg.norm(x - least, axis=-1) < 1e5 * eps * sizes).all()
    assert same_bits(x[5], dasksolve.solve(a[5], b[5], assume_a=assume_a))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_below_rcond_is_nan_with_a_status(dtype):
    a, b = few_observations(dtype)
    s = dasksolve.solve_ex(a, b, rcond=CUT[np.dtype(dtype)])
    sound = np.arange(len(a)) == 5
    assert (np.isfinite(s.x).all(axis=-1) == sound).all()
    assert set(s.status[~sound].tolist()) <= {Status.ILL_CONDITIONED, Status.SINGULAR}
    assert (s.status[5], s.rcond[5], s.backward_error[5]) == (Status.OK, 1, 0)
    assert (np.isnan(s.backward_error) == ~sound).all()
    x = dasksolve.solve(a, b, on_singular="nan", rcond=CUT[np.dtype(dtype)])
    assert same_bits(x, s.x)


def test_rcond_below_eps_flags_what_is_below_it_alone():
    a = np.stack([np.diag([1.0, 1e-18]), np.diag([1.0, 1e-25])])
    s = dasksolve.solve_ex(a, np.ones(2), rcond=1e-20)
    assert s.status.tolist() == [Status.ILL_CONDITIONED] * 2
    assert np.isfinite(s.x).all(axis=-1).tolist() == [True, False]


def test_rcond_changes_no_bit_of_the_others():
    rng = np.random.default_rng(1)
    a, b = rng.standard_normal((500, 5, 5)), rng.standard_normal((500, 5))
    limit = np.median(dasksolve.solve_ex(a, b).rcond)
    x, good = dasksolve.solve(a, b), dasksolve.solve_ex(a, b).rcond >= limit
    found = dasksolve.solve(a, b, on_singular="nan", rcond=limit)
    assert same_bits(found[good], x[good])
    assert np.isnan(found[~good]).all()


@pytest.mark.parametrize("kind", ["NumPy", "dask"])
def test_rcond_raises_for_every_one_below_it(kind):
    a, b = few_observations(systems=20)
    given = a if kind == "NumPy" else da.from_array(a, chunks=(20, 5, 5))
    with pytest.raises(SingularSystemError, match="reciprocal condition number below rcond") as e:
        np.asarray(dasksolve.solve(given, b, rcond=1e-10))
    assert e.value.indices.tolist() == [i for i in range(20) if i != 5]
    assert dasksolve.solve(a[5], b[5], rcond=1e-10).tolist() == b[5].tolist()


def test_rcond_is_the_same_on_dask_and_labelled():
    import xarray as xr

    a, b = few_observations()
    wanted = dasksolve.solve_ex(a, b, on_singular="lstsq", rcond=1e-10)
    lazy = dasksolve.solve_ex(
        da.from_array(a, chunks=(70, 5, 5)), b, on_singular="lstsq", rcond=1e-10
    )
    named = labelled.solve_ex(
        xr.DataArray(a, dims=("pixel", "row", "col")),
        xr.DataArray(b, dims=("pixel", "row")),
        on_singular="lstsq",
        rcond=1e-10,
    )
    for name in wanted._fields:
        assert same_bits(getattr(lazy, name).compute(), getattr(wanted, name))
        assert same_bits(named[name].values, getattr(wanted, name))


@pytest.mark.parametrize("diagnostics", [False, True])
@pytest.mark.parametrize("on_singular", ON_SINGULAR)
def test_rcond_from_zarr(store, on_singular, diagnostics):
    a, b = few_observations()
    data: Stored = store(a, b)
    options = {"on_singular": on_singular, "rcond": 1e-10}
    if on_singular == "raise":
        with pytest.raises(SingularSystemError) as error:
            dasksolve.solve_zarr(*data[2:], diagnostics=diagnostics, **options)
        assert error.value.indices.tolist() == [i for i in range(300) if i != 5]
        options["on_singular"] = "nan"
    else:
        dasksolve.solve_zarr(*data[2:], diagnostics=diagnostics, **options)
    wanted = dasksolve.solve_ex(a, b, **options)
    out = zarr.open_group(data.out)
    assert same_bits(out["x"][:], wanted.x)
    assert same_bits(out["status"][:], wanted.status)
    assert dasksolve.check_zarr(*data[2:]).systems == 300


def test_a_job_is_resumed_with_the_same_rcond_alone(store, capsys):
    data = store(*few_observations())
    assert main(["solve", *data[2:], "--rcond", "1e-10", "--quiet"]) == 3
    with pytest.raises(ValueError, match=r"options\.rcond was 1e-10, is now None"):
        dasksolve.solve_zarr(*data[2:], resume=True)
    assert main(["solve", *data[2:], "--rcond", "1e-10", "--resume", "--json"]) == 3
    assert json.loads(capsys.readouterr().out)["blocks_resumed"] == 1
    dasksolve.solve_zarr(*data[2:], overwrite=True)
    with pytest.raises(ValueError, match=r"options\.rcond was None, is now 0\.5"):
        dasksolve.solve_zarr(*data[2:], resume=True, rcond=0.5)
    with pytest.raises(SystemExit):
        main(["solve", *data[2:], "--rcond", "2"])
