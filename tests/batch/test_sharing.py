"""Several b of one matrix: what plain copies of the matrix give, to every bit and index."""

import dask.array as da
import numpy as np
import pytest
from families import SOME_DTYPES, same_bits, systems, unaligned

import dasksolve
from dasksolve import SingularSystemError
from dasksolve.batch import eager, running, sharing
from dasksolve.batch.options import STRUCTURES

NAN, INF = np.nan, np.inf
ON_SINGULAR = ["raise", "nan", "lstsq"]
SLOW = pytest.mark.slow


def answer(a, b, **options):
    """x; or the message, the indices and the statuses of what is raised."""
    try:
        return dasksolve.solve(a, b, **options)
    except SingularSystemError as error:
        return str(error), error.batch_shape, error.indices.tolist(), error.status.tolist()


def copied(a, b):
    """a repeated in memory for every b, so that nothing is shared."""
    vectors = b.ndim == a.ndim - 1
    batch = np.broadcast_shapes(a.shape[:-2], b.shape[: -1 if vectors else -2])
    return np.broadcast_to(a, (*batch, *a.shape[-2:])).copy()


def check(a, b, **options):
    """What is shared and what is not agree."""
    x, expected = answer(a, b, **options), answer(copied(a, b), b, **options)
    if isinstance(expected, tuple):
        assert x == expected
    else:
        assert same_bits(x, expected)
        assert x.flags.c_contiguous == expected.flags.c_contiguous
    return expected


@pytest.fixture
def calls(monkeypatch):
    """Orders, columns and numbers of the systems that kernels are given."""
    found, run = [], running.run

    def counting(kernel, problem, options, a, b, *others):
        found.append((b.shape[1], b.shape[2], b.shape[0]))
        return run(kernel, problem, options, a, b, *others)

    for module in (eager, sharing):
        monkeypatch.setattr(module, "run", counting)
    return found


def definite(n, *batch, dtype=np.float64, seed=0):
    a, _ = systems(n, *batch, dtype=dtype, seed=seed)
    return a @ a.swapaxes(-1, -2).conj() + np.asarray(n * np.eye(n), dtype)


@pytest.mark.parametrize(
    ("batch", "of_b", "given"),
    [
        pytest.param((1,), (50,), (12, 50, 1), id="many vectors of one matrix"),
        pytest.param((6, 1), (6, 5), (12, 5, 6), id="load cases of each matrix"),
        pytest.param((1, 6), (5, 6), (12, 5, 6), id="the other way around"),
        pytest.param((1, 6, 1), (2, 6, 5), (12, 10, 6), id="two axes"),
        pytest.param((1, 1), (4, 5), (12, 20, 1), id="one matrix for two axes"),
        pytest.param((4, 1), (1, 5), (12, 5, 4), id="both broadcast"),
    ],
)
def test_a_matrix_is_eliminated_once_for_its_vectors(batch, of_b, given, calls):
    (a, _), (_, b) = systems(12, *batch), systems(12, *of_b)
    dasksolve.solve(a, b)
    assert calls == [given]
    check(a, b)
    calls.clear()
    dasksolve.solve(np.broadcast_to(a, copied(a, b).shape), b)  # by strides of zero
    assert calls == [given]


@pytest.mark.parametrize("assume_a", ["gen", "sym", "her"])
@pytest.mark.parametrize(
    ("batch", "of_b"),
    [
        pytest.param((1,), (70_001,), id="one matrix, in pieces"),
        pytest.param((6, 1), (6, 50), id="load cases of each matrix"),
        pytest.param((2, 1, 1), (2, 1, 50), id="an axis of one"),
        pytest.param((3, 1), (3, 40_000), id="several pieces of each"),
    ],
)
def test_a_small_matrix_has_a_kernel_for_its_vectors(batch, of_b, assume_a, monkeypatch):
    picked, pick = [], sharing.kernels.pick_shared
    monkeypatch.setattr(
        sharing.kernels, "pick_shared", lambda *case: picked.append(case) or pick(*case)
    )
    (a, _), (_, b) = systems(4, *batch), systems(4, *of_b)
    b[..., 3, 1], b[..., 7, 2], b[..., 9, :] = NAN, INF, 1.7e308
    for workers in (1, 2):
        x = dasksolve.solve(a, b, assume_a=assume_a, workers=workers)
        assert same_bits(x, dasksolve.solve(copied(a, b), b, assume_a=assume_a))
    assert len(picked) == 2
    check(a, b[..., None], assume_a=assume_a)
    check(a[..., ::-1], b[..., ::-1], assume_a=assume_a)
    a[-1] = 0
    for on_singular in ON_SINGULAR:
        check(a, b[..., :50, :], assume_a=assume_a, on_singular=on_singular)


