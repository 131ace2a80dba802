"""Runs a job: has a task done for every block, and adds up what comes of them."""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import takewhile
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from zarr.storage import LocalStore

from dasksolve import kernels
from dasksolve.errors import BlockErrors
from dasksolve.job import journal, presence, room
from dasksolve.job.plan import Plan
from dasksolve.job.presence import Presence
from dasksolve.job.progress import Progress
from dasksolve.job.report import Report
from dasksolve.job.schedulers import Scheduler
from dasksolve.job.tally import BlockResult, Sums, Tally, count
from dasksolve.job.tasks import WINDOW
from dasksolve.job.work import Work
from dasksolve.storage import buffers, encode, internals, marks, secrets, stores
from dasksolve.storage.buffers import Workspace

logger = logging.getLogger(__name__)


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
    looks_from: int | None = None
    """Tasks from this block on look at the output as they end; None: who started the job does."""
    there: Future[None] | None = None
    """The metadata of the output are being written, and no block yet; None: they are there."""
    arithmetic: str = field(default_factory=lambda: kernels.ARITHMETIC)
    """That of the process that started it."""

    @property
    def status(self) -> Any:
        """The array of that name, which is the journal."""
        return self.arrays["status"]

    @cached_property
    def codecs(self) -> dict[str, internals.Codecs]:
        """How zarr encodes the chunks of the arrays."""
        return {name: internals.Codecs(array) for name, array in self.arrays.items()}

    @cached_property
    def plain(self) -> frozenset[str]:
        """Arrays whose chunks are their numbers as they are in memory, and their checksum."""
        return frozenset(n for n, array in self.arrays.items() if encode.is_known(array))

    @cached_property
    def reuses(self) -> bool:
        """Whether chunks may be encoded in memory that is used again: no store keeps it."""
        return isinstance(self.status.store, LocalStore) and not self.far

    @property
    def far(self) -> bool:
        """Whether requests are waited for, with nothing to do meanwhile but other blocks."""
        arrays = [*(source.array for source in self.work.sources), *self.arrays.values()]
        return any(stores.is_far(array.store) for array in arrays)

    def begin(self) -> None:
        """What a process does before it works on blocks."""
        inputs = [source.array for source in self.work.sources]
        seen = [*inputs, self.status]
        meet(self.token, seen, self.status.store, self.mark, self.arithmetic)

    async def created(self) -> None:
        """Wait for the metadata of the output."""
        if self.there is None:
            return
        if not self.there.done():
            await asyncio.wrap_future(self.there)
        self.there.result()

    async def refuse_late(self) -> None:
        """Keep what a killed client left in the hands of a worker out of the output of another.

        Where a look is waited for, it begins once the last is old, and nobody waits for it yet.
        """
        if self.mark is None or self._age() < marks.LOOK_EVERY:
            return
        if not stores.is_far(self.status.store):
            await self._look()
            return
        here = presence.of(self.token)
        look = here.look
        if look is None:
            look = here.look = asyncio.ensure_future(self._look())
            look.add_done_callback(partial(_ended, here))
        if self._age() >= marks.patience(self.status.store):
            await look

    def _age(self) -> float:
        """Seconds since this process last saw the mark."""
        return time.monotonic() - presence.of(self.token).saw_mark

    async def _look(self) -> None:
        assert self.mark is not None
        here, began = presence.of(self.token), time.monotonic()
        await marks.refuse_unmarked(self.status.store, self.mark)
        here.saw_mark = began

    def looks(self, number: int) -> bool:
        """Whether the output is looked at while the status of this block is written."""
        last = (number + 1) % self.plan.together == 0 or number + 1 == self.plan.blocks
        return last and self.looks_from is not None and number >= self.looks_from

    def first_done(self) -> list[int]:
        """The first block that this process has done."""
        first = presence.of(self.token).first_done
        return [] if first is None else [first]

    def did(self, number: int) -> None:
        """Remember it."""
        here = presence.of(self.token)
        if here.first_done is None:
            here.first_done = number

    def failed(self, number: int, error: object) -> BlockResult:
        """The result of a block that could not be solved."""
        kind = f"{type(error).__name__}: " if isinstance(error, BaseException) else ""
        memory = presence.of(self.token).gauge.lately()
        return BlockResult(number, failure=f"{kind}{secrets.shown(error)}", memory=memory)


