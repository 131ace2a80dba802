"""dask in, lazy dask out: one fused task per block, the bits of NumPy, errors in whole batches."""

import os
import pickle
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import dask
import dask.array as da
import numpy as np
import pytest
import zarr
from families import DTYPES, same_bits, systems

import dasksolve
from dasksolve import PerformanceWarning, SingularSystemError, Solution, Status, kernels
from dasksolve.batch import alignment, eager, lazy
from dasksolve.batch.options import Options


@pytest.fixture
def kernel_calls(monkeypatch):
    """The list that grows with every call of a kernel, which is run all the same."""
    calls = []
    pick = kernels.pick

    def noting(*key):
        kernel = pick(*key)
        return lambda *arrays: (calls.append(arrays[0].shape), kernel(*arrays))

    monkeypatch.setattr(kernels, "pick", noting)
    return calls


def chunked(values, *batch):
    """A dask array of `values`, in chunks of these sizes along the batch."""
    return da.from_array(values, chunks=(*batch, *values.shape[len(batch) :]))


def stored(values, folder, name, *batch):
    array = zarr.create_array(
        folder / name,
        shape=values.shape,
        chunks=(*batch, *values.shape[len(batch) :]),
        dtype=values.dtype,
    )
    array[...] = values
    return da.from_zarr(array, inline_array=True)


# How many tasks, and when


@pytest.mark.parametrize("on_singular", ["raise", "nan"])
@pytest.mark.parametrize(
    "pair",
    [
        pytest.param(
            lambda a, b, at: (stored(a, at, "a", 4), stored(b, at, "b", 4)), id="both from zarr"
        ),
        pytest.param(
            lambda a, b, at: (stored(a, at, "a", 4), stored(b[..., None], at, "b", 4)),
            id="matrices from zarr",
        ),
        pytest.param(lambda a, b, at: (chunked(a, 4), chunked(b, 4)), id="both from arrays"),
        pytest.param(lambda a, b, at: (stored(a, at, "a", 4), b), id="b in memory"),
        pytest.param(lambda a, b, at: (a, stored(b, at, "b", 4)), id="a in memory"),
        pytest.param(lambda a, b, at: (chunked(a, 4), b[0]), id="one vector for every system"),
        pytest.param(lambda a, b, at: (a[0], chunked(b[..., None], 4)), id="one a for every b"),
    ],
)
def test_one_task_for_each_block(pair, on_singular, scheduler, tmp_path):
    a, b = pair(*systems(3, 12), tmp_path)
    dasksolve.solve(a, b, on_singular=on_singular).persist()
    assert (scheduler.runs, scheduler.tasks) == (1, 3)


def test_one_task_for_each_block_of_two_batch_axes(scheduler, tmp_path):
    a, b = systems(3, 4, 6)
    a, b = stored(a, tmp_path, "a", 2, 3), stored(b, tmp_path, "b", 2, 3)
    dasksolve.solve(a, b).persist()
    assert (scheduler.runs, scheduler.tasks) == (1, 4)


def test_building_computes_nothing_and_calls_no_kernel(scheduler, kernel_calls):
    a, b = systems(3, 12)
    x = dasksolve.solve(chunked(a, 4), chunked(b, 4))
    dasksolve.solve(chunked(a, 4), b[0], on_singular="lstsq")
    with pytest.warns(PerformanceWarning, match="the systems themselves are chunked"):
        dasksolve.solve(chunked(a, 4, 1, 1), chunked(b, 6))
    assert (scheduler.runs, kernel_calls) == (0, [])
    x.compute()
    assert kernel_calls == [(4, 3, 3)] * 3


# The same numbers as NumPy input gives

CHUNKINGS = [
    pytest.param((60,), (60,), id="one block"),
    pytest.param((1,), (1,), id="blocks of one"),
    pytest.param((7,), (7,), id="an odd tail"),
    pytest.param((7,), (20,), id="b in other chunks"),
    pytest.param(((33, 1, 26),), (60,), id="uneven blocks"),
]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("k", [None, 2])
@pytest.mark.parametrize("n", [1, 3, 12, 33])
@pytest.mark.parametrize(("a_chunks", "b_chunks"), CHUNKINGS)
def test_chunking_changes_no_bit(a_chunks, b_chunks, n, k, dtype):
    a, b = systems(n, 60, k=k, dtype=dtype)
    x = dasksolve.solve(chunked(a, *a_chunks), chunked(b, *b_chunks))
    assert same_bits(x.compute(scheduler="sync"), dasksolve.solve(a, b))


