"""A folder that is locked by who writes to it, whatever others do in between two of its calls."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from stored import Stored, files
from zarr.abc.store import Store
from zarr.storage import LocalStore, MemoryStore, WrapperStore

import dasksolve
from dasksolve import Factorization, solve_zarr
from dasksolve.storage import groups, internals, marks

fcntl = pytest.importorskip("fcntl")

Meanwhile = Callable[[str, Path, Callable[[], object]], None]
_pending: list[tuple[str, str, Callable[[], object]]] = []


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if not _pending or event != _pending[0][0]:
        return
    if event == "fcntl.flock" or str(arguments[0]) == _pending[0][1]:
        _pending.pop()[2]()


@pytest.fixture(scope="module")
def hooked() -> None:
    sys.addaudithook(_hook)  # for good


@pytest.fixture
def meanwhile(hooked: None) -> Iterator[Meanwhile]:
    """Has something done just before the next call of an audit event, for a path."""
    yield lambda event, path, act: _pending.append((event, str(path), act))
    assert not _pending


def test_who_is_refused_leaves_the_folder_to_who_has_locked_it(
    tmp_path: Path, meanwhile: Meanwhile
) -> None:
    out = tmp_path / "new" / "out"
    first, second, third = (marks.claimed(LocalStore(out), str(out)) for _ in range(3))
    meanwhile("os.mkdir", out, first.__enter__)
    with pytest.raises(BlockingIOError, match="another job is writing to"):
        second.__enter__()
    assert out.is_dir()
    with pytest.raises(BlockingIOError, match="another job is writing to"):
        third.__enter__()
    first.__exit__(None, None, None)
    assert not out.parent.exists()


@pytest.mark.parametrize("event", ["open", "fcntl.flock"])
def test_a_folder_that_is_removed_before_it_is_locked_is_made_again(
    tmp_path: Path, event: str, meanwhile: Meanwhile
) -> None:
    out = tmp_path / "out"
    refused, second, third = (marks.claimed(LocalStore(out), str(out)) for _ in range(3))
    refused.__enter__()
    meanwhile(event, out, lambda: refused.__exit__(None, None, None))
    with second:
        assert out.is_dir()
        with pytest.raises(BlockingIOError, match="another job is writing to"):
            third.__enter__()
    assert not out.exists()


def test_a_folder_that_is_removed_while_it_is_looked_into_is_empty(
    tmp_path: Path, meanwhile: Meanwhile
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    meanwhile("os.scandir", out, out.rmdir)
    assert groups.is_empty(LocalStore(out))


FORKED = """
import asyncio, os, sys
from zarr.storage import LocalStore
from dasksolve.storage import marks

store = LocalStore(sys.argv[1])
read, write = os.pipe()

def fork():
    child = os.fork()
    if child == 0:
        os.close(write)
        os.read(read, 1)  # until the other end is closed
        os._exit(0)

async def alone(meanwhile):
    async with marks.alone(store, "zarr.json"):
        meanwhile()

{hold}
print("free")
os.close(write)
os.wait()
"""


HELD_FOLDER = """
with marks.claimed(store, "out"):
    fork()
with marks.claimed(store, "out"):
    pass
"""
HELD_FILE = """
asyncio.run(alone(fork))
asyncio.run(asyncio.wait_for(alone(int), 20))
"""


@pytest.mark.parametrize("hold", [HELD_FOLDER, HELD_FILE], ids=["folder", "file"])
def test_a_child_that_was_forked_meanwhile_keeps_no_lock(tmp_path: Path, hold: str) -> None:
    (tmp_path / "zarr.json").touch()
    words = [sys.executable, "-c", FORKED.replace("{hold}", hold), str(tmp_path)]
    ended = subprocess.run(words, capture_output=True, text=True, check=False)
    assert ended.stdout == "free\n", ended.stderr


def test_what_somebody_puts_there_after_a_job_has_looked_is_not_replaced(
    batch: Stored, meanwhile: Meanwhile
) -> None:
    out = Path(batch.out)
    put: list[dict[str, bytes]] = []

    def theirs() -> None:
        zarr.create_group(out).create_array("x", data=np.arange(9.0))
        put.append(files(out))

    meanwhile("os.mkdir", out, theirs)
    with pytest.raises(BlockingIOError, match="somebody else has written to"):
        solve_zarr(batch.a_path, batch.b_path, out)
    assert put == [files(out)]


def test_of_two_who_write_factors_one_does(tmp_path: Path, meanwhile: Meanwhile) -> None:
    first, second = (dasksolve.factor(n * np.eye(3)) for n in (1.0, 2.0))
    out = tmp_path / "factors"
    meanwhile("os.mkdir", out, lambda: second.to_zarr(out))
    with pytest.raises(FileExistsError, match="factors exists; choose another path"):
        first.to_zarr(out)
    assert np.array_equal(Factorization.open(out).lu.compute(), second.lu)
    other = tmp_path / "other"
    refused = []

    def intrude() -> None:
        with pytest.raises(BlockingIOError, match="another job is writing to") as info:
            second.to_zarr(other)
        refused.append(info)

    meanwhile("os.mkdir", other / "order", intrude)
    first.to_zarr(other)
    assert refused
    assert np.array_equal(Factorization.open(other).lu.compute(), first.lu)


class Bucket(WrapperStore):
    """A store where one kind of request is refused for marks, and listings are late."""

    def __init__(self, refused: str = "") -> None:
        super().__init__(MemoryStore())
        self.refused, self.listed = refused, dict[str, None]()

    def _refuse(self, request: str, key: str) -> None:
        if request == self.refused and not key.endswith("zarr.json"):
            raise PermissionError(f"{request} {key}")

    async def set(self, key: str, *arguments: Any, **options: Any) -> None:
        self._refuse("set", key)
        self.listed[key] = None
        await super().set(key, *arguments, **options)

    async def delete(self, key: str) -> None:
        self._refuse("delete", key)
        await super().delete(key)

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        self._refuse("list", prefix)
        await asyncio.sleep(0)  # as every request does: who waits for ever is stopped
        for name in self.listed:
            yield name


async def _replace(store: Store) -> None:
    async with marks.alone(store, "zarr.json"):
        await internals.put_empty(store, "zarr.json")


@pytest.mark.parametrize("refused", ["set", "list", "delete"])
def test_a_file_beside_which_nothing_may_be_done_is_replaced(refused: str) -> None:
    store = Bucket(refused)
    internals.run(_replace(store))
    assert internals.run(store.exists("zarr.json"))


def test_who_holds_a_file_is_waited_for_however_slow(tmp_path: Path) -> None:
    file = tmp_path / "zarr.json"
    file.touch()
    with file.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(TimeoutError):
            internals.run(asyncio.wait_for(_replace(LocalStore(tmp_path)), 1.5))
    internals.run(asyncio.wait_for(_replace(LocalStore(tmp_path)), 20))


@pytest.mark.parametrize("other", ["0", "f"])
def test_a_mark_that_is_listed_after_it_was_deleted_is_waited_for_once(
    other: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(marks, "LOOK_EVERY", 0.01)
    store, killed = Bucket(), f"zarr.json.{other * 32}.partial"
    internals.run(internals.put_empty(store, killed))
    internals.run(asyncio.wait_for(_replace(store), 20))
    assert internals.run(store.exists("zarr.json"))
    assert not internals.run(store.exists(killed))
