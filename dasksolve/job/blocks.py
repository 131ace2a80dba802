"""Works off blocks in one process: in turn, or many at once where requests are waited for."""

from collections.abc import Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from queue import Empty, SimpleQueue
from threading import Event
from typing import Any

from dasksolve.job.job import Job, Task
from dasksolve.job.tally import BlockResult
from dasksolve.storage import allocator, buffers, internals
from dasksolve.storage.backlog import Backlog, current

_GLANCE = 0.1  # seconds


def worked_off(
    task: Task, job: Job, numbers: Iterable[int], in_hand: int, solvers: int
) -> Generator[BlockResult]:
    """Do ``task(job, number, workspace)`` for each number, and give the results as they come.

    in_hand: blocks that wait for a store that is far away, at once; solvers: threads for them.
    """
    try:
        job.begin()
    except Exception as error:
        yield from (job.failed(number, error)._replace(met=False) for number in numbers)
        return
    if job.far:
        room = job.plan.memory_limit - job.plan.memory
        with allocator.keeping(room, internals.readers() + job.plan.workers):
            yield from _together(task, job, numbers, in_hand, solvers)
        return
    for number in numbers:
        with buffers.lent(job.plan.threads) as space:
            result = buffers.here(task(job, number, space))
        yield result


def _together(
    task: Task, job: Job, numbers: Iterable[int], in_hand: int, solvers: int
) -> Generator[BlockResult]:
    """The same, many at once: coroutines wait, on zarr's loop, and threads solve."""
    remaining, stopped, gone = iter(numbers), False, Event()
    results: SimpleQueue[Any] = SimpleQueue()

    async def lane() -> None:
        for number in remaining:
            if stopped:
                return
            with buffers.lent(job.plan.threads, backlog) as space:
                result = await task(job, number, space)
            results.put(result)

    async def all_lanes() -> None:
        try:
            current.set(backlog)
            await internals.together(*(lane() for _ in range(in_hand)))
        finally:
            gone.set()

    with ThreadPoolExecutor(solvers) as solving:
        backlog = Backlog(solving, solvers)
        ended = internals.begin(all_lanes())
        ended.add_done_callback(lambda _: results.put(ended))
        try:
            while (result := results.get()) is not ended:
                yield result
        finally:  # what is in hand is finished, or given up where the store is silent for a while
            stopped, silent = True, 0.0
            while not ended.done() and silent < internals.PATIENCE:
                try:
                    results.get(timeout=_GLANCE)
                    silent = 0
                except Empty:
                    silent = 0 if backlog.busy else silent + _GLANCE
            if not ended.done():
                ended.cancel()
                gone.wait(internals.PATIENCE)
        ended.result()
