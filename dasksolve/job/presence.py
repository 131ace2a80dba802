"""What a process knows of each job that it works at, until that ends."""

import asyncio
import math
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from threading import Lock, Semaphore
from typing import Any

from dasksolve.job.memory import Gauge
from dasksolve.storage import buffers


@dataclass(eq=False)
class Presence:
    """What this process knows of one job."""

    gauge: Gauge = field(default_factory=Gauge)
    """What it has taken since."""
    met: bool = False
    """It sees what the process sees that started the job."""
    meeting: Lock = field(default_factory=Lock)
    """Whoever looks whether it does."""
    saw_mark: float = -math.inf
    """When it last saw the mark of the job."""
    look: asyncio.Future[None] | None = None
    """The look for the mark that is on its way."""
    all_ok: dict[tuple[int, ...], Any] = field(default_factory=dict)
    """Status of blocks without a flaw, as it is stored, by their shape."""
    may_write: dict[str, str] = field(default_factory=dict)
    """The folder of each array of the output that was last found to be one that it may write to."""
    refused: bool = False
    """A block could not be written, for what no other could be, either."""
    first_done: int | None = None
    """The first block that it has done."""
    seats: dict[str, Semaphore] = field(default_factory=dict)
    """For the tasks of each worker that may be at work at once: as many as was planned."""


_present: dict[str, Presence] = {}
_lock = Lock()


def of(token: str) -> Presence:
    """What this process knows of a job; it begins with it if it has not yet."""
    with _lock:
        if token not in _present:
            _present[token] = Presence()
        return _present[token]


def seat(token: str, workers: int) -> Semaphore:
    """A seat for a task: a worker that came after the job was planned may have more threads."""
    here, worker = of(token), _worker()
    with here.meeting:
        return here.seats.setdefault(worker, Semaphore(workers))


def _worker() -> str:
    """Which worker of a cluster runs this task, of several in a process; "": none."""
    if "distributed" in sys.modules:
        from distributed import get_worker

        with suppress(ValueError):  # this is no task of a cluster
            return str(get_worker().address)
    return ""


def forget(token: str) -> None:
    """The job has ended."""
    with _lock:
        _present.pop(token, None)


@contextmanager
def begun() -> Iterator[str]:
    """Begin with a new job, which its token stands for, and forget it in the end."""
    token = uuid.uuid4().hex[:8]
    of(token)
    try:
        yield token
    finally:
        buffers.free_all()  # of a job that was stopped, too
        forget(token)