@pytest.mark.parametrize(
    ("a_shape", "a_chunks", "b_shape", "b_chunks", "x_chunks"),
    [
        pytest.param((6, 3, 3), (4,), (6, 3), (3,), ((4, 2), (3,)), id="b follows a"),
        pytest.param((6, 3, 3), (4,), (6, 3), None, ((4, 2), (3,)), id="b in memory"),
        pytest.param((6, 3, 3), None, (6, 3), (4,), ((4, 2), (3,)), id="a in memory"),
        pytest.param((6, 3, 3), (4,), (3,), (), ((4, 2), (3,)), id="one vector"),
        pytest.param((6, 3, 3), (4,), (3,), None, ((4, 2), (3,)), id="one vector in memory"),
        pytest.param((6, 3, 3), None, (3,), (), ((6,), (3,)), id="one lazy vector"),
        pytest.param((3, 3), (), (3,), (), ((3,),), id="one system"),
        pytest.param((3, 3), (), (3, 2), None, ((3,), (2,)), id="one system, K columns"),
        pytest.param((2, 2, 2), (1,), (2, 2), (2,), ((1, 1), (2,)), id="vectors, though M == N"),
        pytest.param((3, 3), None, (6, 3, 2), (4,), ((4, 2), (3,), (2,)), id="one a for every b"),
        pytest.param((1, 3, 3), (1,), (6, 3), (4,), ((4, 2), (3,)), id="a has size one"),
        pytest.param((1, 3, 3), (1,), (6, 3), None, ((6,), (3,)), id="size one, b in memory"),
        pytest.param((6, 3, 3), (4,), (1, 3), (1,), ((4, 2), (3,)), id="b has size one"),
        pytest.param(
            (4, 5, 3, 3), (2, 4), (4, 5, 3), (4, 5), ((2, 2), (4, 1), (3,)), id="two batch axes"
        ),
        pytest.param(
            (4, 5, 3, 3), (2, 4), (3,), None, ((2, 2), (4, 1), (3,)), id="two axes, one vector"
        ),
        pytest.param(
            (4, 1, 3, 3), (3, 1), (1, 5, 3), (1, 2), ((3, 1), (2, 2, 1), (3,)), id="both broadcast"
        ),
        pytest.param(
            (5, 3, 3), (2,), (4, 1, 3, 2), (3, 1), ((3, 1), (2, 2, 1), (3,), (2,)), id="b has more"
        ),
        pytest.param((0, 3, 3), (0,), (0, 3), None, ((0,), (3,)), id="no systems"),
        pytest.param((4, 0, 0), (2,), (4, 0), (2,), ((2, 2), (0,)), id="N is zero"),
        pytest.param((4, 3, 3), (2,), (4, 3, 0), None, ((2, 2), (3,), (0,)), id="K is zero"),
    ],
)
def test_broadcasting_and_chunks(a_shape, a_chunks, b_shape, b_chunks, x_chunks):
    rng = np.random.default_rng(4)
    a, b = rng.standard_normal(a_shape), rng.standard_normal(b_shape)
    lazy_a = a if a_chunks is None else chunked(a, *a_chunks)
    lazy_b = b if b_chunks is None else chunked(b, *b_chunks)
    x = dasksolve.solve(lazy_a, lazy_b)
    assert x.chunks == x_chunks
    assert same_bits(x.compute(scheduler="sync"), dasksolve.solve(a, b))


def test_chunks_of_no_columns_have_no_say():
    a, b = np.stack([np.eye(2), -np.eye(2)]), np.ones((2, 2, 2))  # the second is not definite
    wanted = dasksolve.solve_ex(a, b, assume_a="pos")
    lazy_b = da.from_array(b).rechunk((2, 2, (2, 0)))
    for x, of_wanted in zip(dasksolve.solve_ex(a, lazy_b, assume_a="pos"), wanted, strict=True):
        np.testing.assert_array_equal(x.compute(), of_wanted)


def test_chunks_of_no_length_do_not_make_systems_chunked():
    a, b = np.eye(2) + np.ones((6, 2, 2)), np.ones((6, 2, 3))
    rows = da.from_array(a, chunks=((0, 6), (0, 2), (2, 0)))
    x = dasksolve.solve(rows, da.from_array(b, chunks=((3, 0, 3), (2, 0), (0, 3))))  # no warning
    np.testing.assert_array_equal(x, dasksolve.solve(a, b))


