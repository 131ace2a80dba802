"""What `solve_zarr` refuses before anything is created, and what it never touches."""

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import obstore.store
import pytest
import xarray as xr
import zarr
from families import same_bits
from fsspec.implementations.asyn_wrapper import AsyncFileSystemWrapper
from fsspec.implementations.dirfs import DirFileSystem
from stored import Session, Stored, files
from zarr.storage import FsspecStore, LocalStore, ObjectStore, WrapperStore

import dasksolve
from dasksolve import solve_zarr
from dasksolve.job import journal, metadata
from dasksolve.storage import documents, stores


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
        pytest.param(
            {"out": zarr.storage.ZipStore("x.zip", mode="w")},
            ValueError,
            r"out: zip://x\.zip cannot replace what it holds",
            id="an archive as a store",
        ),
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


def test_an_output_of_another_session_may_be_replaced(batch: Stored) -> None:
    data, out = zarr.create_group(Session()), Session()
    a, b = (data.create_array(name, data=getattr(batch, name)) for name in "ab")
    for overwrite in (False, True):
        report = solve_zarr(a, b, out, overwrite=overwrite)
    assert report.flagged == (123, 456, 789)
    with pytest.raises(ValueError, match="would delete b"):
        solve_zarr(a, zarr.open_array(out, path="x"), out, overwrite=True)
