"""Carries out a task for every block of a job, and counts what comes of it."""

import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dasksolve.errors import BlockErrors
from dasksolve.job.memory import Gauge
from dasksolve.job.plan import Plan
from dasksolve.job.progress import Progress
from dasksolve.job.report import Report
from dasksolve.job.schedulers import WINDOW, Cluster, Threads
from dasksolve.job.tally import BlockResult, Tally, count
from dasksolve.job.work import Work
from dasksolve.storage import buffers, secrets, stores

logger = logging.getLogger(__name__)

_BEGUN: set[str] = set()
"""Jobs that this process has begun to work at."""
_LOOKING = threading.Lock()
_LOOKED: dict[str, float] = {}
"""When this process last saw the mark of a job."""
_TURNS: dict[str, threading.Semaphore] = {}
"""How many of a job's blocks this process may solve at once."""


@dataclass(frozen=True)
class Job:
    """What every task of one run carries with it."""

    token: str
    work: Work
    plan: Plan
    arrays: dict[str, Any]
    """The open arrays of the output, by the names of the fields."""
    strict: bool
    resume: bool
    durable: bool = False
    """What status speaks of is waited for before it is written."""
    summed: frozenset[str] = frozenset()
    """Arrays whose chunks have no checksum: that of their numbers stands beside status."""
    mark: str | None = None
    """Key in the output while this job is the one to write it; None: it is locked instead."""

    @property
    def status(self) -> Any:
        """The array of that name, which is the journal."""
        return self.arrays["status"]

    def solving(self) -> threading.Semaphore:
        """A turn to solve, in a process that has more blocks in hand than that."""
        return _TURNS.setdefault(self.token, threading.Semaphore(self.plan.workers))

    def begin(self) -> None:
        """What a process does before it works on a block."""
        Gauge(self.token)
        inputs = [source.array for source in self.work.sources]
        meet(self.token, [*inputs, self.status], self.status.store, self.mark)
        self.refuse_late()

    def refuse_late(self) -> None:
        """Keep what a killed client left in the hands of a worker out of the output of another."""
        if self.mark is None or self.looked_lately():
            return
        with _LOOKING:
            if not self.looked_lately():  # nor another thread meanwhile
                now = time.monotonic()
                stores.refuse_unmarked(self.status.store, self.mark)
                _LOOKED[self.token] = now

    def looked_lately(self) -> bool:
        """Whether this process need not look for the mark again."""
        last = _LOOKED.get(self.token, -math.inf)
        return self.mark is None or time.monotonic() - last < stores.LOOK_EVERY

    def failed(self, number: int, error: object) -> BlockResult:
        """The result of a block that could not be solved."""
        kind = f"{type(error).__name__}: " if isinstance(error, BaseException) else ""
        return BlockResult(
            number, failure=f"{kind}{secrets.shown(error)}", memory=Gauge(self.token).highest()
        )


def meet(token: str, arrays: Sequence[Any], store: Any, mark: str | None) -> None:
    """Make sure, once, that this process sees what the one sees that started the job."""
    with _LOOKING:
        if token not in _BEGUN:
            stores.look(arrays, store, mark)
            _BEGUN.add(token)
            _LOOKED[token] = time.monotonic()


Task = Callable[[Job, int], BlockResult]


def run_job(
    task: Task,
    job: Job,
    scheduler: Threads | Cluster,
    location: str,
    progress: Progress | None,
    advice: str,
    confirm: Callable[[Plan, NDArray[np.bool_]], None] | None = None,
) -> Report:
    """Carry out `task` for every block; raise `BlockErrors` at the end if some failed.

    confirm: looks, at the end, at what is there of the blocks that are done.
    """
    tally = Tally(job.token, location, job.plan, job.plan.workers * scheduler.processes)
    done = np.zeros(job.plan.blocks, np.bool_)
    _BEGUN.add(job.token)  # this process has opened all that it works on, and put the mark there
    _LOOKED[job.token] = time.monotonic()
    how = "resumed" if job.resume else "begun"
    logger.info("%s %s: %s; %s", location, how, scheduler, "; ".join(str(job.plan).splitlines()))

    def on_result(result: BlockResult) -> None:
        tally.add(result)
        done[result.number] = result.failure is None
        if result.failure is not None:
            logger.warning("%s: %s", location, tally.failures[-1])
        elif tally.done % WINDOW == 0:
            logger.info("%s: %d of %d blocks done", location, tally.done, job.plan.blocks)
        if progress is not None:
            progress(tally.report())

    plan = job.plan
    scheduler.run(task, job, plan.windows(WINDOW * plan.together), plan.in_hand, on_result)
    scheduler.in_each_process(buffers.free_all)
    if confirm is not None:
        try:
            confirm(plan, done)
        except Exception as error:  # blocks that failed tell of a store that is gone
            if isinstance(error, FileNotFoundError) or not tally.failures:
                raise
    report = tally.report()
    logger.info("%s finished: %s", location, "; ".join(" ".join(row) for row in report.rows()))
    if tally.failures:
        raise BlockErrors(sorted(tally.failures), report, advice)
    return report


def result(job: Job, number: int, found: dict[str, Any], **numbers: Any) -> BlockResult:
    """The result of a block of which these arrays were found, by the names of the fields."""
    origin = tuple(start for start, _ in job.plan.block(number))
    counts, flagged = count(found["status"], origin, job.plan.batch_shape)
    numbers |= job.work.worst(found)
    return BlockResult(number, counts, flagged, memory=Gauge(job.token).highest(), **numbers)