def meet(token: str, arrays: Sequence[Any], store: Any, mark: str | None, arithmetic: str) -> None:
    """Make sure, once, that this process sees what the one sees that started the job.

    And computes what that would: the journal says with which arithmetic, and `check` believes it.
    """
    here = presence.of(token)
    with here.meeting:
        if not here.met:
            journal.refuse_other_arithmetic(arithmetic)
            marks.look(arrays, store, mark)
            here.met, here.saw_mark = True, time.monotonic()


def _ended(here: Presence, look: asyncio.Future[None]) -> None:
    """Forget a look that has ended, and its error: who has waited for it knows."""
    here.look = None
    if not look.cancelled():
        look.exception()


class Written(Protocol):
    """What a job writes: see `Output`."""

    def look(self, plan: Plan, done: NDArray[np.bool_]) -> Future[Any]:
        """Begin to look at what is there."""

    def confirm(self, plan: Plan, done: NDArray[np.bool_], look: Future[Any] | None = None) -> None:
        """Make sure that all is there that was written."""


Task = Callable[[Job, int, Workspace], Coroutine[Any, Any, BlockResult]]


def run_job(
    task: Task,
    job: Job,
    scheduler: Scheduler,
    location: str,
    progress: Progress | None,
    advice: str,
    output: Written | None = None,
) -> Report:
    """Carry out `task` for every block; raise `BlockErrors` at the end if some failed.

    output: what is there of the blocks that are done is confirmed.
    """
    plan, left = job.plan, job.plan.blocks
    refusal: int | None = None
    look: Future[Any] | None = None
    ends: list[Any] = []
    here = presence.of(job.token)
    here.met = True  # this process has opened all that it works on, and put the mark there
    here.saw_mark = time.monotonic()
    tally = Tally(here.gauge, location, job.plan, job.plan.workers * scheduler.processes)
    done = np.zeros(job.plan.blocks, np.bool_)
    looks = stores.is_far(job.status.store) and job.looks_from is None
    how = "resumed" if job.resume else "begun"
    logger.info("%s %s: %s; %s", location, how, scheduler, "; ".join(str(job.plan).splitlines()))

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
            logger.info("%s: %d of %d blocks done", location, so_far, job.plan.blocks)
        if progress is not None:
            progress(tally.report())
        if job.looks(result.number):
            ends.append(result.looked)
        elif output is not None and looks and look is None and left <= plan.in_hand:
            look = output.look(plan, done)  # while the last blocks are written

    windows: Iterable[range] = plan.windows(WINDOW * plan.together)
    if not job.resume:  # else what is done already is counted still
        windows = takewhile(lambda _: refusal is None, windows)
    scheduler.run(task, job, windows, plan.in_hand, on_result)
    if job.there is not None:
        job.there.result()
    scheduler.in_each_process(partial(_end, job.token))
    if ends and None not in ends:  # else it may be another that has seen the end
        look = Future()
        look.set_result(ends[-1])
    if output is not None:
        try:
            output.confirm(plan, done, look)
        except Exception as error:  # blocks that failed tell of a store that is gone
            if isinstance(error, FileNotFoundError) or not tally.failures:
                raise
    here.gauge.highest()
    report = tally.report()
    logger.info("%s finished: %s", location, "; ".join(" ".join(row) for row in report.rows()))
    if refusal is not None:
        advice = room.advice(refusal, report, job.work, job.status.store)
    if tally.failures:
        raise BlockErrors(sorted(tally.failures), report, advice)
    return report


def _end(token: str) -> None:
    """What a process does once no block of a job is left."""
    buffers.free_all()
    presence.forget(token)


def result(
    job: Job, number: int, found: dict[str, Any], *, solving: float = 0.0, **sums: int
) -> BlockResult:
    """The result of a block of which these arrays were found, by the names of the fields.

    sums: as `Sums` has them.
    """
    origin = tuple(start for start, _ in job.plan.block(number))
    counts, flagged = count(found["status"], origin, job.plan.batch_shape)
    done, memory = Sums(blocks_done=1, **sums), presence.of(job.token).gauge.lately()
    worst: dict[str, Any] = job.work.worst(found)
    return BlockResult(number, counts, flagged, done, solving, memory, **worst)
