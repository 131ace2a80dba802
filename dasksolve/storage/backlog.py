"""Holds threads that read for a store back while enough of what they read waits to be solved."""

import asyncio
from concurrent.futures import Executor, Future
from contextvars import ContextVar, copy_context
from threading import Condition
from typing import Any, Self

from zarr.abc.buffer import BufferPrototype
from zarr.buffer import cpu

from dasksolve.errors import lacks_threads


class Backlog:
    """What is to be solved, by threads that are fewer than those that read.

    zarr reads files in threads of its own. Without this they have most of the processors, and what
    they read waits, out of the cache, in memory that is faulted in page by page: 256 blocks of
    4 MiB, each request of which took 200 ms, took 1.2 times as long.
    """

    def __init__(self, solvers: Executor, threads: int) -> None:
        self.solvers, self.most = solvers, 2 * threads  # none of them is idle
        self._waiting, self._less = 0, Condition()
        self._has_threads = False

    @property
    def full(self) -> bool:
        """Whether there is enough of it."""
        return self._waiting >= self.most

    @property
    def busy(self) -> bool:
        """Whether there is any of it, or something is being solved."""
        return self._waiting > 0

    async def solved(self, work: Any) -> Any:
        """Call a function in a thread that solves, and wait for it."""
        future: Future[Any] = Future()
        future.add_done_callback(self._ended)  # also where it is cancelled before it is begun
        with self._less:
            self._waiting += 1
        try:
            self.solvers.submit(copy_context().run, _solve, future, work)
            self._has_threads = True
        except RuntimeError as error:
            # It is queued all the same: those threads that there are come to it.
            if not (self._has_threads and lacks_threads(error)):
                future.cancel()
                raise
        ended = asyncio.wrap_future(future)
        try:
            return await asyncio.shield(ended)
        except asyncio.CancelledError:  # that thread is in the memory of the block: not before it
            future.cancel()
            await asyncio.wait([ended])
            raise

    def _ended(self, _: Future[Any]) -> None:
        with self._less:
            self._waiting -= 1
            if self._waiting == self.most - 1:  # before, they would look in vain
                self._less.notify_all()

    def wait(self) -> None:
        """Wait until there is less of it: in a thread, not on a loop, which others wait for."""
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            with self._less:
                self._less.wait_for(lambda: not self.full)


def _solve(future: Future[Any], work: Any) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(work())
    except BaseException as error:
        future.set_exception(error)
        del future  # else it, the error and this frame hold each other


current: ContextVar[Backlog | None] = ContextVar("backlog", default=None)
"""That of the job for which something is read: asyncio tells the thread that reads it."""


class _Patient(cpu.Buffer):
    """Bytes whose reader waits, once it has them."""

    @classmethod
    def from_bytes(cls, bytes_like: Any) -> Self:
        backlog = current.get()
        if backlog is not None:
            backlog.wait()
        return super().from_bytes(bytes_like)


PATIENT = BufferPrototype(_Patient, cpu.NDBuffer)
"""How a store returns the chunks of blocks."""
