"""`solve_zarr`: what it writes, what it reports, what it refuses."""

import json
import re
import shutil
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import dask
import fsspec
import numpy as np
import obstore.store
import pytest
import xarray as xr
import zarr
from families import same_bits
from fsspec.implementations.asyn_wrapper import AsyncFileSystemWrapper
from fsspec.implementations.dirfs import DirFileSystem
from stored import Stored, files
from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec, ZstdCodec
from zarr.storage import FsspecStore, LocalStore, ObjectStore, WrapperStore

import dasksolve
from dasksolve import (
    BlockErrors,
    PerformanceWarning,
    Report,
    SingularSystemError,
    Status,
    solve_zarr,
)
from dasksolve.job import journal, metadata
from dasksolve.job.plan import LOADING, OVERHEAD
from dasksolve.storage import documents, internals, stores

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


# What it refuses, before anything is created


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        pytest.param({"a": "nowhere"}, FileNotFoundError, "a: there is no zarr array at", id="a"),
        pytest.param(
            {"a": "data.zarr/A"}, FileNotFoundError, r"zarr/A; .*zarr holds .*zarr/a, ", id="typo"
        ),
        pytest.param({"a": "data.zarr/A"}, FileNotFoundError, "/half, …$", id="many neighbours"),
        pytest.param({"b": "nowhere"}, FileNotFoundError, "b: there is no zarr array at", id="b"),
        pytest.param(
            {"a": "zip://a::file:///nowhere.zip"},
            FileNotFoundError,
            "a: there is no zarr array at zip://a::file:///nowhere.zip",
            id="archive",
        ),
        pytest.param(
            {"a": "data.zarr"}, FileNotFoundError, r"is a zarr group.*it holds .*/a", id="group"
        ),
        pytest.param({"a": "data.zarr/zarr.json"}, FileNotFoundError, "is a file", id="file"),
        pytest.param({"b": "data.zarr/a3"}, ValueError, "has N = 3 where a has 5", id="core"),
        pytest.param({"b": "data.zarr/b7"}, ValueError, r"batch shapes \(1000,\)", id="batch"),
        pytest.param({"a": "data.zarr/b"}, np.linalg.LinAlgError, "must be square", id="square"),
        pytest.param({"a": "data.zarr/half"}, TypeError, "a has dtype float16", id="dtype"),
        pytest.param({"assume_a": "nice"}, ValueError, "'gen', 'pos', 'sym'", id="assume_a"),
        pytest.param({"on_singular": "ignore"}, ValueError, "'raise', 'nan'", id="on_singular"),
        pytest.param({"memory_limit": "1MiB"}, ValueError, r"1.00 MiB is too small", id="limit"),
        pytest.param({"memory_limit": "lots"}, ValueError, "'lots' is not a positive", id="size"),
        pytest.param({"memory_limit": -5}, ValueError, "-5 is not a positive size", id="negative"),
        pytest.param({"memory_limit": 0}, ValueError, "=0 is not a positive size", id="zero"),
        pytest.param({"memory_limit": "1e400"}, ValueError, "'1e400' is not a", id="infinite"),
        pytest.param({"memory_limit": ""}, ValueError, "memory_limit=", id="no size"),
        pytest.param(
            {"a": None},
            TypeError,
            "a must be the path or URL of zarr data, or an open",
            id="a is None",
        ),
        pytest.param(
            {"b": np.ones(5)},
            TypeError,
            "b must be .* not numpy.ndarray; .*solve and regress take NumPy",
            id="in memory",
        ),
        pytest.param(
            {"a": xr.DataArray(np.ones(5))}, TypeError, "; dasksolve.labelled takes", id="labelled"
        ),
        pytest.param({"b": ""}, ValueError, "b is an empty path", id="b is empty"),
        pytest.param(
            {"out": None},
            TypeError,
            "out must be the path or URL of zarr data, or an open zarr.Group or store, not None",
            id="out is None",
        ),
        pytest.param(
            {"out": zarr.storage.MemoryStore(read_only=True)},
            ValueError,
            "out: memory://.* is open for reading alone",
            id="out is read-only",
        ),
        pytest.param({"out": ""}, ValueError, "out is an empty path", id="out is empty"),
        pytest.param({"out": "x\0y"}, ValueError, r"out: 'x\\x00y' has a null", id="out is cut"),
        pytest.param({"out": "x.zip"}, ValueError, r"x\.zip would be an archive", id="archive"),
        pytest.param({"overwrite": "no"}, TypeError, "overwrite='no' must be True or", id="a word"),
        pytest.param({"strict": "no"}, TypeError, "strict='no' must be True or", id="strict"),
        pytest.param({"memory_limit": True}, ValueError, "is not a positive size", id="a bool"),
        pytest.param({"memory_limit": ""}, ValueError, "is not a positive size", id="no limit"),
        pytest.param({"workers": True}, ValueError, "workers=True must be", id="workers is a bool"),
        pytest.param(
            {"out": "nosuch://x"}, OSError, "out: cannot open nosuch://x", id="out scheme"
        ),
        pytest.param({"compressors": "zstd"}, ValueError, "='zstd' are not bytes", id="compressor"),
        pytest.param({"compressors": 5}, ValueError, "compressors=5 are not", id="no compressor"),
        pytest.param({"workers": 0}, ValueError, "workers=0 must be", id="workers"),
        pytest.param({"resume": True, "overwrite": True}, ValueError, "choose one", id="both"),
    ],
)
def test_refusals_leave_nothing_behind(
    batch: Stored,
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, Any],
    error: type[Exception],
    message: str,
) -> None:
    data = Path(batch.a_path).parent
    group = zarr.open_group(data)
    group.create_array("a3", data=np.zeros((1000, 3)))
    group.create_array("b7", data=np.zeros((7, 5)))
    group.create_array("half", data=np.zeros((1000, 5, 5), np.float16))
    group.create_array("last", data=np.zeros(3))
    monkeypatch.chdir(data.parent)
    before = set(Path().iterdir())
    inputs = {"a": batch.a_path, "b": batch.b_path, "out": batch.out}
    with pytest.raises(error, match=message):
        solve_zarr(**{**inputs, **options})
    assert set(Path().iterdir()) == before


