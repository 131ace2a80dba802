"""Chooses who works blocks off: threads of this process, or a cluster."""

import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, nullcontext, suppress
from itertools import chain
from typing import Any

import dask

from dasksolve.batch.pieces import thread_count
from dasksolve.errors import counted
from dasksolve.job.blocks import worked_off
from dasksolve.job.cluster import Cluster
from dasksolve.job.job import Job, Task
from dasksolve.job.plan import Plan
from dasksolve.job.tally import BlockResult
from dasksolve.job.tasks import OnResult, graph_of
from dasksolve.storage.buffers import Workspace
from dasksolve.storage.locations import has_one_writer
from dasksolve.storage.marks import Mark, end_others, marked


class Threads:
    """Threads of this process."""

    fixed = False
    """Fewer blocks at once are fine."""
    processes = 1
    task_cost = 0
    """They take their tasks themselves."""

    def __init__(self, workers: int | None) -> None:
        if workers is None:
            workers = dask.config.get("num_workers", None) or -1
        self.workers = thread_count(workers)

    def __str__(self) -> str:
        return counted(self.workers, "threads")

    def memory_limit(self) -> int | None:
        """No limit but the machine's."""
        return None

    def refuse_memory(self, needed: int) -> None:
        """The machine's memory is what the default limit is made from."""

    def refuse_private(self, found: Iterable[tuple[str, Any]]) -> None:
        """Threads see what this process sees."""

    def marking(self, store: Any, token: str, locked: bool) -> AbstractContextManager[Mark | None]:
        """Keep a mark where no folder is locked; end what workers have of a killed client."""
        if locked:
            end_others(store)
        elif not has_one_writer(store):
            return marked(store, token)
        return nullcontext()

    def everywhere(self, _look: Callable[..., None], *_arguments: Any) -> None:
        """Threads see what this process sees."""

    def run(self, task: Task, job: Job, windows: Iterable[range], on_result: OnResult) -> None:
        """Call ``on_result`` with what comes of `task`, which must not raise, for each number."""
        ended: dict[int, BlockResult] = {}  # that nobody was told of yet

        async def noted(job: Job, number: int, space: Workspace) -> BlockResult:
            ended[number] = await task(job, number, space)
            return ended[number]

        def told(result: BlockResult) -> None:
            ended.pop(result.number, None)
            on_result(result)

        try:
            self._run(noted, job, windows, told)
        except BaseException:  # what was in hand has been finished: it counts, too
            for result in [*ended.values()]:
                with suppress(Exception):  # the first error is the one to tell
                    on_result(result)
            raise

    def _run(self, task: Task, job: Job, windows: Iterable[range], on_result: OnResult) -> None:
        in_hand = job.plan.in_hand
        if job.far:
            every = chain.from_iterable(windows)
            with closing(worked_off(task, job, every, in_hand, job.plan.workers)) as results:
                for result in results:
                    on_result(result)
            return

        def finished(_key: Any, results: Any, *_: Any) -> None:
            for result in results:
                on_result(result)

        # Given here, they are called for this graph alone; those that are entered as a context
        # are the whole process's, and see what every other thread computes.
        callbacks = [(None, None, None, finished, None)]
        with ThreadPoolExecutor(in_hand) as pool:
            for window in windows:
                graph = graph_of(task, job, window)
                keys: list[Any] = graph.__dask_keys__()
                dask.threaded.get(graph.__dask_graph__(), keys, pool=pool, callbacks=callbacks)

    def last_tasks(self, _plan: Plan) -> None:
        """What comes of each block is known as soon as it is done."""

    def in_each_process(self, function: Callable[[], Any]) -> None:
        """Call a function in this process."""
        function()


Scheduler = Threads | Cluster


def choose(client: Any, workers: int | None) -> Scheduler:
    """The given client's cluster, else the current client's, else threads of this process.

    In a task, the current client is that of its worker.
    """
    if client is None and "distributed" in sys.modules:
        import distributed  # waits where another thread has not done with importing it

        try:
            client = distributed.get_client()
        except ValueError:  # there is none
            client = None
    return Threads(workers) if client is None else Cluster(client)
