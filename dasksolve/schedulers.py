"""Carries out numbered blocks through `map_blocks`, in bounded windows, on threads or a cluster."""

import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import dask
import dask.array as da
import numpy as np
from dask.callbacks import Callback
from numpy.typing import NDArray

from dasksolve.eager import thread_count

WINDOW = 512
"""Blocks in one graph: enough that the workers are not idle between two, few enough for memory."""

Task = Callable[..., Any]
OnResult = Callable[[Any], None]


def _graph(task: Task, job: Any, numbers: range) -> da.Array:
    """One task a block: `task(job, number)`, as an array of results."""
    return da.map_blocks(
        _call,
        task=task,
        job=job,
        first=numbers.start,
        name=f"{task.__name__}-{job.token}-{numbers.start}",  # no two runs share a result
        chunks=((1,) * len(numbers),),
        dtype=object,
        meta=np.empty(0, object),
    )


def _call(task: Task, job: Any, first: int, block_id: tuple[int]) -> NDArray[Any]:
    results = np.empty(1, object)
    results[0] = task(job, first + block_id[0])
    return results


class Threads:
    """Threads of this process."""

    fixed = False
    """Fewer blocks at once are fine."""
    processes = 1

    def __init__(self, workers: int | None) -> None:
        self.workers = thread_count(-1 if workers is None else workers)

    def __str__(self) -> str:
        return f"{self.workers} threads"

    def memory_limit(self) -> int | None:
        """No limit but the machine's."""
        return None

    def refuse_private(self, locations: Iterable[str]) -> None:
        """Threads see what this process sees."""

    def run(
        self, task: Task, job: Any, windows: Iterable[range], workers: int, on_result: OnResult
    ) -> None:
        """Call ``on_result(task(job, number))`` for each number; `task` must not raise."""

        def finished(_key: Any, result: Any, *_: Any) -> None:
            on_result(result[0])

        with ThreadPoolExecutor(workers) as pool, Callback(posttask=finished):
            for window in windows:
                graph = _graph(task, job, window)
                keys = list(dask.core.flatten(graph.__dask_keys__()))
                dask.threaded.get(graph.dask, keys, pool=pool)

    def in_each_process(self, function: Callable[[], Any]) -> None:
        """Call a function in this process."""
        function()


class Cluster:
    """The workers of a `distributed.Client`."""

    fixed = True
    """How many blocks a worker takes at once is the cluster's affair."""

    def __init__(self, client: Any) -> None:
        self.client = client
        threads = client.nthreads()
        if not threads:
            raise RuntimeError(
                f"{client} has no workers; start some, or wait for them with "
                "client.wait_for_workers(1)"
            )
        self.processes = len(threads)
        self.workers = max(threads.values())

    def __str__(self) -> str:
        workers = f"{self.processes} workers of up to {self.workers} threads"
        return f"{workers} at {self.client.scheduler.address}"

    def memory_limit(self) -> int | None:
        """Half of what the smallest worker may have; None where there is no limit."""
        workers = self.client.scheduler_info(n_workers=-1)["workers"].values()
        limits = [worker["memory_limit"] for worker in workers if worker["memory_limit"]]
        return min(limits) // 2 if limits else None

    def refuse_private(self, locations: Iterable[str]) -> None:
        """Refuse what lives in this process alone."""
        for location in locations:
            if location.startswith("memory://"):
                raise ValueError(
                    f"{location} is in the memory of this process, where the workers of "
                    f"{self.client.scheduler.address} cannot see it; put it on a disk they share"
                )

    def run(
        self, task: Task, job: Any, windows: Iterable[range], workers: int, on_result: OnResult
    ) -> None:
        """Call ``on_result(task(job, number))`` for each number, whatever becomes of a worker."""
        from distributed import as_completed  # imported by whoever made the client

        ahead = max(WINDOW, 2 * self.processes * self.workers)
        pending: dict[Any, int] = {}
        completed = as_completed(loop=self.client.loop)
        remaining = iter(windows)

        def submit() -> Iterator[Any]:
            while len(pending) < ahead and (window := next(remaining, None)) is not None:
                graph = self.client.persist(_graph(task, job, window))
                futures = [graph.dask[key] for key in dask.core.flatten(graph.__dask_keys__())]
                pending.update(zip((f.key for f in futures), window, strict=True))
                completed.update(futures)
            return iter(completed)

        for future in submit():
            number = pending.pop(future.key)
            if future.status == "finished":
                on_result(future.result()[0])
            else:  # the task itself never raises: its worker died, again and again
                on_result(job.failed(number, future.exception()))
            future.release()
            submit()

    def in_each_process(self, function: Callable[[], Any]) -> None:
        """Call a function in every worker process."""
        self.client.run(function, on_error="ignore")


def choose(client: Any, workers: int | None) -> Threads | Cluster:
    """The given client's cluster, else the current client's, else threads of this process."""
    if client is None and "distributed" in sys.modules:
        from distributed.client import default_client

        try:
            client = default_client()
        except ValueError:  # there is none
            client = None
    return Threads(workers) if client is None else Cluster(client)