def test_chunks_of_different_lengths_are_refused(batch: Stored, tmp_path: Path) -> None:
    if zarr.config.get("array.rectilinear_chunks", None) is None:
        pytest.skip("zarr before 3.2 has no such chunks")
    with zarr.config.set({"array.rectilinear_chunks": True}):
        chunks: Any = [[100, 900], [5], [5]]
        zarr.create_array(tmp_path / "a", data=batch.a, chunks=chunks)
        with pytest.raises(
            NotImplementedError, match="/a is stored in chunks of different lengths"
        ):
            solve_zarr(tmp_path / "a", batch.b_path, batch.out)
    assert not Path(batch.out).exists()


def test_a_memory_limit_may_be_any_integer(batch: Stored) -> None:
    assert solve_zarr(batch.a_path, batch.b_path, batch.out, memory_limit=np.int64(1 << 30)).blocks


@pytest.mark.parametrize(
    ("prepare", "options", "error", "message"),
    [
        pytest.param("job", {}, FileExistsError, "--resume.*--overwrite", id="neither said"),
        pytest.param(
            "group", {}, FileExistsError, "did not write.*choose another", id="another group"
        ),
        pytest.param("group", {"overwrite": True}, ValueError, "did not write", id="not ours"),
        pytest.param("group", {"resume": True}, ValueError, "did not write", id="not a job"),
        pytest.param("file", {}, FileExistsError, "exists.*choose another", id="a file"),
        pytest.param(
            "file", {"overwrite": True}, ValueError, "not the output of a job", id="not a group"
        ),
        pytest.param(
            "folder", {"overwrite": True}, ValueError, "not the output of a job", id="a folder"
        ),
        pytest.param("download", {}, FileExistsError, "exists", id="a file that is half loaded"),
    ],
)
def test_what_exists_is_never_touched_unasked(
    batch: Stored, prepare: str, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    out = Path(batch.out)
    if prepare == "job":
        solve_zarr(batch.a_path, batch.b_path, out)
    elif prepare == "group":
        zarr.create_group(out, attributes={"mine": "keep"})
    elif prepare == "download":
        out.mkdir()
        (out / "film.mp4.partial").write_text("hours of waiting")
    elif prepare == "folder":
        (out / "thesis").mkdir(parents=True)
        (out / "thesis/chapter.txt").write_text("years of work")
    else:
        out.write_text("years of work")
    before = files(out.parent)
    with pytest.raises(error, match=message):
        solve_zarr(batch.a_path, batch.b_path, out, **options)
    assert files(out.parent) == before


def test_an_empty_folder_is_as_good_as_none(batch: Stored) -> None:
    Path(batch.out).mkdir()
    assert solve_zarr(batch.a_path, batch.b_path, batch.out).blocks_done


@pytest.mark.parametrize("inside", ["", "/out.zarr", "/c/0"])
def test_nothing_is_written_into_an_input(batch: Stored, inside: str) -> None:
    before = files(Path(batch.b_path).parent)
    with pytest.raises(ValueError, match=r"lies in b, .*choose another output"):
        solve_zarr(batch.a_path, batch.b_path, batch.b_path + inside)
    assert files(Path(batch.b_path).parent) == before


def test_overwriting_never_deletes_an_input(batch: Stored) -> None:
    solve_zarr(batch.a_path, batch.b_path, batch.out)
    with pytest.raises(ValueError, match="would delete b"):
        solve_zarr(batch.a_path, batch.out + "/x", batch.out, overwrite=True)
    assert batch.x.shape == (1000, 5)


def test_resuming_what_was_stopped_before_it_began_never_deletes_an_input(batch: Stored) -> None:
    solve_zarr(batch.a_path, batch.b_path, batch.out)
    store, _, record, _ = journal.opened(batch.out)  # to be replaced by a job that ends here:
    stopped = journal.unfinished(record, journal.members(record))
    documents.write(stores.Files(store.root), {"": metadata.of_group(stopped)})
    with pytest.raises(ValueError, match="would delete b"):
        solve_zarr(batch.a_path, batch.out + "/x", batch.out, resume=True)
    assert same_bits(batch.x, dasksolve.solve(batch.a, batch.b, on_singular="nan"))
    assert not solve_zarr(batch.a_path, batch.b_path, batch.out, resume=True).blocks_resumed


@pytest.mark.parametrize("spelled", ["memory://{}", "memory://{}/", "memory:///{}"])
def test_however_a_url_is_spelled_overwriting_never_deletes_an_input(
    batch: Stored, spelled: str, request: pytest.FixtureRequest
) -> None:
    out = spelled.format(f"{batch.out.replace('/', '_')}.zarr")
    request.addfinalizer(fsspec.filesystem("memory").store.clear)
    solve_zarr(batch.a_path, batch.b_path, out)
    with pytest.raises(ValueError, match="would delete b"):
        solve_zarr(batch.a_path, f"{out.rstrip('/')}/x", out, overwrite=True)
    assert solve_zarr(batch.a_path, batch.b_path, out, resume=True).blocks_resumed


@pytest.mark.parametrize("out", ["run[1].zarr", "run*.zarr", "run?.zarr"])
def test_a_url_that_is_a_pattern_too_is_the_name_of_one_output(
    batch: Stored, out: str, request: pytest.FixtureRequest
) -> None:
    memory = fsspec.filesystem("memory")
    request.addfinalizer(memory.store.clear)
    solve_zarr(batch.a_path, batch.b_path, "memory://run1.zarr")
    before = {*memory.find("/run1.zarr")}
    for overwrite in (False, True):
        solve_zarr(batch.a_path, batch.b_path, f"memory://{out}", overwrite=overwrite)
    assert {*memory.store} == before | {name.replace("run1.zarr", out) for name in before}


@pytest.mark.parametrize("opened", [str, partial(zarr.open_array, mode="r")])
def test_however_a_file_is_read_overwriting_never_deletes_an_input(
    batch: Stored, opened: Callable[[str], Any]
) -> None:
    solve_zarr(batch.a_path, batch.b_path, batch.out)
    with pytest.raises(ValueError, match="would delete b"):
        solve_zarr(batch.a_path, opened(f"local://{batch.out}/x"), batch.out, overwrite=True)
    assert batch.x.shape == (1000, 5)


def _in_folder(out: str) -> FsspecStore:
    """Whose paths begin in the folder of the output, and not at the root."""
    folder = DirFileSystem(out, fs=fsspec.filesystem("file"))
    return FsspecStore(AsyncFileSystemWrapper(folder, asynchronous=True), path="x")


_ANSWERS = {
    "cache": lambda out: f"simplecache::file://{out}/x",
    "obstore": lambda out: zarr.open_array(ObjectStore(obstore.store.LocalStore(f"{out}/x"))),
    "wrapper": lambda out: zarr.open_array(WrapperStore(LocalStore(out)), path="x"),
    "folder": lambda out: zarr.open_array(_in_folder(out)),
}
"""x of an output under names that do not say so."""


@pytest.mark.parametrize("stopped", [False, True], ids=["done", "stopped"])
@pytest.mark.parametrize("opened", _ANSWERS.values(), ids=_ANSWERS)
def test_whatever_store_reads_an_answer_overwriting_never_deletes_it(
    batch: Stored, opened: Callable[[str], Any], stopped: bool
) -> None:
    solve_zarr(batch.a_path, batch.b_path, batch.out)
    if stopped:
        store, _, record, _ = journal.opened(batch.out)
        another = journal.unfinished({**record, "run": "0"}, journal.members(record))
        documents.write(stores.Files(store.root), {"": metadata.of_group(another)})
    how = {"resume": stopped, "overwrite": not stopped}
    with pytest.raises(ValueError, match="would delete b"):
        solve_zarr(batch.a_path, opened(batch.out), batch.out, **how)
    assert same_bits(batch.x, dasksolve.solve(batch.a, batch.b, on_singular="nan"))


def test_an_output_may_be_replaced_beside_a_copy_of_it_and_other_answers(
    batch: Stored, tmp_path: Path
) -> None:
    for out in (batch.out, tmp_path / "other.zarr"):
        solve_zarr(batch.a_path, batch.b_path, out)
    shutil.copytree(batch.out, tmp_path / "copy.zarr")
    other = zarr.open_array(WrapperStore(LocalStore(tmp_path / "other.zarr")), path="x")
    for b in (tmp_path / "copy.zarr/x", other):
        solve_zarr(batch.a_path, b, batch.out, overwrite=True)
    assert batch.x.shape == (1000, 5)


def test_an_input_is_opened_for_reading_only(batch: Stored) -> None:
    before = files(Path(batch.a_path).parent)
    solve_zarr(zarr.open_array(batch.a_path, mode="r+"), batch.b_path, batch.out)
    assert files(Path(batch.a_path).parent) == before


# Resuming


@pytest.mark.usefixtures("many_blocks")
def test_resume_solves_only_what_is_not_done(batch: Stored) -> None:
    solve_zarr(batch.a_path, batch.b_path, batch.out)
    expected = files(batch.out)
    for name in ("status/c/3", "status/c/7", "x/c/8/0"):
        (Path(batch.out) / name).unlink()
    report = solve_zarr(batch.a_path, batch.b_path, batch.out, resume=True)
    assert (report.blocks_done, report.blocks_resumed) == (10, 7)
    assert report.counts[Status.OK] == 997
    assert report.flagged == (123, 456, 789)
    assert files(batch.out) == expected


def test_what_has_no_right_hand_sides_is_solved_once(store: Callable[..., Stored]) -> None:
    stored = store(np.ones((6, 2, 2)), np.ones((6, 2, 0)))
    solved = [solve_zarr(*stored[2:], strict=False, resume=again) for again in (False, True)]
    assert [report.blocks_resumed for report in solved] == [0, 1]


def test_resume_of_nothing_starts(batch: Stored) -> None:
    assert solve_zarr(batch.a_path, batch.b_path, batch.out, resume=True).blocks_resumed == 0


@pytest.mark.parametrize("name", ["x", "status"])
def test_resume_completes_an_output_whose_creation_was_cut_short(batch: Stored, name: str) -> None:
    solve_zarr(batch.a_path, batch.b_path, batch.out)
    expected = files(batch.out)
    shutil.rmtree(Path(batch.out) / name)
    solve_zarr(batch.a_path, batch.b_path, batch.out, resume=True)
    assert files(batch.out) == expected


@pytest.mark.usefixtures("many_blocks")
def test_a_damaged_status_is_solved_again(batch: Stored) -> None:
    solve_zarr(batch.a_path, batch.b_path, batch.out)
    expected = files(batch.out)
    chunk = Path(batch.out) / "status/c/2"
    chunk.write_bytes(chunk.read_bytes()[:-1])
    report = solve_zarr(batch.a_path, batch.b_path, batch.out, resume=True)
    assert report.blocks_resumed == 9
    assert files(batch.out) == expected


@pytest.mark.usefixtures("many_blocks")
def test_a_status_that_there_is_not_is_solved_again(batch: Stored) -> None:
    solve_zarr(batch.a_path, batch.b_path, batch.out)
    expected = files(batch.out)
    zarr.open_array(batch.out + "/status")[[250, 251]] = 77, 127
    assert solve_zarr(batch.a_path, batch.b_path, batch.out, resume=True).blocks_resumed == 9
    assert files(batch.out) == expected


@pytest.mark.usefixtures("many_blocks")
def test_an_x_that_a_power_cut_left_empty_is_solved_again(batch: Stored) -> None:
    solve_zarr(batch.a_path, batch.b_path, batch.out)
    expected = files(batch.out)
    Path(batch.out, "x/c/4/0").write_bytes(b"")
    assert solve_zarr(batch.a_path, batch.b_path, batch.out, resume=True).blocks_resumed == 9
    assert files(batch.out) == expected


def test_an_output_that_was_deleted_under_the_job_is_an_error(batch: Stored) -> None:
    with pytest.raises(FileNotFoundError, match=r"out\.zarr was deleted while the job ran"):
        solve_zarr(
            batch.a_path, batch.b_path, batch.out, progress=lambda _: shutil.rmtree(batch.out)
        )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param({"shape": (1, 5, 5)}, r"a\.shape was \[1000, 5, 5\]", id="shape"),
        pytest.param({"dtype": "f4"}, "a.dtype was 'float64', is now 'float32'", id="dtype"),
        pytest.param({"chunks": (30, 5, 5)}, r"a\.chunks was \[100, 5, 5\]", id="chunks"),
        pytest.param({"fill_value": 7.0}, "a.fill_value was '0.0', is now '7.0'", id="fill value"),
        pytest.param({"on_singular": "lstsq"}, "options.on_singular was 'nan'", id="option"),
        pytest.param({"b": "a moved b"}, "b.location was", id="another b"),
    ],
)
def test_resume_refuses_a_changed_job_and_names_the_change(
    batch: Stored, change: dict[str, Any], message: str
) -> None:
    solve_zarr(batch.a_path, batch.b_path, batch.out)
    before = files(batch.out)
    options = {k: change.pop(k) for k in ("on_singular",) if k in change}
    b_path = batch.b_path
    if "b" in change:
        b_path = shutil.copytree(batch.b_path, batch.b_path + "2")
    elif change:
        made = {"shape": (1000, 5, 5), "dtype": "f8", "chunks": (100, 5, 5)} | change
        zarr.create_array(batch.a_path, overwrite=True, **made)
    with pytest.raises(ValueError, match=message):
        solve_zarr(batch.a_path, b_path, batch.out, resume=True, **options)
    assert files(batch.out) == before