@pytest.mark.parametrize("on_singular", ON_SINGULAR)
@pytest.mark.parametrize(
    "flaw",
    [
        pytest.param(np.eye(4), id="sound"),
        pytest.param(np.zeros((4, 4)), id="zero"),
        pytest.param(np.ones((4, 4)), id="of rank one"),
        pytest.param(np.ones((4, 4)) + 1e-15 * np.eye(4), id="nearly singular"),
        pytest.param(np.eye(4) * 5e-324, id="subnormal"),
        pytest.param(np.diag([1, 1, 1, NAN]), id="NaN"),
        pytest.param(np.eye(4) + np.diag([INF], 3), id="Inf"),
    ],
)
def test_what_is_wrong_with_a_small_matrix_is_so_for_each_of_its_vectors(flaw, on_singular):
    (a, _), (_, b) = systems(4, 3, 1), systems(4, 3, 37)
    a[1], b[0, 5], b[1, 6], b[2, :, 1], b[2, 7] = flaw, 0, -0.0, 0, -0.0
    b[0, 3, 3], b[1, 4, 0], b[1, 36, 2] = NAN, INF, NAN
    expected = check(a, b, on_singular=on_singular)
    x = dasksolve.solve(da.from_array(a), da.from_array(b), on_singular=on_singular)
    if isinstance(expected, tuple):
        with pytest.raises(SingularSystemError) as error:
            x.compute(scheduler="sync")
        assert error.value.indices.tolist() == expected[2] != []
    else:
        assert same_bits(x.compute(scheduler="sync"), expected)
        assert np.isnan(expected[[0, 1, 1], [3, 4, 36]]).all()
        assert np.isfinite(expected[2]).all()
        for i in (0, 5, 36):
            alone = dasksolve.solve(a[1, 0], b[1, i], on_singular=on_singular)
            assert same_bits(expected[1, i], alone)


@pytest.mark.parametrize("k", [16, 19])
def test_a_column_of_many_of_a_small_matrix_is_solved_as_it_is_alone(k):
    a, b = systems(4, k=k)
    b[:, 2], b[:, 3], b[0, 4:7], b[1, 8], b[3, k - 1], b[:, 9] = 0, -0.0, -0.0, NAN, INF, 1.7e308
    for matrix in (a, a * 1e-3, a * 0, np.ones((4, 4)), np.where(np.eye(4)[::-1], NAN, a)):
        x = dasksolve.solve(matrix, b, on_singular="nan")
        for i in range(k):
            alone = dasksolve.solve(matrix, b[:, i], on_singular="nan")
            assert same_bits(x[:, i].copy(), alone)


@pytest.mark.parametrize("on_singular", ON_SINGULAR)
def test_what_is_out_of_range_for_a_small_matrix_is_solved_again(on_singular):
    a, (_, b) = definite(5, 6, 1), systems(5, 6, 40)
    a[1], a[2], b[1, ::2], b[3, 4] = a[1] * 1e-307, a[2] * 1e305, b[1, ::2] * 1e300, NAN
    a[4, 0, 0, 0], a[5] = 5e-324, np.ones((5, 5))
    check(a, b, on_singular=on_singular)


@pytest.mark.parametrize(
    ("assume_a", "n", "batch", "of_b", "k"),
    [
        pytest.param("gen", 8, (1,), (20,), None, id="a few vectors of one matrix of N = 8"),
        pytest.param("upper triangular", 8, (1,), (50,), None, id="a small triangle"),
        pytest.param("gen", 12, (1,), (50,), 5, id="many columns"),
        pytest.param("diagonal", 12, (1,), (50,), None, id="diagonal"),
        pytest.param("upper triangular", 12, (20, 1), (20, 2), None, id="two triangular"),
    ],
)
def test_where_it_gains_nothing_each_is_solved_alone(assume_a, n, batch, of_b, k, calls):
    (a, _), (_, b) = systems(n, *batch), systems(n, *of_b, k=k)
    dasksolve.solve(a, b, assume_a=assume_a)
    assert calls == [(n, k or 1, np.prod(of_b))]


