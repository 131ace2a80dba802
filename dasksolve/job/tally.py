"""Adds up what the blocks of a zarr job return."""

import math
import operator
import time
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dasksolve.errors import BlockFailure, flat_indices
from dasksolve.job.memory import Gauge
from dasksolve.job.plan import Plan
from dasksolve.job.report import FLAGGED, Report
from dasksolve.status import Status


class Sums(NamedTuple):
    """Numbers that are added up over the blocks, by the names that `Report` has for them."""

    blocks_done: int = 0
    blocks_resumed: int = 0
    systems_resumed: int = 0
    chunks_missing: int = 0
    bytes_read: int = 0
    """Of x and status, too, where they are checked."""
    bytes_needed: int = 0
    bytes_written: int = 0
    chunks_read: int = 0
    chunks_written: int = 0

    def plus(self, other: "Sums") -> "Sums":
        """Both together."""
        return Sums(*map(operator.add, self, other))


class BlockResult(NamedTuple):
    """What one block's task returns: a few numbers."""

    number: int
    """Which block it is."""
    counts: tuple[int, ...] = ()
    """Systems of each `Status`, in its order."""
    flagged: tuple[int, ...] = ()
    """Flat indices into the whole batch of its first systems whose status is not OK."""
    sums: Sums = Sums()
    """What was done for it."""
    solving: float = 0.0
    """Seconds of a thread."""
    memory: int = 0
    """The most bytes that the process held above those when it met the job."""
    worst_rcond: float = math.nan
    """Among its systems that have a solution, if the task looked."""
    worst_backward_error: float = math.nan
    """Likewise."""
    failure: str | None = None
    """Why it is not done."""
    refusal: int | None = None
    """The error of the system for which it could not be written, if others could not be, either."""
    met: bool = True
    """False: the process that was to do it cannot work at this job, and has not begun with it."""
    begun: bool = True
    """False: another met such a refusal before."""
    looked: Any = None
    """What was seen of the output meanwhile: `Looked`; None: nobody looked."""


def count(
    status: NDArray[np.int8], origin: tuple[int, ...], batch_shape: tuple[int, ...]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return how many systems of a block have each status, and the first that are not OK."""
    if not status.any():  # as a rule; to count would take ten times as long
        found = np.zeros(len(Status), int)
        found[Status.OK + 1] = status.size
        return tuple(found.tolist()), ()
    found = np.bincount(status.reshape(-1) + 1, minlength=len(Status))
    flagged = np.flatnonzero(status > Status.OK)[:FLAGGED]
    return tuple(found.tolist()), tuple(
        flat_indices(flagged, status.shape, origin, batch_shape).tolist()
    )


@dataclass
class Tally:
    """The sum of the results so far."""

    gauge: Gauge
    """What this process has taken since the job began."""
    out: str
    plan: Plan
    threads: int
    """That solve, in all processes."""
    counts: list[int] = field(default_factory=lambda: [0] * len(Status))
    flagged: list[int] = field(default_factory=list)
    failures: list[BlockFailure] = field(default_factory=list)
    sums: Sums = field(default_factory=Sums)
    solving: float = 0.0
    memory: int = 0
    worst_rcond: float = math.nan
    worst_backward_error: float = math.nan
    started: float = field(default_factory=time.perf_counter)

    def add(self, result: BlockResult) -> None:
        """Count one block in."""
        self.memory = max(self.memory, result.memory)
        if result.failure is not None:
            place = self.plan.block(result.number)
            self.failures.append(BlockFailure(result.number, place, result.failure))
            return
        self.sums = self.sums.plus(result.sums)
        self.solving += result.solving
        self.counts = [a + b for a, b in zip(self.counts, result.counts, strict=True)]
        if result.flagged:  # blocks finish in any order; the report names the first of the batch
            self.flagged = sorted({*self.flagged, *result.flagged})[:FLAGGED]
        self.worst_rcond = np.fmin(self.worst_rcond, result.worst_rcond)
        self.worst_backward_error = np.fmax(self.worst_backward_error, result.worst_backward_error)

    def report(self) -> Report:
        """The report as of now."""
        self.memory = max(self.memory, self.gauge.lately())
        seconds = time.perf_counter() - self.started
        systems = math.prod(self.plan.batch_shape)
        counts = dict(zip(Status, self.counts, strict=True))
        counts[Status.PENDING] += systems - sum(self.counts)
        return Report(
            out=self.out,
            systems=systems,
            batch_shape=self.plan.batch_shape,
            counts=counts,
            flagged=tuple(self.flagged),
            blocks=self.plan.blocks,
            **self.sums._asdict(),
            seconds=seconds,
            threads=self.threads,
            seconds_waiting=max(0.0, self.threads * seconds - self.solving),
            peak_memory=self.memory,
            worst_rcond=float(self.worst_rcond),
            worst_backward_error=float(self.worst_backward_error),
            unit=self.plan.unit,
        )
