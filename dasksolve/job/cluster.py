"""Has blocks worked off by the workers of a cluster, whatever becomes of them."""

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import CancelledError
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from dask.utils import format_bytes

from dasksolve.errors import counted, retold
from dasksolve.job import waiting
from dasksolve.job.job import Job, Task
from dasksolve.job.plan import Plan
from dasksolve.job.tally import BlockResult
from dasksolve.job.tasks import WINDOW, OnResult, graph_of, parts
from dasksolve.storage import locations
from dasksolve.storage.marks import Mark, marked

logger = logging.getLogger(__name__)

_OR_CLOSE = ", or close this one: without a client, threads of this process do the work"
_DEATHS = 8  # tasks for each thread of a worker that may die with it, one after the other
_FRUITLESS = 4  # times in a row that workers who can take no part may take all from those who can


class Cluster:
    """The workers of a `distributed.Client`."""

    fixed = True
    """How many blocks a worker takes at once is the cluster's affair."""
    task_cost = 3000
    """Microseconds that the scheduler takes for a task, while no other is served."""

    def __init__(self, client: Any) -> None:
        _refuse_unusable(client)
        self.client = client
        self.address = client.scheduler.address
        self.waiting = waiting.Waiting(client)
        threads = client.nthreads() or self.waiting.for_first()
        self.processes = len(threads)
        self.workers = max(threads.values())
        self.deaths = 0  # tasks that died with their workers since one was done

    def __str__(self) -> str:
        processes, threads = counted(self.processes, "workers"), counted(self.workers, "threads")
        up_to = "up to " if self.processes > 1 else ""
        return f"{processes} of {up_to}{threads} at {self.address}"

    def memory_limit(self) -> int | None:
        """Half of what the smallest worker may have; None where there is no limit."""
        workers = waiting.workers_of(self.client).values()
        limits = [worker["memory_limit"] for worker in workers if worker["memory_limit"]]
        return min(limits) // 2 if limits else None

    def refuse_memory(self, needed: int) -> None:
        """Refuse a job for which a nanny would kill its worker."""
        for address, worker in waiting.workers_of(self.client).items():
            most, held = worker["memory_limit"], worker["metrics"].get("memory", 0)
            if most and held + needed > most:
                raise ValueError(
                    f"the job adds up to {format_bytes(needed)} to a worker, but the one at "
                    f"{address} may have {format_bytes(most)} and holds {format_bytes(held)} "
                    "already: give a smaller memory_limit, or start workers with more "
                    "(dask worker --memory-limit)"
                )

    def refuse_private(self, found: Iterable[tuple[str, Any]]) -> None:
        """Refuse what lives in this process alone; found: stores, and what lies in each."""
        for location, store in found:
            if locations.is_in_memory(store):
                raise ValueError(
                    f"{location} is in the memory of this process, where the workers of "
                    f"{self.address} cannot see it; put it on a disk they share"
                )

    def marking(self, store: Any, token: str, _locked: bool) -> AbstractContextManager[Mark | None]:
        """Keep a mark in a store by which the workers know it."""
        if locations.has_one_writer(store):
            raise ValueError(
                f"{locations.of(store)} is written by the process that opened it alone: solve "
                "without a client, or into a path or URL that all workers see"
            )
        return marked(store, token)

    def everywhere(self, look: Callable[..., None], *arguments: Any) -> None:
        """Have every worker look, or refuse the job for what the first of them does not find."""
        for worker, found in self.client.run(look, *arguments, on_error="return").items():
            if isinstance(found, Exception):
                raise retold(found, f"{worker}: {type(found).__name__}: {found}") from found

    def run(self, task: Task, job: Job, windows: Iterable[range], on_result: OnResult) -> None:
        """Call ``on_result`` with what comes of each number, whatever becomes of a worker."""
        with _not_in_the_way():
            self._run_all(task, job, windows, on_result)

    def _run_all(self, task: Task, job: Job, windows: Iterable[range], on_result: OnResult) -> None:
        self._alive()
        suspects: list[int] = []
        unmet: list[BlockResult] = []
        told: set[str | None] = set()

        def found(result: BlockResult) -> None:
            if result.met:
                on_result(result)
                return
            unmet.append(result)
            if result.failure not in told:
                told.add(result.failure)
                text = "a worker cannot take part, its blocks are left to others: %s"
                logger.warning(text, result.failure)

        def again(number: int, _error: Exception) -> None:
            suspects.append(number)

        def failed(number: int, error: Exception) -> None:
            on_result(job.failed(number, error))

        self._run(task, job, windows, found, again)
        # A block whose workers died may only have been beside the one that killed them, or lack
        # the memory that the others took: once all others are done, each has the cluster alone.
        for number in sorted(suspects):
            logger.warning("block %d: its workers died; it is tried again, alone", number)
            self._run(task, job, [range(number, number + 1)], found, failed, attempt=1)
        attempt, fruitless = 2, 0
        while unmet and fruitless < _FRUITLESS:
            left, numbers = len(unmet), _ranges(result.number for result in unmet)
            met = self.client.run(job.begin, on_error="return").items()
            able = [worker for worker, error in met if error is None]
            if not able:
                break
            # Who is idle takes them from who is able all the same, and leaves them again.
            unmet.clear()
            self._run(task, job, numbers, found, failed, attempt=attempt, able=able)
            attempt, fruitless = attempt + 1, fruitless + 1 if len(unmet) == left else 0
        for result in unmet:
            on_result(result)

    def _run(
        self,
        task: Task,
        job: Job,
        windows: Iterable[range],
        on_result: OnResult,
        on_death: Callable[[int, Exception], None],
        attempt: int = 0,
        able: Sequence[str] = (),
    ) -> None:
        """Compute all blocks, at most a few windows ahead; by able workers, while there are any."""
        from distributed import as_completed  # imported by who made the client
        from distributed.scheduler import KilledWorker, NoWorkerError

        ahead = max(WINDOW, 2 * self.processes * self.workers)
        pending: dict[Any, tuple[Any, range]] = {}
        completed = as_completed(loop=self.client.loop)
        remaining = iter(windows)
        where = {"workers": able, "allow_other_workers": True} if able else {}

        def submit() -> None:
            while len(pending) < ahead and (window := next(remaining, None)) is not None:
                try:
                    graph = self.client.persist(graph_of(task, job, window, attempt), **where)
                except Exception as error:
                    if self.client.status == "running":
                        raise
                    raise self._stopped(f"the client of {self.address} was closed") from error
                held = graph.__dask_graph__()
                futures = [held[key] for key in graph.__dask_keys__()]
                tasks = zip(futures, parts(window, job.plan.together), strict=True)
                pending.update((future.key, (future, part)) for future, part in tasks)
                completed.update(futures)

        try:
            submit()
            while pending:
                future = self._next(completed)
                _, numbers = pending.pop(future.key)
                try:
                    results = self._results(future)
                except KilledWorker as error:
                    for number in numbers:
                        on_death(number, error)
                    self._refuse_massacre(error, pending)
                except NoWorkerError as error:  # by the scheduler's own setting
                    raise RuntimeError(self.waiting.stopped(error.timeout)) from error
                except CancelledError as error:
                    reason = getattr(error, "reason", error)
                    what = f"the scheduler at {self.address} is gone or dropped the job ({reason})"
                    raise self._stopped(what) from error
                except Exception as error:  # the task itself never raises: dask lost it
                    for number in numbers:
                        on_result(job.failed(number, error))
                else:
                    self._alive()
                    for result in results:
                        on_result(result)
                future.release()
                submit()
        finally:  # of a job that is stopped, the cluster is to do no more
            for future, _ in pending.values():
                future.release()

    def _stopped(self, what: str) -> ConnectionError:
        """The error of a job that nobody on the cluster goes on with."""
        return ConnectionError(
            f"{what}. What is done is kept: resume=True (--resume) goes on with it on a cluster "
            "that answers"
        )

    def _alive(self) -> None:
        """Forget the deaths, and the wait, before this moment."""
        self.deaths = 0
        self.waiting.over()

    def _refuse_massacre(self, error: Exception, pending: dict[Any, tuple[Any, range]]) -> None:
        """Stop where one task after the other kills its workers."""
        self.deaths += 1
        if self.deaths < _DEATHS * self.workers:
            return
        self.client.cancel([future for future, _ in pending.values()])
        raise RuntimeError(
            f"{self.deaths} tasks one after the other died with their workers, and none was done: "
            "the job is stopped before it kills more. The workers' logs may say why; most often "
            "they lack memory (dask worker --memory-limit, memory_limit). What is done is kept: "
            f"resume=True (--resume) goes on with it. The last of them: {error}"
        ) from error

    def last_tasks(self, plan: Plan) -> int:
        """From which block on there is a task for each thread, and none after it."""
        return plan.blocks - self.processes * self.workers * plan.together

    def in_each_process(self, function: Callable[[], Any]) -> None:
        """Call a function in every worker process, unless somebody closed the client."""
        if self.client.status == "running":
            self.client.run(function, on_error="ignore")

    def _next(self, completed: Any) -> Any:
        """The next future that is done; `as_completed` itself would wait past a Ctrl-C."""
        began = time.monotonic()
        while not completed.has_ready():
            with completed.thread_condition:
                completed.thread_condition.wait(0.1)
            if time.monotonic() - began > waiting.PATIENCE:
                self.waiting.for_next()
                began = time.monotonic()
        return next(completed)

    def _results(self, future: Any) -> Any:
        """What a task returned; if it was lost with its worker, another works it out again."""
        while True:
            try:
                return future.result(timeout=waiting.PATIENCE)
            except TimeoutError:
                self.waiting.for_next()


