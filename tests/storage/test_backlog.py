"""Threads that read wait while enough of what they read is still to be solved."""

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from contextvars import copy_context
from functools import partial
from threading import Event
from typing import Any

import pytest
from zarr.abc.buffer import Buffer

from dasksolve.storage.backlog import PATIENT, Backlog, current


class Busy:
    """Two works that are begun or wait, of one thread, and threads that read meanwhile."""

    def __init__(self, solvers: ThreadPoolExecutor, readers: ThreadPoolExecutor) -> None:
        self.backlog, self.readers = Backlog(solvers, 1), readers
        self.begun, self.gate = Event(), Event()
        self.context = copy_context()
        self.context.run(current.set, self.backlog)

    def work(self) -> None:
        self.begun.set()
        assert self.gate.wait(60)

    async def two(self, then: Any) -> None:
        """Call `then` once there are two, end them, or cancel the one that is not begun."""
        works = [asyncio.ensure_future(self.backlog.solved(self.work)) for _ in range(2)]
        await asyncio.to_thread(self.begun.wait, 60)
        then(works)
        await asyncio.gather(*works, return_exceptions=True)

    def read(self) -> Future[Buffer]:
        return self.readers.submit(self.context.copy().run, PATIENT.buffer.from_bytes, b"read")


@pytest.fixture
def busy() -> Iterator[Busy]:
    with ThreadPoolExecutor(1) as solvers, ThreadPoolExecutor(2) as readers:
        made = Busy(solvers, readers)
        yield made
        made.gate.set()


def test_who_reads_waits_until_there_is_less_to_be_solved(busy: Busy) -> None:
    reads: list[Future[Buffer]] = []

    def look(_: Any) -> None:
        reads.extend(busy.read() for _ in range(2))
        with pytest.raises(TimeoutError):
            reads[0].result(0.05)
        busy.gate.set()

    asyncio.run(busy.two(look))
    assert [read.result(60).to_bytes() for read in reads] == [b"read"] * 2


def test_what_is_cancelled_before_it_is_begun_holds_nobody_back(busy: Busy) -> None:
    def look(works: list[asyncio.Future[Any]]) -> None:
        works[1].cancel()
        assert not busy.gate.is_set()

    async def read() -> None:
        reading = asyncio.ensure_future(busy.two(look))
        await asyncio.to_thread(busy.begun.wait, 60)
        while busy.backlog.full:
            await asyncio.sleep(0)
        assert (await asyncio.wrap_future(busy.read())).to_bytes() == b"read"
        busy.gate.set()
        await reading

    asyncio.run(read())


def test_a_loop_never_waits(busy: Busy) -> None:
    def look(_: Any) -> None:
        current.set(busy.backlog)
        assert busy.backlog.full
        assert PATIENT.buffer.from_bytes(b"read").to_bytes() == b"read"
        busy.gate.set()

    asyncio.run(busy.two(look))


def test_where_no_more_threads_can_be_started_those_that_are_there_solve_all(
    no_threads: Callable[[], AbstractContextManager[None]],
) -> None:
    async def solve(backlog: Backlog, gate: Event, begun: Event) -> list[str]:
        def first() -> str:
            begun.set()
            return "first" if gate.wait(60) else ""

        works = [asyncio.ensure_future(backlog.solved(first))]
        await asyncio.to_thread(begun.wait, 60)
        with no_threads():
            works += [asyncio.ensure_future(backlog.solved(str)) for _ in range(3)]
            await asyncio.sleep(0)  # all are submitted
        gate.set()
        return await asyncio.gather(*works)

    with ThreadPoolExecutor(2) as solvers:
        backlog = Backlog(solvers, 1)
        assert asyncio.run(solve(backlog, Event(), Event())) == ["first", "", "", ""]
        assert not backlog.full


def test_where_no_thread_at_all_can_be_started_nothing_is_left_to_wait_for(
    no_threads: Callable[[], AbstractContextManager[None]],
) -> None:
    done: list[int] = []
    with ThreadPoolExecutor(1) as solvers:
        backlog = Backlog(solvers, 1)
        for number in range(3):
            with no_threads(), pytest.raises(RuntimeError, match="can't start new thread"):
                asyncio.run(backlog.solved(partial(done.append, number)))
        assert not backlog.full
        asyncio.run(backlog.solved(partial(done.append, 3)))
    assert done == [3]


def test_who_waits_is_not_woken_in_vain() -> None:
    looks: list[bool] = []
    looked = Event()

    class Watched(Backlog):
        @property
        def full(self) -> bool:
            looks.append(super().full)
            looked.set()
            return looks[-1]

    with ThreadPoolExecutor(1) as solvers, ThreadPoolExecutor(1) as readers:
        backlog = Watched(solvers, 1)
        gates = [Event() for _ in range(4)]
        reading: list[Future[None]] = []

        async def solve() -> None:
            works = [asyncio.ensure_future(backlog.solved(gate.wait)) for gate in gates]
            await asyncio.sleep(0)  # all are submitted
            reading.append(readers.submit(backlog.wait))
            await asyncio.to_thread(looked.wait, 60)
            for gate, work in zip(gates, works, strict=True):
                await asyncio.sleep(0.02)  # the reader would look, were it woken
                gate.set()
                await work

        asyncio.run(solve())
        reading[0].result(60)
    assert looks == [True, False]


def test_who_is_cancelled_waits_for_the_thread_that_is_in_its_memory(busy: Busy) -> None:
    async def cancelled() -> None:
        work = asyncio.ensure_future(busy.backlog.solved(busy.work))
        await asyncio.to_thread(busy.begun.wait, 60)
        work.cancel()
        done, _ = await asyncio.wait([work], timeout=0.05)
        assert not done
        busy.gate.set()
        with pytest.raises(asyncio.CancelledError):
            await work

    asyncio.run(cancelled())