@pytest.mark.parametrize(("a_dtype", "b_dtype"), [("i4", "?"), ("f4", "c8"), (">f8", "f4")])
def test_the_declared_dtype_is_the_computed_one(a_dtype, b_dtype):
    a, b = np.array([np.eye(3)] * 4, a_dtype), np.ones((4, 3), b_dtype)
    x = dasksolve.solve(chunked(a, 2), b)
    assert x.dtype == x._meta.dtype == x.compute().dtype == dasksolve.solve(a, b).dtype


def test_threads_give_the_same_bits():
    a, b = systems(3, 50_000)
    x = dasksolve.solve(chunked(a, 999), chunked(b, 999))
    assert same_bits(x.compute(scheduler="threads", num_workers=4), dasksolve.solve(a, b))


def test_two_processes_give_the_same_bits(two_processes, tmp_path):
    a, b = systems(8, 400)
    x = dasksolve.solve(stored(a, tmp_path, "a", 70), stored(b, tmp_path, "b", 70))
    expected = dasksolve.solve(a, b)
    assert same_bits(two_processes.compute(x).result(), expected)
    assert same_bits(x.compute(scheduler="threads"), expected)


def test_neither_input_is_written_to():
    a, b = systems(3, 12)
    a[3] = 0
    before = a.copy(), b.copy()
    dasksolve.solve(chunked(a, 4), chunked(b, 4), on_singular="lstsq").compute()
    assert same_bits(a, before[0])
    assert same_bits(b, before[1])


def test_map_blocks_without_a_dtype():
    a, b = systems(3, 12, k=2)
    x = chunked(a, 4).map_blocks(dasksolve.solve, chunked(b, 4), chunks=((4, 4, 4), (3,), (2,)))
    assert x.dtype == np.float64
    assert x.shape == b.shape
    assert same_bits(x.compute(), dasksolve.solve(a, b))


@pytest.mark.parametrize("door", ["inv", "solve_ex", "solve_tridiagonal"])
def test_map_blocks_of_other_doors_without_a_dtype(door):
    a, _ = systems(3, 12)
    if door == "inv":
        found, wanted = chunked(a, 4).map_blocks(dasksolve.inv), dasksolve.inv(a)
    elif door == "solve_ex":
        found = chunked(a, 4).map_blocks(lambda a: dasksolve.solve_ex(a, a, on_singular="raise").x)
        wanted = dasksolve.solve(a, a)
    else:
        band = a[..., 0]
        found = chunked(band, 4).map_blocks(lambda d: dasksolve.solve_tridiagonal(d, d, d, d))
        wanted = dasksolve.solve_tridiagonal(band, band, band, band)
    assert same_bits(found.compute(), wanted)


def test_map_blocks_hides_no_singular_system():
    a, b = systems(3, 12, k=3)
    a[5] = 0
    x = chunked(a, 4).map_blocks(dasksolve.solve, chunked(b, 4))
    with pytest.raises(SingularSystemError, match=r"\(4,\) is singular, at flat index 1;"):
        x.compute()


# Core dimensions in several chunks


@pytest.mark.parametrize(
    ("a_chunks", "b_chunks"),
    [
        pytest.param((40, 3, 8), (40, 8), id="rows of a"),
        pytest.param((40, 8, 3), (40, 8), id="columns of a"),
        pytest.param((40, 3, 5), (40, 8), id="both of a"),
        pytest.param((40, 8, 8), (40, 3), id="b"),
        pytest.param((7, 3, 5), (40, 3), id="all"),
    ],
)
def test_chunked_systems_are_merged_in_blocks_of_bounded_size(a_chunks, b_chunks, monkeypatch):
    sizes = []
    solve = eager.solve
    monkeypatch.setattr(
        eager,
        "solve",
        lambda a, b, how: (sizes.append(max(a.nbytes, b.nbytes)), solve(a, b, how))[1],
    )
    a, b = systems(8, 40)
    lazy_a, lazy_b = da.from_array(a, chunks=a_chunks), da.from_array(b, chunks=b_chunks)
    with (
        dask.config.set({"array.chunk-size": "4KiB"}),
        pytest.warns(PerformanceWarning, match=r"(a|b) has chunks of .* of at most [34]\.\d+ kiB"),
    ):
        x = dasksolve.solve(lazy_a, lazy_b)
    assert same_bits(x.compute(scheduler="sync"), solve(a, b, Options()))
    assert len(sizes) > 1
    assert max(sizes) <= 4096


