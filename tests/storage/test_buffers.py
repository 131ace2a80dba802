"""What a thread reads and writes blocks with."""

import asyncio
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import zarr
from zarr.codecs import Crc32cCodec
from zarr.storage import LocalStore, MemoryStore

from dasksolve.storage import buffers
from dasksolve.storage.backlog import Backlog
from dasksolve.storage.buffers import Workspace
from dasksolve.storage.inputs import layout
from dasksolve.storage.source import Source


@pytest.fixture
def space() -> Iterator[Workspace]:
    made = Workspace()
    yield made
    made.close()


@pytest.mark.parametrize("local", [True, False], ids=["on a disk", "far away"])
def test_codecs_run_in_the_calling_thread_where_the_store_is_a_disk(
    tmp_path: Path, local: bool
) -> None:
    async def decode() -> int:
        return await asyncio.to_thread(threading.get_ident)

    store = LocalStore(tmp_path) if local else MemoryStore()
    assert (buffers.run(store, decode()) == threading.get_ident()) is local


def test_what_fails_in_a_codec_is_raised() -> None:
    async def decode() -> None:
        await asyncio.to_thread(np.linalg.inv, np.zeros((2, 2)))

    with pytest.raises(np.linalg.LinAlgError, match="Singular"):
        buffers.here(decode())


def test_asyncio_still_lets_a_loop_say_that_it_runs() -> None:
    assert hasattr(asyncio, "_set_running_loop"), "mend `complete` in storage/buffers.py"


def test_a_task_begins_at_once_and_goes_on_where_it_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def begin(waits: bool) -> bool:
        task = asyncio.current_task()
        if waits:
            await asyncio.gather(asyncio.sleep(0), asyncio.sleep(0))
        return task is not None and asyncio.current_task() is task

    assert buffers.here(begin(waits=True))
    if sys.version_info >= (3, 12):  # before, asyncio could not
        monkeypatch.setattr(buffers._Here, "run_until_complete", None)
    assert buffers.here(begin(waits=False))


def test_a_block_that_is_one_plain_chunk_is_never_copied(space: Workspace, tmp_path: Path) -> None:
    values = np.random.default_rng(0).standard_normal((60, 4, 4))
    array = zarr.create_array(
        tmp_path / "a", data=values, chunks=(30, 4, 4), compressors=Crc32cCodec()
    )
    source = Source("a", array, layout(array, "a", 2))
    first, _ = source.read(((0, 30),), True, space)
    assert np.array_equal(first, values[:30])
    second, _ = source.read(((30, 60),), True, space)
    assert np.array_equal(second, values[30:])
    assert np.shares_memory(first, second)


def test_workspaces_are_lent_to_one_at_a_time_and_freed_at_the_end() -> None:
    buffers.free_all()
    with buffers.lent() as first, buffers.lent() as second:
        assert first is not second
        first.bytes("a", 100)
    with buffers.lent() as again:
        assert again is first or again is second
    buffers.free_all()
    assert not buffers._idle
    assert not first._buffers


def test_what_computes_does_so_in_a_thread_for_it_where_there_is_one() -> None:
    async def identity() -> int:
        return threading.get_ident()

    with ThreadPoolExecutor(1) as pool:
        for backlog in (None, Backlog(pool, 1)):
            with buffers.lent(backlog=backlog) as space:
                at = asyncio.run(space.apart(identity))
            assert (at == threading.get_ident()) is (backlog is None)
    loop = buffers._loops[-1]
    buffers.free_all()
    assert not buffers._loops
    with pytest.raises(RuntimeError, match="closed"):
        loop.call_soon(print)


