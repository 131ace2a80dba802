"""`solve_zarr`: what it writes, what it reports, and what faults of its inputs do."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
import xarray as xr
import zarr
from families import same_bits
from stored import Stored
from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec, ZstdCodec

import dasksolve
from dasksolve import (
    BlockErrors,
    PerformanceWarning,
    Report,
    SingularSystemError,
    Status,
    solve_zarr,
)
from dasksolve.job.plan import LOADING, OVERHEAD
from dasksolve.storage import internals

# What it writes


def test_x_has_the_bits_of_solve_and_status_names_the_troubled(batch: Stored) -> None:
    solve_zarr(batch.a_path, batch.b_path, batch.out)
    assert same_bits(batch.x, dasksolve.solve(batch.a, batch.b, on_singular="nan"))
    status = batch.status
    assert {int(i): Status(status[i]) for i in np.flatnonzero(status)} == {
        123: Status.SINGULAR,
        456: Status.NONFINITE,
        789: Status.NONFINITE,
    }


@pytest.mark.usefixtures("many_blocks")
def test_status_of_blocks_without_a_flaw_is_compressed_once(
    batch: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode, encoded = internals.Codecs.encode, list[str]()

    async def counted(codecs: internals.Codecs, values: Any) -> Any:
        encoded.append(codecs.array.path)
        return await encode(codecs, values)

    monkeypatch.setattr(internals.Codecs, "encode", counted)
    report = solve_zarr(batch.a_path, batch.b_path, batch.out, workers=1)
    assert report.blocks == 10
    assert encoded.count("status") == 1 + 3  # those with a flaw each on its own
    assert np.flatnonzero(batch.status).tolist() == [123, 456, 789]


@pytest.mark.parametrize(
    ("a_shape", "b_shape"),
    [
        pytest.param((60, 4, 4), (60, 4, 3), id="several right-hand sides"),
        pytest.param((60, 4, 4), (4,), id="one vector for all"),
        pytest.param((4, 4), (60, 4, 2), id="one matrix for all"),
        pytest.param((6, 10, 4, 4), (6, 10, 4), id="two batch dimensions"),
        pytest.param((6, 1, 4, 4), (1, 10, 4), id="outer product"),
        pytest.param((2, 3, 5, 4, 4), (5, 4, 1), id="b broadcasts", marks=[]),
        pytest.param((4, 4), (4,), id="a single system"),
        pytest.param((4, 4, 4), (4, 4), id="M equals N"),
        pytest.param((0, 4, 4), (0, 4), id="no systems"),
        pytest.param((3, 0, 0), (3, 0), id="systems of order 0"),
    ],
)
def test_shapes_are_those_of_solve(
    store: Callable[..., Stored], a_shape: tuple[int, ...], b_shape: tuple[int, ...]
) -> None:
    rng = np.random.default_rng(1)
    a, b = rng.standard_normal(a_shape), rng.standard_normal(b_shape)
    if len(b_shape) == 3 and len(a_shape) == 5:
        b = b[None, None]
    stored = store(a, b)
    report = solve_zarr(stored.a_path, stored.b_path, stored.out)
    expected = dasksolve.solve(a, b)
    assert same_bits(stored.x, expected)
    assert report.systems == stored.status.size == report.counts[Status.OK]


@pytest.mark.parametrize("dtype", ["f4", "f8", "c8", "c16", ">f8", ">c8", "i4", "bool"])
def test_every_dtype(store: Callable[..., Stored], dtype: str) -> None:
    rng = np.random.default_rng(2)
    a, b = (10 * rng.standard_normal((50, 3, 3))).astype(dtype), np.ones((50, 3), dtype)
    stored = store(a, b, zarr_format=2)
    solve_zarr(stored.a_path, stored.b_path, stored.out)
    assert same_bits(stored.x, dasksolve.solve(a, b, on_singular="nan"))


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"zarr_format": 2, "order": "F"}, id="format 2, F order"),
        pytest.param({"shards": (40, 5, 5)}, id="sharded"),
        pytest.param({"chunks": (7, 5, 5)}, id="chunks that do not divide the batch"),
        pytest.param({"chunks": (1000, 5, 5)}, id="one chunk"),
        pytest.param({"chunks": (50, 2, 3)}, id="chunked systems"),
        pytest.param({"compressors": None}, id="no codec"),
        pytest.param({"compressors": BloscCodec()}, id="blosc"),
    ],
)
@pytest.mark.usefixtures("many_blocks")
def test_every_storage_of_a(batch: Stored, tmp_path: Path, options: dict[str, Any]) -> None:
    path = tmp_path / "other"
    zarr.create_array(path, data=batch.a, **{"chunks": (20, 5, 5), **options})
    solve_zarr(path, batch.b_path, batch.out)
    assert same_bits(batch.x, dasksolve.solve(batch.a, batch.b, on_singular="nan"))


def test_open_arrays_and_paths_are_the_same(batch: Stored) -> None:
    group = zarr.open_group(Path(batch.a_path).parent, mode="r")
    solve_zarr(group["a"], Path(batch.b_path), Path(batch.out))
    assert same_bits(batch.x, dasksolve.solve(batch.a, batch.b, on_singular="nan"))


def test_an_array_in_memory_can_be_an_input(tmp_path: Path) -> None:
    a = zarr.create_array(zarr.storage.MemoryStore(), data=np.eye(3) + np.zeros((9, 3, 3)))
    report = solve_zarr(a, a, tmp_path / "out")
    assert report.counts[Status.OK] == 9


def test_a_relative_path_is_resolved_where_it_was_given(
    batch: Stored, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    report = solve_zarr("data.zarr/a", "file://" + batch.b_path, "out.zarr")
    assert report.out == batch.out
    assert report.blocks_done == report.blocks


def test_xarray_opens_the_output_with_its_names(batch: Stored, tmp_path: Path) -> None:
    path = tmp_path / "named"
    zarr.create_array(path, data=batch.a, dimension_names=("pixel", "row", "term"))
    solve_zarr(path, batch.b_path, batch.out)
    with xr.open_zarr(batch.out) as dataset:
        assert dataset["x"].dims == ("pixel", "term")
        assert dataset["status"].dims == ("pixel",)
        assert int((dataset["status"] == 0).sum()) == 997


def test_a_dimension_named_x_does_not_hide_the_solution(batch: Stored, tmp_path: Path) -> None:
    path = tmp_path / "named"
    grid = batch.a.reshape(20, 50, 5, 5)
    zarr.create_array(path, data=grid, dimension_names=("y", "x", "row", "term"))
    b = zarr.create_array(tmp_path / "b", data=batch.b.reshape(20, 50, 5))
    report = solve_zarr(path, b, batch.out)
    with xr.open_zarr(batch.out) as dataset:
        assert set(dataset.data_vars) == {"x", "status"}
        assert dataset["x"].dims == ("y", "x_", "term")
    assert report.flagged == (123, 456, 789)
    assert re.search(r"^flagged +\(2, 23\), \(9, 6\), \(15, 39\)$", str(report), re.M)


@pytest.mark.parametrize(("count", "more"), [(10, ""), (11, ", …")])
def test_a_report_names_ten_that_are_flagged(
    store: Callable[..., Stored], count: int, more: str
) -> None:
    a = np.tile(np.eye(2), (20, 1, 1))
    a[:count] = 1
    batch = store(a, np.ones((20, 2)))
    report = solve_zarr(batch.a_path, batch.b_path, batch.out)
    assert re.search(rf"^flagged +0, 1, 2, 3, 4, 5, 6, 7, 8, 9{more}$", str(report), re.M)


def test_names_that_clash_are_replaced(batch: Stored, tmp_path: Path) -> None:
    path = tmp_path / "named"
    zarr.create_array(path, data=batch.a, dimension_names=("m", "n", "m"))
    solve_zarr(path, batch.b_path, batch.out)
    assert zarr.open_array(batch.out + "/x").metadata.dimension_names == ("dim_0", "dim_1")


def test_bytes_are_checksummed_unless_the_user_says_otherwise(batch: Stored) -> None:
    solve_zarr(batch.a_path, batch.b_path, batch.out)
    for name in ("x", "status"):
        assert Crc32cCodec() in zarr.open_array(f"{batch.out}/{name}").metadata.codecs
    solve_zarr(batch.a_path, batch.b_path, batch.out, overwrite=True, compressors=[ZstdCodec()])
    assert zarr.open_array(batch.out + "/x").metadata.codecs[1:] == (ZstdCodec(),)
    solve_zarr(batch.a_path, batch.b_path, batch.out, overwrite=True, compressors=())
    assert zarr.open_array(batch.out + "/x").metadata.codecs == (BytesCodec(),)


def test_lstsq_is_for_the_singular_alone(batch: Stored) -> None:
    solve_zarr(batch.a_path, batch.b_path, batch.out, on_singular="lstsq")
    expected = dasksolve.solve(batch.a, batch.b, on_singular="lstsq")
    assert np.isfinite(expected[123]).all()
    assert same_bits(batch.x, expected)
    assert batch.status[123] == Status.SINGULAR


@pytest.mark.usefixtures("many_blocks")
def test_raise_names_every_failed_system_once_all_is_written(batch: Stored) -> None:
    with pytest.raises(SingularSystemError, match=r"1 system of .*\(1000,\).* index 123;") as info:
        solve_zarr(batch.a_path, batch.b_path, batch.out, on_singular="raise")
    assert info.value.indices.tolist() == [123]
    report = solve_zarr(batch.a_path, batch.b_path, batch.out, resume=True)
    assert info.value.location == report.out
    assert str(info.value).endswith(f"is written to {report.out}, with NaN for those alone")
    assert same_bits(batch.x, dasksolve.solve(batch.a, batch.b, on_singular="nan"))


# What it reports


@pytest.mark.usefixtures("many_blocks")
def test_a_chunk_that_is_read_for_several_blocks_counts_each_time(
    store: Callable[..., Stored],
) -> None:
    a, b = np.ones((100, 3, 3)) + np.eye(3), np.ones((100, 3))
    stored = store(a, b, b_chunks=(100, 3))
    report = solve_zarr(stored.a_path, stored.b_path, stored.out)
    assert report.bytes_read == a.nbytes + 10 * b.nbytes
    assert report.read_amplification == report.to_dict()["read_amplification"] == 13 / 4
    assert re.search(r"read +3\.2 times, since chunks are split", str(report))


def test_what_lies_beyond_the_edge_of_an_array_is_not_counted_as_read(
    store: Callable[..., Stored],
) -> None:
    a, b = np.ones((100, 3, 3)) + np.eye(3), np.ones((100, 3))
    stored = store(a, b, a_chunks=(70, 3, 4), b_chunks=(70, 5))
    report = solve_zarr(stored.a_path, stored.b_path, stored.out)
    assert report.bytes_read == a.nbytes + b.nbytes
    assert "chunks are split" not in str(report)


def test_systems_that_are_chunked_themselves_are_warned_of_where_the_job_is_called(
    store: Callable[..., Stored],
) -> None:
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((1000, 5, 5)), rng.standard_normal((1000, 5))
    batch = store(a, b, (1000, 2, 5), (1000, 5))
    limit = LOADING + OVERHEAD + 350_000  # not for one chunk of all systems
    with pytest.warns(PerformanceWarning, match=r"every byte of it is read \d times") as caught:
        solve_zarr(batch.a_path, batch.b_path, batch.out, memory_limit=limit, workers=1)
    assert [warning.filename for warning in caught] == [__file__]
    assert same_bits(batch.x, dasksolve.solve(a, b))


@pytest.mark.usefixtures("many_blocks")
def test_report(batch: Stored) -> None:
    seen: list[Report] = []
    report = solve_zarr(batch.a_path, batch.b_path, batch.out, progress=seen.append)
    assert report.systems == 1000
    assert report.counts[Status.OK] == 997
    assert report.flagged == (123, 456, 789)
    assert report.flagged_count == 3
    assert (report.blocks, report.blocks_done, report.blocks_resumed) == (10, 10, 0)
    assert report.bytes_read == batch.a.nbytes + batch.b.nbytes
    assert report.read_amplification == 1
    assert report.bytes_written == batch.b.nbytes + 1000
    assert report.chunks_missing == 0
    assert report.seconds > 0
    assert [r.blocks_done for r in seen] == list(range(1, 11))
    assert seen[0].counts[Status.PENDING] == 900
    assert "1,000 in 10 blocks" in str(report)
    assert "123, 456, 789" in report._repr_html_()
    assert report.to_dict()["counts"]["NONFINITE"] == 2


def test_threads_without_a_block_wait_for_nothing(batch: Stored) -> None:
    report = solve_zarr(batch.a_path, batch.b_path, batch.out, workers=2)
    assert (report.blocks, report.threads) == (1, 1)
    assert report.seconds_waiting <= report.seconds


@pytest.mark.usefixtures("many_blocks")
def test_flagged_are_the_first_of_the_batch_and_counted_over_it(
    store: Callable[..., Stored],
) -> None:
    a = np.zeros((60, 50, 2, 2))
    a[::2] = np.eye(2)
    stored = store(a, np.ones((60, 50, 2)), (7, 11, 2, 2), (60, 50, 2))
    report = solve_zarr(stored.a_path, stored.b_path, stored.out)
    assert report.counts[Status.SINGULAR] == 1500
    assert report.flagged == tuple(np.flatnonzero(stored.status)[:1000].tolist())


@pytest.mark.parametrize(
    ("window", "tasks"), [pytest.param(512, [10], id="one"), pytest.param(3, [3, 3, 3, 1], id="3")]
)
@pytest.mark.usefixtures("many_blocks")
def test_a_graph_has_one_task_a_block_and_holds_no_more_than_a_window(
    batch: Stored, monkeypatch: pytest.MonkeyPatch, window: int, tasks: list[int]
) -> None:
    monkeypatch.setattr("dasksolve.job.run.WINDOW", window)
    graphs: list[int] = []
    get = dask.threaded.get

    def counting(graph: Any, keys: list[Any], **options: Any) -> Any:
        graphs.append(len(graph))
        return get(graph, keys, **options)

    monkeypatch.setattr(dask.threaded, "get", counting)
    assert solve_zarr(batch.a_path, batch.b_path, batch.out).blocks_done == 10
    assert graphs == tasks


# Faults of the input


@pytest.mark.usefixtures("many_blocks")
def test_a_chunk_that_is_not_stored_is_an_error_that_says_what_to_do(
    store: Callable[..., Stored],
) -> None:
    rng = np.random.default_rng(3)
    a, b = rng.standard_normal((100, 3, 3)), rng.standard_normal((100, 3))
    b[20:30] = 0  # zarr stores no chunk of zeros
    stored = store(a, b)
    with pytest.raises(
        BlockErrors, match=r"chunk c/2/0 of b .* is not stored; strict=False .* fill value 0\.0"
    ) as info:
        solve_zarr(stored.a_path, stored.b_path, stored.out)
    assert [failure.batch_range for failure in info.value.failures] == [((20, 30),)]
    assert info.value.report.counts == {
        **dict.fromkeys(Status, 0),
        Status.OK: 90,
        Status.PENDING: 10,
    }
    assert info.value.report.flagged_count == 0  # what is not solved is not flagged
    assert (stored.status[20:30] == Status.PENDING).all()
    report = solve_zarr(stored.a_path, stored.b_path, stored.out, resume=True, strict=False)
    assert (report.blocks_resumed, report.chunks_missing) == (9, 1)
    assert same_bits(stored.x, dasksolve.solve(a, b))


@pytest.mark.parametrize(
    ("storage", "named"),
    [
        pytest.param({"shards": (500, 5)}, r"chunk \(3, 0\) in shard c/0/0", id="in a shard"),
        pytest.param({"zarr_format": 2, "fill_value": None}, "chunk 3.0", id="no fill value"),
    ],
)
def test_a_chunk_that_is_not_stored_is_missed_in_every_storage(
    batch: Stored, tmp_path: Path, storage: dict[str, Any], named: str
) -> None:
    b = zarr.create_array(tmp_path / "b", shape=(1000, 5), chunks=(100, 5), dtype="f8", **storage)
    b[:300], b[400:] = batch.b[:300], batch.b[400:]
    with pytest.raises(BlockErrors, match=rf"{named} of b .* is not stored; .* fill value 0\.0"):
        solve_zarr(batch.a_path, tmp_path / "b", batch.out)
    report = solve_zarr(batch.a_path, tmp_path / "b", batch.out, resume=True, strict=False)
    assert report.chunks_missing == 1
    assert (batch.x[300:400] == 0).all()


@pytest.mark.usefixtures("many_blocks")
def test_a_chunk_of_a_shard_is_not_missed_where_a_block_begins_within_it(
    batch: Stored, tmp_path: Path
) -> None:
    b = np.zeros((1000, 5))
    b[::200] = 1  # what is asked for has to be what is like the fill value
    zarr.create_array(tmp_path / "b", data=b, chunks=(200, 5), shards=(1000, 5))
    assert solve_zarr(batch.a_path, tmp_path / "b", batch.out).chunks_missing == 0


@pytest.mark.parametrize("fault", ["deleted", "truncated", "flipped"])
@pytest.mark.usefixtures("many_blocks")
def test_a_bad_chunk_stops_its_own_block_only(batch: Stored, tmp_path: Path, fault: str) -> None:
    path = tmp_path / "checked"
    zarr.create_array(path, data=batch.a, chunks=(100, 5, 5), compressors=[Crc32cCodec()])
    chunk = path / "c/6/0/0"
    good = chunk.read_bytes()
    if fault == "deleted":
        chunk.unlink()
    else:
        bad = good[:-200] if fault == "truncated" else good[:99] + b"?" + good[100:]
        chunk.write_bytes(bad)
    with pytest.raises(BlockErrors, match=r"1 of 10 blocks failed.*\n.*\[600:700\]: ") as info:
        solve_zarr(path, batch.b_path, batch.out)
    assert info.value.report.blocks_done == 9
    assert "chunk c/6/0/0 of a (" in info.value.failures[0].cause
    x, expected = batch.x, dasksolve.solve(batch.a, batch.b, on_singular="nan")
    assert np.isnan(x[600:700]).all()
    assert same_bits(np.delete(x, range(600, 700), 0), np.delete(expected, range(600, 700), 0))
    chunk.write_bytes(good)
    report = solve_zarr(path, batch.b_path, batch.out, resume=True)
    assert report.blocks_resumed == 9
    assert same_bits(batch.x, expected)


def test_one_matrix_is_solved_with_chunked_vectors(store):
    data = store(2 * np.eye(3)[None], np.ones((5000, 3)), b_chunks=(500, 3))
    report = dasksolve.solve_zarr(*data[2:])
    assert report.counts[dasksolve.Status.OK] == 5000
    assert (data.x == 0.5).all()
