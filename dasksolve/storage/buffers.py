"""What blocks are read and written with: event loops of threads, and buffers that last."""

import asyncio
import errno
import math
import os
import selectors
import stat
import sys
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar
from weakref import WeakSet

import numpy as np
from numpy.typing import NDArray
from zarr.storage import LocalStore

from dasksolve.storage import internals
from dasksolve.storage.backlog import Backlog
from dasksolve.storage.threads import share

T = TypeVar("T")
Item = TypeVar("Item")
Idle = TypeVar("Idle")


class _Unasked(selectors.DefaultSelector):
    """Asks the system for news only where there is nothing else to do."""

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        return [] if timeout == 0 else super().select(timeout)


class _Here(asyncio.SelectorEventLoop):
    """Runs at once, in its own thread, what other loops hand to a pool and wait for."""

    def __init__(self) -> None:
        self._beginning = self._whole = False
        super().__init__(_Unasked())
        self.begun: WeakSet[asyncio.Task[Any]] = WeakSet()
        self._whole = True

    def is_closed(self) -> bool:
        """Also where its files could not be opened, and asyncio finds nothing to close."""
        return not self._whole or super().is_closed()

    def complete(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine; what never waits, without a turn of the loop, a fifth of a millisecond.

        asyncio begins a task at once, from Python 3.12 on, where a loop says that it runs.
        """
        if sys.version_info < (3, 12):
            return self.run_until_complete(work)
        asyncio._set_running_loop(self)
        self._beginning = True
        try:
            task = asyncio.Task(work, loop=self, eager_start=True)
        finally:
            self._beginning = False
            asyncio._set_running_loop(None)
        if task.done():
            return task.result()
        self.begun.add(task)
        return self.run_until_complete(task)

    def is_running(self) -> bool:
        return self._beginning or super().is_running()

    def create_task(self, *arguments: Any, **options: Any) -> asyncio.Task[Any]:
        """As ever, and known here: asyncio would look through the tasks of all loops for it."""
        task = super().create_task(*arguments, **options)
        self.begun.add(task)
        return task

    def run_in_executor(  # type: ignore[override]
        self, _executor: Any, function: Callable[..., T], *arguments: Any
    ) -> asyncio.Future[T]:
        future: asyncio.Future[T] = self.create_future()
        try:
            future.set_result(function(*arguments))
        except Exception as error:
            future.set_exception(error)
        return future


def _opened(path: str, flags: int) -> int:
    """Open without waiting: for a pipe, that would be for ever."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


class Workspace:
    """Lent to one block at a time.

    zarr runs the codecs of all threads on one event loop, and every read takes memory that has to
    be faulted in, page by page. With a loop in each thread and the same buffers for every block,
    uncompressed chunks are read 2.5 times as fast, and what the allocator keeps stays small.
    """

    def __init__(self) -> None:
        self.backlog: Backlog | None = None
        self._buffers: dict[str, NDArray[np.uint8]] = {}
        self._others: list[Workspace] = []
        self.threads = 1
        """How many may work on the block."""

    def each(self, work: Callable[[Item, "Workspace"], None], items: Iterable[Item]) -> None:
        """Do the same for each item, in several threads, each of which has a workspace."""
        self._others += [Workspace() for _ in range(len(self._others), self.threads)]
        works = [partial(_with, work, space) for space in self._others[: self.threads]]
        share(items, works, own=False)  # this one has a loop that runs

    async def together(self, works: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
        """Do what asks no store, or a disk, in as many threads as may work on the block."""
        found: dict[int, T] = {}

        def work(place: int, _: Workspace) -> None:
            found[place] = here(works[place])

        try:
            if self.threads == 1:
                return [await work for work in works]
            self.each(work, range(len(works)))
        finally:
            for left in works:  # of which one failed before they were begun
                left.close()
        return [found[place] for place in range(len(works))]

    async def apart(self, work: Callable[..., Coroutine[Any, Any, T]], *arguments: Any) -> T:
        """Do what takes a processor: where other blocks wait on this loop, in a thread for it."""
        if self.backlog is None:
            return await work(*arguments)
        return await self.backlog.solved(lambda: here(work(*arguments)))

    async def computed(self, function: Callable[..., T], *arguments: Any) -> T:
        """The same of what waits for nothing."""

        async def called() -> T:
            return function(*arguments)

        return await self.apart(called)

    def bytes(self, name: str, size: int) -> NDArray[np.uint8]:
        """Uninitialised bytes, until the same name is asked for again.

        Names: an input's, of its numbers; "shared", of what is stored of any; "decoded", of a chunk
        that is no block; and those of `job.work.whole_name`.
        """
        buffer = self._buffers.get(name)
        if buffer is None or buffer.size < size:
            self._buffers.pop(name, None)
            del buffer  # before there is another
            buffer = self._buffers[name] = np.empty(size, np.uint8)
        return buffer[:size]

    def array(
        self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any], room: int = 0
    ) -> NDArray[Any]:
        """Uninitialised numbers, until the same name is asked for again; bytes of room behind."""
        size = math.prod(shape) * dtype.itemsize
        return self.bytes(name, size + room)[:size].view(dtype).reshape(shape)

    def load(
        self,
        name: str,
        path: Path,
        usual: int,
        most: int,
        ready: NDArray[np.uint8] | None = None,
    ) -> NDArray[np.uint8] | None:
        """The bytes of a file, usually so many, at most `most`; None: no file.

        ready: memory for them, if they are exactly as many.
        """
        try:
            with open(path, "rb", opener=_opened) as file:
                found = os.fstat(file.fileno())
                if not stat.S_ISREG(found.st_mode):
                    raise OSError(f"{path} is not a file, but {stat.filemode(found.st_mode)}")
                size = found.st_size
                if size > most:
                    raise OSError(f"{path} has {size:,} bytes, where a chunk has {most:,} at most")
                if ready is not None and ready.size == size:
                    buffer = ready
                else:
                    buffer = self.bytes(name, max(size, usual))[:size]
                return buffer[: file.readinto(buffer.data)]
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            return None

    def close(self) -> None:
        """Free everything."""
        for other in self._others:
            other.close()
        self._buffers.clear()


def _with(work: Callable[[Item, Workspace], None], space: Workspace, item: Item) -> None:
    work(item, space)


_idle: list[Workspace] = []
_loops: list[_Here] = []
_lock = Lock()  # to look and to take are two steps


@contextmanager
def lent(threads: int = 1, backlog: Backlog | None = None) -> Iterator[Workspace]:
    """A workspace for as long as a block is in hand, on which so many threads may work.

    backlog: of threads that compute; None: the one that reads does.
    """
    space = _taken(_idle) or Workspace()
    space.threads, space.backlog = threads, backlog
    try:
        yield space
    finally:
        _idle.append(space)


def here(work: Coroutine[Any, Any, T]) -> T:
    """Run what asks no store, or one that is near, in this thread."""
    try:
        loop = _taken(_loops) or _Here()
    except OSError as error:
        work.close()
        if error.errno not in (errno.EMFILE, errno.ENFILE):
            raise
        raise OSError(
            error.errno,
            "too many open files: each thread that reads and writes takes three; use fewer workers "
            "(workers=, --workers), or raise the limit (ulimit -n)",
        ) from error
    try:
        return loop.complete(work)
    finally:
        _end_all(loop)
        _loops.append(loop)


def _in_a_loop() -> bool:
    """Whether this thread runs a loop already, as that of a notebook does."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def run(store: Any, work: Coroutine[Any, Any, T]) -> T:
    """Run what works on a store: on a disk, in this thread; far away, where zarr does."""
    if isinstance(store, LocalStore) and not _in_a_loop():
        return here(work)
    return internals.run(work)  # a connection belongs to the loop that opened it


def _end_all(loop: _Here) -> None:
    """End what a read that failed left waiting; its end would be told on standard error."""
    waiting = [task for task in loop.begun if not task.done()]
    for task in waiting:
        task.cancel()
    if waiting:
        loop.run_until_complete(asyncio.gather(*waiting, return_exceptions=True))


def _taken(idle: list[Idle]) -> Idle | None:
    with _lock:
        return idle.pop() if idle else None


def free_all() -> None:
    """Free what no block is using, at the end of a job."""
    while found := _taken(_idle) or _taken(_loops):
        found.close()