@pytest.mark.parametrize("limit", ["100B", "1KiB", "3KiB"])
def test_every_batch_axis_is_split_where_merging_asks_for_it(limit):
    a, b = systems(4, 5, 7, k=2)
    with (
        dask.config.set({"array.chunk-size": limit}),
        pytest.warns(PerformanceWarning, match="whole systems of 128 B"),
    ):
        x = dasksolve.solve(chunked(a, 5, 7, 2), chunked(b, 5, 7))
    largest = max(x.chunks[0]) * max(x.chunks[1]) * 4 * 4 * 8
    assert largest <= max(128, dask.utils.parse_bytes(limit))
    assert same_bits(x.compute(scheduler="sync"), dasksolve.solve(a, b))


def test_the_warning_points_at_the_line_that_called():
    a, b = systems(4, 8)
    with pytest.warns(PerformanceWarning, match=r"a has chunks of \(8, 2, 4\), where") as caught:
        dasksolve.solve(chunked(a, 8, 2), b)
    assert [warning.filename for warning in caught] == [__file__]


# What is refused


def unknown_length(values):
    return values[da.from_array(np.arange(len(values))) < 4]


@pytest.mark.parametrize(
    ("wrap_a", "wrap_b", "name"),
    [
        pytest.param(unknown_length, lambda b: b, "a", id="a"),
        pytest.param(lambda a: a, unknown_length, "b", id="b"),
        pytest.param(unknown_length, unknown_length, "a", id="both"),
    ],
)
def test_chunks_of_unknown_size_are_refused_with_a_hint(wrap_a, wrap_b, name):
    a, b = (chunked(values, 4) for values in systems(3, 12))
    with pytest.raises(ValueError, match=rf"{name} has .*\(nan, .*{name}.compute_chunk_sizes\(\)"):
        dasksolve.solve(wrap_a(a), wrap_b(b))


def test_chunks_of_computed_size_are_solved_the_empty_one_too():
    a, b = systems(3, 12)
    wanted = np.repeat([True, False, True], [3, 5, 4])
    kept = chunked(a, 4)[da.from_array(wanted, chunks=4)].compute_chunk_sizes()
    x = dasksolve.solve(kept, b[wanted])
    assert x.chunks == ((3, 0, 4), (3,))
    assert same_bits(x.compute(), dasksolve.solve(a[wanted], b[wanted]))


@pytest.mark.parametrize("place", ["a", "b"])
def test_blocks_that_are_not_numpy_arrays_are_refused(place):
    given = dict(zip("ab", map(chunked, systems(3, 12), (4, 4)), strict=True))
    given[place] = da.ma.masked_greater(given[place], 0)
    with pytest.raises(TypeError, match=f"{place} is a dask array of numpy.*MaskedArray blocks"):
        dasksolve.solve(**given)


A, B = (chunked(values, 4) for values in systems(3, 12))


@pytest.mark.parametrize(
    ("a", "b", "error", "text"),
    [
        pytest.param(A[:, :2], B, np.linalg.LinAlgError, r"square.*\(12, 2, 3\)", id="not square"),
        pytest.param(A, B[:, :2], ValueError, r"N = 2 where a has 3.*\(12, 2\)", id="core sizes"),
        pytest.param(A, B[:5], ValueError, r"\(12,\) of a and \(5,\) of b", id="batch"),
        pytest.param(A, 1.0, ValueError, r"b has shape \(\)", id="b is a number"),
        pytest.param(A[None], B, ValueError, r"one axis less than a", id="neither"),
        pytest.param(A.astype("f2"), B, TypeError, "a has dtype float16", id="float16"),
        pytest.param(A, np.ones((12, 3, 1), object), TypeError, "b has dtype object", id="object"),
        pytest.param(A, np.ma.ones(3), TypeError, "b is a masked array", id="masked"),
    ],
)
def test_what_does_not_fit_is_refused_while_building(a, b, error, text):
    with pytest.raises(error, match=text):
        dasksolve.solve(a, b)


# Singular systems