def test_many_threads_never_share_a_workspace() -> None:
    buffers.free_all()
    together, clash = threading.Barrier(8), []

    def borrow(number: int) -> None:
        together.wait()
        for _ in range(300):
            with buffers.lent() as workspace:
                mine = workspace.bytes("a", 1)
                mine[0] = number
                clash.append(mine[0] != number)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(borrow, range(8)))
    assert len(clash) == 8 * 300
    assert not any(clash)
    assert len({id(workspace) for workspace in buffers._idle}) == len(buffers._idle) <= 8
    buffers.free_all()


def test_several_threads_work_on_a_block_each_with_a_workspace() -> None:
    together = threading.Barrier(2)
    used: list[Workspace] = []

    def work(_: int, space: Workspace) -> None:
        together.wait(60)
        space.bytes("a", 100)
        used.append(space)

    with buffers.lent(threads=2) as space:
        space.each(work, range(4))
        assert len({*map(id, used)}) == 2
        assert space not in used
    buffers.free_all()
    assert not used[0]._buffers


def test_the_first_error_of_several_threads_is_raised_and_ends_the_others() -> None:
    done: list[int] = []

    def work(number: int, _: Workspace) -> None:
        if number == 3:
            raise OSError("three")
        done.append(number)

    with buffers.lent(threads=1) as space, pytest.raises(OSError, match="three"):
        space.each(work, range(10**6))
    assert done == [0, 1, 2]


def test_what_is_done_together_is_done_by_all_threads_of_a_block() -> None:
    async def number(value: int) -> int:
        if value == 3:
            raise OSError("three")
        return value

    with buffers.lent(threads=2) as space:
        assert buffers.here(space.together([number(value) for value in (5, 7, 6)])) == [5, 7, 6]
        with pytest.raises(OSError, match="three"):
            buffers.here(space.together([number(value) for value in range(3, 100)]))


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("dtype", ["<f4", ">f4"])
def test_raw_chunks_are_read_where_they_are_to_be(tmp_path: Path, dtype: str, threads: int) -> None:
    values = np.random.default_rng(0).standard_normal((8, 3, 5)).astype(dtype)
    array = zarr.create_array(tmp_path / "a", data=values, chunks=(2, 3, 5), compressors=None)
    source = Source("a", array, layout(array, "a", 2))
    buffers.free_all()
    with buffers.lent(threads) as space:
        found, missing = source.read(((2, 8),), True, space)
        assert np.array_equal(found, values[2:])
        assert not missing
        spaces = [space, *space._others]
        assert dtype == ">f4" or not any("shared" in each._buffers for each in spaces)
        chunk = tmp_path / "a/c/2/0/0"
        chunk.write_bytes(chunk.read_bytes()[:-1])
        with pytest.raises(OSError, match="cannot read chunk c/2/0/0"):
            source.read(((2, 8),), True, space)


FEW_FILES = """
import asyncio, os, resource, sys
from contextlib import suppress
from dasksolve.storage import buffers

resource.setrlimit(resource.RLIMIT_NOFILE, (100, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
taken = []
with suppress(OSError):
    while True:
        taken.append(os.open(os.devnull, os.O_RDONLY))
for _ in range(int(sys.argv[1])):
    os.close(taken.pop())
try:
    buffers.here(asyncio.sleep(0))
except OSError as error:
    print(error)
"""


@pytest.mark.parametrize("room", [0, 1, 2])
def test_a_thread_that_may_open_no_more_files_says_what_to_do(room: int) -> None:
    pytest.importorskip("resource")
    words = [sys.executable, "-W", "error", "-c", FEW_FILES, str(room)]  # nobody else opens any
    ended = subprocess.run(words, capture_output=True, text=True, check=False)
    assert "takes three; use fewer workers" in ended.stdout
    assert ended.stderr == ""  # what is left half made would be told of there


def test_bytes_are_the_same_until_more_are_asked_for(space: Workspace) -> None:
    first = space.bytes("a", 100)
    assert np.shares_memory(first, space.bytes("a", 50))
    assert not np.shares_memory(first, space.bytes("b", 50))
    assert space.bytes("a", 200).size == 200
