"""Runs a job: has a task done for every block, and adds up what comes of them."""

import logging
import time
from collections.abc import Iterable
from concurrent.futures import Future
from functools import partial
from itertools import takewhile
from typing import Any

import numpy as np

from dasksolve.errors import BlockErrors
from dasksolve.job import presence, room
from dasksolve.job.job import Job, Task
from dasksolve.job.output import Output
from dasksolve.job.progress import Progress
from dasksolve.job.report import Report
from dasksolve.job.schedulers import Scheduler
from dasksolve.job.tally import BlockResult, Tally
from dasksolve.job.tasks import WINDOW
from dasksolve.storage import buffers, stores

logger = logging.getLogger(__name__)


def run_job(
    task: Task,
    job: Job,
    scheduler: Scheduler,
    progress: Progress | None,
    advice: str,
    output: Output | None = None,
) -> Report:
    """Carry out `task` for every block; raise `BlockErrors` at the end if some failed.

    output: what is there of the blocks that are done is confirmed.
    """
    plan, location, left = job.plan, job.location, job.plan.blocks
    refusal: int | None = None
    look: Future[Any] | None = None
    ends: list[Any] = []
    here = job.here
    here.met = True  # this process has opened all that it works on, and put the mark there
    here.saw_mark = time.monotonic()
    # Others have nothing to wait for.
    threads = min(plan.workers * scheduler.processes, max(1, plan.blocks))
    tally = Tally(here.gauge, location, plan, threads)
    done = np.zeros(plan.blocks, np.bool_)
    looks = stores.is_far(job.store) and job.looks_from is None
    how = "resumed" if job.resume else "begun"
    logger.info("%s %s: %s; %s", location, how, scheduler, "; ".join(str(plan).splitlines()))

    def on_result(result: BlockResult) -> None:
        nonlocal left, look, refusal
        if job.there is not None:
            job.there.result()  # what came of blocks without an output is not worth telling
        left -= 1
        if not result.begun:
            return
        refusal = refusal or result.refusal
        tally.add(result)
        done[result.number] = result.failure is None
        if result.failure is not None:
            logger.warning("%s: %s", location, tally.failures[-1])
        elif (so_far := tally.sums.blocks_done) % WINDOW == 0:
            logger.info("%s: %d of %d blocks done", location, so_far, plan.blocks)
        if progress is not None:
            progress(tally.report())
        if job.looks(result.number):
            ends.append(result.looked)
        elif output is not None and looks and look is None and left <= plan.in_hand:
            look = output.look(job, done)  # while the last blocks are written

    windows: Iterable[range] = plan.windows(WINDOW * plan.together)
    if not job.resume:  # else what is done already is counted still
        windows = takewhile(lambda _: refusal is None, windows)
    scheduler.run(task, job, windows, on_result)
    if job.there is not None:
        job.there.result()
    scheduler.in_each_process(partial(_end, job.token))
    if ends and None not in ends:  # else it may be another that has seen the end
        look = Future()
        look.set_result(ends[-1])
    if output is not None:
        try:
            output.confirm(job, done, look)
        except Exception as error:  # blocks that failed tell of a store that is gone
            if isinstance(error, FileNotFoundError) or not tally.failures:
                raise
    here.gauge.highest()
    report = tally.report()
    logger.info("%s finished: %s", location, "; ".join(" ".join(row) for row in report.rows()))
    if refusal is not None:
        advice = room.advice(refusal, report, job.work, job.store)
    if tally.failures:
        raise BlockErrors(sorted(tally.failures), report, advice)
    return report


def _end(token: str) -> None:
    """What a process does once no block of a job is left."""
    buffers.free_all()
    presence.forget(token)