@pytest.mark.parametrize(
    ("batch", "chunks", "at", "indices", "axes"),
    [
        pytest.param((), (), [()], [0], "", id="one system"),
        pytest.param((20,), (8,), [(9,), (15,)], [9, 15], "20,", id="one batch axis"),
        pytest.param((4, 5), (3, 2), [(3, 4)], [19], "4, 5", id="two batch axes"),
        pytest.param((4, 5), (4, 5), [(0, 1), (2, 3)], [1, 13], "4, 5", id="two axes, one block"),
        pytest.param((2, 3, 4), (1, 2, 3), [(1, 2, 1)], [21], "2, 3, 4", id="three batch axes"),
    ],
)
def test_singular_systems_are_counted_over_the_whole_batch(batch, chunks, at, indices, axes):
    a, b = systems(3, *batch)
    for index in at:
        a[index] = 0
    x = dasksolve.solve(chunked(a, *chunks), chunked(b, *chunks))
    with pytest.raises(SingularSystemError, match=rf"batch of shape \({axes}\)") as error:
        x.compute()
    assert error.value.indices.tolist() == indices
    assert error.value.batch_shape == batch


def test_singular_systems_of_a_broadcast_batch_are_counted_over_it():
    a, b = systems(3, 12)
    a[6] = 0
    x = dasksolve.solve(chunked(a, 4), chunked(np.stack([b, b])[..., None], 1, 12))
    with pytest.raises(SingularSystemError, match=r"\(2, 12\) is singular") as error:
        x[1].compute()
    assert error.value.indices.tolist() == [18]


def test_a_singular_system_in_another_process_is_named(two_processes):
    a, b = systems(3, 20)
    a[[9, 15]] = 0
    x = dasksolve.solve(chunked(a, 8), chunked(b, 8))
    with pytest.raises(SingularSystemError, match="at flat index 9, 15;") as error:
        two_processes.compute(x).result()
    assert error.value.indices.tolist() == [9, 15]


@pytest.mark.parametrize("on_singular", ["nan", "lstsq"])
def test_singular_systems_need_not_raise(on_singular):
    a, b = systems(3, 20)
    a[9], b[15] = 1, np.nan
    x = dasksolve.solve(chunked(a, 8), chunked(b, 8), on_singular=on_singular)
    assert same_bits(x.compute(), dasksolve.solve(a, b, on_singular=on_singular))


# Graphs


def names():
    """The names of arrays that are always built of the same parts."""
    a, b = systems(3, 12)
    lazy_a = chunked(a, 4)
    built = [
        dasksolve.solve(lazy_a, chunked(b, 4)),
        dasksolve.solve(lazy_a, b),
        dasksolve.solve(lazy_a, b[0]),
        dasksolve.solve(lazy_a, b, on_singular="nan"),
        dasksolve.solve(lazy_a.astype("f4"), b),
        dasksolve.solve(a, chunked(b + 1, 4)),
    ]
    return [x.name for x in built]


def test_names_say_what_is_computed():
    first = names()
    assert first == names()
    assert len(set(first)) == len(first)