@pytest.mark.skipif(sys.platform == "win32", reason="links take rights there")
def test_inputs_that_were_moved_are_known_again_by_a_link_where_they_were(batch: Stored) -> None:
    solve_zarr(batch.a_path, batch.b_path, batch.out)
    moved = Path(batch.b_path).rename(batch.b_path + "_moved")
    with pytest.raises(ValueError, match="same data, moved, make a link to it where it was"):
        solve_zarr(batch.a_path, moved, batch.out, resume=True)
    Path(batch.b_path).symlink_to(moved)
    for b_path in (moved, batch.b_path):
        report = solve_zarr(batch.a_path, b_path, batch.out, resume=True)
        assert report.blocks_resumed == report.blocks


def test_where_no_thread_can_be_started_it_is_said_what_to_do(
    batch: Stored, no_threads: Callable[[], AbstractContextManager[None]]
) -> None:
    message = r"start new thread \(.*ulimit -u .* fewer workers\)$"
    with no_threads(), pytest.raises(RuntimeError, match=message):
        solve_zarr(batch.a_path, batch.b_path, batch.out)
    assert not Path(batch.out).exists()


@pytest.mark.parametrize(
    ("attribute", "message"),
    [
        pytest.param('{"version": 99}', "journal version 99", id="another version"),
        pytest.param('{"version": 1}', "is damaged: it does not say what a was", id="no inputs"),
    ],
)
def test_a_journal_that_was_tampered_with_is_refused(
    batch: Stored, attribute: str, message: str
) -> None:
    solve_zarr(batch.a_path, batch.b_path, batch.out)
    zarr.open_group(batch.out, use_consolidated=False).attrs["dasksolve"] = attribute
    with pytest.raises(ValueError, match=message):
        solve_zarr(batch.a_path, batch.b_path, batch.out, resume=True)


@pytest.mark.parametrize(
    "block_shape", [[0], "x", [9, 9], [10**9], [1.5], None], ids=lambda value: str(value)
)
def test_a_journal_with_impossible_blocks_is_refused(batch: Stored, block_shape: Any) -> None:
    solve_zarr(batch.a_path, batch.b_path, batch.out)
    attributes = zarr.open_group(batch.out, use_consolidated=False).attrs
    journal = {**json.loads(attributes["dasksolve"]), "block_shape": block_shape}
    attributes["dasksolve"] = json.dumps(journal)
    with pytest.raises(ValueError, match="is damaged: its blocks have shape"):
        solve_zarr(batch.a_path, batch.b_path, batch.out, resume=True)


def test_an_output_array_that_is_not_what_the_journal_says_is_refused(batch: Stored) -> None:
    solve_zarr(batch.a_path, batch.b_path, batch.out)
    shutil.rmtree(Path(batch.out) / "x")
    zarr.create_array(batch.out + "/x", shape=(999, 5), dtype="f8")
    with pytest.raises(ValueError, match=r"its shape is \(999, 5\), not \(1000, 5\)"):
        solve_zarr(batch.a_path, batch.b_path, batch.out, resume=True)


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