@pytest.mark.parametrize("dtype", SOME_DTYPES)
@pytest.mark.parametrize("assume_a", STRUCTURES)
@pytest.mark.parametrize(("n", "batch", "of_b"), [(5, (40, 1), (40, 7)), (20, (3, 1), (3, 21))])
@pytest.mark.parametrize("lower", [False, pytest.param(True, marks=SLOW)], ids=["upper", "lower"])
def test_every_structure_gives_the_bits_of_copies(n, batch, of_b, assume_a, dtype, lower):
    a, (_, b) = definite(n, *batch, dtype=dtype), systems(n, *of_b, dtype=dtype)
    check(a, b, assume_a=assume_a, lower=lower)


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize(
    ("n", "batch", "of_b", "k"),
    [
        (12, (1,), (20_003,), None),
        (12, (2, 1, 1), (2, 3, 4_001), None),
        (12, (1, 2, 1), (3, 1, 4_001), 2),
        (3, (1, 3000), (50, 3000), None),
        (100, (1,), (1_001,), None),
    ],
)
def test_pieces_and_workers_change_no_bit(n, batch, of_b, k, workers):
    (a, _), (_, b) = systems(n, *batch), systems(n, *of_b, k=k)
    assert same_bits(dasksolve.solve(a, b, workers=workers), dasksolve.solve(copied(a, b), b))


@pytest.mark.parametrize("k", [None, 0, 3])
@pytest.mark.parametrize(
    ("batch", "of_b"),
    [((0, 1), (0, 40)), ((1,), (0,)), ((1,), (1,)), ((1, 3), (40, 1)), ((3, 1), (1, 40))],
)
@pytest.mark.parametrize("n", [4, 12])
def test_batches_of_no_and_of_one_system(n, batch, of_b, k):
    (a, _), (_, b) = systems(n, *batch), systems(n, *of_b, k=k)
    check(a, b)


@pytest.mark.parametrize(
    "a_dtype", [*(pytest.param(t, marks=SLOW) for t in ("f4", "c8")), "i4", ">f8", "?"]
)
@pytest.mark.parametrize("b_dtype", ["f8", "i1", pytest.param("c16", marks=SLOW)])
def test_mixed_dtypes(a_dtype, b_dtype):
    a = np.tril(np.ones((2, 1, 12, 12))).astype(a_dtype)
    check(a, np.arange(2 * 9 * 12).reshape(2, 9, 12).astype(b_dtype))


@pytest.mark.parametrize(
    "layout",
    [np.asfortranarray, unaligned, lambda v: v[..., ::-1], lambda v: v.swapaxes(0, 1)],
    ids=["F order", "unaligned", "backwards", "axes swapped"],
)
@pytest.mark.parametrize(("n", "vectors"), [(4, 40), (12, 9)])
def test_the_layout_changes_no_bit(n, vectors, layout):
    (a, _), (_, b) = systems(n, 5, 1), systems(n, 5, vectors)
    x = dasksolve.solve(layout(a), layout(b))
    assert same_bits(x, dasksolve.solve(layout(a).copy(), layout(b).copy()))
    check(layout(a), layout(b))


def test_what_repeats_by_strides_of_zero_on_both_sides_keeps_its_shape():
    a, b = np.broadcast_to(definite(12), (3, 4, 12, 12)), np.broadcast_to(np.ones(12), (4, 12))
    x = dasksolve.solve(a, b[None])
    assert same_bits(x, dasksolve.solve(a.copy(), b[None].copy()))
    assert dasksolve.solve(a[:, 0], np.ones((1, 12))).shape == (3, 12)
    assert dasksolve.solve(a, np.ones(12)).shape == (3, 4, 12)