@pytest.mark.slow
def test_names_are_the_same_in_another_process():
    here = Path(__file__).parent
    paths = os.pathsep.join(map(str, (here, here.parent, Path(dasksolve.__file__).parents[1])))
    found = subprocess.run(
        [sys.executable, "-c", "import test_lazy; print(*test_lazy.names())"],
        env=os.environ | {"PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.split() == names()


@pytest.mark.parametrize(
    "function",
    [lazy.solve_block, lazy.solve_bands, alignment._as_columns],
)
def test_the_function_of_a_block_pickles_small(function):
    assert len(pickle.dumps(function)) < 64


def test_a_task_pickles_small(tmp_path):
    a, b = systems(3, 12)
    x = dasksolve.solve(stored(a, tmp_path, "a", 4), stored(b, tmp_path, "b", 4))
    (x,) = dask.optimize(x)
    assert max(len(pickle.dumps(node)) for node in dict(x.__dask_graph__()).values()) < 10_000


@pytest.mark.parametrize("chunks", [(4, 4, 4), (2, 7, 3)], ids=["alike", "of all lengths"])
def test_a_task_that_may_raise_is_told_its_origin_and_no_more(chunks):
    a, b = systems(3, 12)
    a = da.from_array(a, chunks=(chunks, 3, 3))
    sizes = []
    for on_singular in ("raise", "nan"):
        x = dasksolve.solve(a, b[..., None], on_singular=on_singular)
        tasks = dict(x.__dask_graph__().layers[x.name])
        sizes.append(max(len(pickle.dumps(task)) for task in tasks.values()))
    assert sizes[0] < sizes[1] + 200


def test_the_graph_of_vectors_that_may_raise_has_a_task_less_for_each_block():
    a, b = (chunked(values, 4) for values in systems(3, 12))
    counts = [
        len(dict(dasksolve.solve(a, b, on_singular=on_singular).__dask_graph__()))
        for on_singular in ("raise", "nan")
    ]
    assert counts[0] == counts[1] - 3


def test_indices_are_counted_over_the_batch_in_blocks_of_all_lengths():
    a, b = systems(2, 12)
    a[[3, 7, 8]] = 0
    for chunks in ((4, 4, 4), (5, 5, 2), (2, 7, 3)):
        x = dasksolve.solve(da.from_array(a, chunks=(chunks, 2, 2)), b)
        stop = np.cumsum(chunks)
        for block in range(3):
            inside = [i for i in (3, 7, 8) if stop[block] - chunks[block] <= i < stop[block]]
            if inside:
                with pytest.raises(SingularSystemError) as error:
                    x.blocks[block].compute(scheduler="sync")
                assert (error.value.indices.tolist(), error.value.batch_shape) == (inside, (12,))


# One matrix, columns in chunks


@pytest.mark.parametrize("width", [100, 3, 1])
def test_columns_of_one_matrix_stay_in_chunks(width, recwarn):
    a, b = systems(3, k=500)
    x = dasksolve.solve(a, da.from_array(b, chunks=(3, width)))
    assert x.chunks[0] == (3,)
    assert set(x.chunks[1][:-1]) == {max(width, 3)}  # narrower, elimination would take longest
    assert same_bits(x.compute(), dasksolve.solve(a, b))
    assert not recwarn.list


def test_a_status_is_that_of_all_columns(recwarn):
    a, b = systems(2, 5, k=40)
    a[1], b[3, 1, :] = 0, np.inf
    found = dasksolve.solve_ex(a, da.from_array(b, chunks=(2, 2, 10)))
    for lazily, wanted in zip(found, dasksolve.solve_ex(a, b), strict=True):
        assert lazily.shape == wanted.shape
        assert same_bits(lazily.compute(), wanted)


def test_what_is_said_of_systems_whose_columns_were_solved_apart():
    ok, poor, nan, singular = Status.OK, Status.ILL_CONDITIONED, Status.NONFINITE, Status.SINGULAR
    ones, errors = np.ones(4), np.array([1, 2, np.nan, 4])
    left = Solution(None, np.int8([ok, ok, poor, singular]), ones, errors)
    right = Solution(None, np.int8([ok, nan, nan, singular]), ones, 3 * ones)
    status, rcond, error = (lazy._item([[left, right]], item) for item in (1, 2, 3))
    assert (status.tolist(), status.dtype) == ([ok, nan, nan, singular], np.int8)
    assert rcond.tolist() == [1] * 4
    assert error.tolist() == [3, 3, 3, 4]


QUERY_PLANNING = """
import dask
dask.config.set({"array.query-planning": True})
import dask.array as da, numpy as np, dasksolve, sys
a = da.from_array(np.tile(2 * np.eye(4), (20, 1, 1)), chunks=(5, 2, 2))
b = da.ones((20, 4), chunks=(5, 4))
x = dasksolve.solve(a, b)
assert "_array_expr" in type(x).__module__
assert (x.compute() == 0.5).all()
dasksolve.factor(a).to_zarr(sys.argv[1])
assert (dasksolve.Factorization.open(sys.argv[1]).solve(b).compute() == 0.5).all()
singular = dasksolve.solve(da.zeros((6, 2, 2), chunks=(4, 2, 2)), np.ones(2))
try:
    singular[4:].compute()
except dasksolve.SingularSystemError as error:
    assert error.indices.tolist() == [4, 5]
else:
    raise AssertionError
"""


@pytest.mark.slow
@pytest.mark.skipif(
    find_spec("dask.array._array_expr") is None, reason="this dask plans no queries of arrays"
)
def test_the_arrays_of_query_planning_are_solved_too(tmp_path):
    command = [sys.executable, "-W", "ignore", "-c", QUERY_PLANNING, str(tmp_path / "factors")]
    subprocess.run(command, check=True)