def _ranges(numbers: Iterable[int]) -> list[range]:
    """Windows of numbers, those that follow one another together."""
    windows: list[range] = []
    for number in sorted(numbers):
        last = windows[-1] if windows else range(0)
        if len(last) and last.stop == number and len(last) < WINDOW:
            windows[-1] = range(last.start, number + 1)
        else:
            windows.append(range(number, number + 1))
    return windows


def _refuse_unusable(client: Any) -> None:
    """Refuse what is no client that is connected and may be waited for."""
    from distributed import Client

    if not isinstance(client, Client):
        what = f"{client!r} is a {type(client).__name__}"
        raise TypeError(f"client must be a distributed.Client, but {what}; give Client(…) of it")
    if client.asynchronous:
        raise RuntimeError(
            f"{client} is asynchronous here, and the job would block the event loop that it waits "
            "for; call it in a thread: await asyncio.to_thread(dasksolve.solve_zarr, …)"
        )
    if client.status != "running":
        raise ConnectionError(
            f"{client} is {client.status}; give one that is connected"
            + _OR_CLOSE * (client.status != "closed")
        )


def _not_in_the_way() -> AbstractContextManager[Any]:
    """Within a task, leave its thread to those that are waited for, as dask's own compute does."""
    from distributed import get_worker, worker_client

    try:
        get_worker()
    except ValueError:  # this is no task
        return nullcontext()
    return worker_client()