@pytest.mark.parametrize("on_singular", ON_SINGULAR)
@pytest.mark.parametrize(
    "assume_a",
    [pytest.param(w, marks=SLOW if w in ("pos", "tridiagonal") else []) for w in STRUCTURES],
)
@pytest.mark.parametrize("k", [None, 2])
def test_failures_are_those_of_each_vector(k, assume_a, on_singular):
    """NaN in some b; then in an a; then singular matrices, one beside such a b."""
    a, (_, b) = definite(12, 5, 1), systems(12, 5, 30, k=k)
    b[1, 3, 0], b[1, 29, 11], b[2, 7] = NAN, INF, NAN
    options = {"assume_a": assume_a, "on_singular": on_singular}
    x = check(a, b, **options)
    assert np.flatnonzero(np.isnan(x).any(axis=(2,) if k is None else (2, 3))).size == 3
    a[4] = NAN
    x = check(a, b, **options)
    assert np.isnan(x[4]).all()
    a[2] = a[3] = 0
    failed = check(a, b, **options)
    assert isinstance(failed, tuple) == (on_singular == "raise")
    if on_singular == "raise":
        assert failed[2] == [m for m in range(60, 120) if m != 67]


def test_nan_in_vectors_costs_no_second_elimination(calls):
    (a, _), (_, b) = systems(12, 1), systems(12, 50)
    b[7, 3] = NAN
    assert np.flatnonzero(np.isnan(dasksolve.solve(a, b)).any(axis=1)).tolist() == [7]
    a[0, 1, 1] = INF
    assert np.isnan(dasksolve.solve(a, b)).all()
    assert calls == [(12, 50, 1)] * 2


@pytest.mark.parametrize("on_singular", ON_SINGULAR)
def test_a_condition_that_is_asked_for_is_that_of_each(on_singular):
    a, (_, b) = definite(12, 5, 1), systems(12, 5, 30)
    a[2, 0, 0] += 1e12
    check(a, b, rcond=1e-8, on_singular=on_singular)


@pytest.mark.parametrize("on_singular", ON_SINGULAR)
@pytest.mark.parametrize(
    "assume_a", ["gen", pytest.param("pos", marks=SLOW), "sym", "upper triangular"]
)
def test_what_is_out_of_range_is_solved_again_as_it_is_alone(assume_a, on_singular):
    a, (_, b) = definite(12, 6, 1), systems(12, 6, 30)
    b[1, ::2] *= 1e307  # some x overflow, some do not
    a[1] *= 1e-1
    a[2] *= 1e-307
    a[3] *= 1e305
    b[3, 4] *= 1e300
    a[4, 0, 0, 0] = 5e-324
    b[5, 6], a[5, 0, :, 3] = 1e308, a[5, 0, :, 3] * 1e-200
    b[2, 5, 5] = NAN
    check(a, b, assume_a=assume_a, on_singular=on_singular)


@pytest.mark.parametrize("on_singular", ON_SINGULAR)
def test_a_matrix_that_is_singular_once_it_is_scaled_is_so_to_what_needs_that(on_singular):
    """Unscaled, rounding leaves a tiny pivot, which makes the second x overflow, the first not."""
    a = np.eye(12)
    a[:3, :3] = [[-6.25, -12.75, -5.25], [96, -304, -192], [4.5, 10.5, 4.5]]
    b = np.zeros((3, 12))
    b[0, :3], b[1, :3], b[2, 0] = 1, [1e300, 1e299, -1e300], NAN
    expected = check(a[None], b, on_singular=on_singular)
    if on_singular == "raise":
        assert expected[2] == [1]


@pytest.mark.parametrize("on_singular", ["raise", "nan"])
def test_blocks_of_dask_arrays_share_too(on_singular, calls):
    a, (_, b) = definite(12, 6, 1), systems(12, 6, 30)
    expected = dasksolve.solve(copied(a, b), b)
    calls.clear()
    x = dasksolve.solve(
        da.from_array(a, chunks=(3, 1, 12, 12)),
        da.from_array(b, chunks=(3, 10, 12)),
        on_singular=on_singular,
    )
    assert same_bits(x.compute(scheduler="sync"), expected)
    assert calls == [(12, 10, 3)] * 6
    a[4] = 0
    x = dasksolve.solve(da.from_array(a, chunks=(6, 1, 12, 12)), b)
    with pytest.raises(SingularSystemError) as error:
        x.compute(scheduler="sync")
    assert error.value.indices.tolist() == list(range(120, 150))
