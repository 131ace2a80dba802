"""Waits where no worker of a cluster works: says so, has lost ones started again, gives up."""

import logging
import time
from typing import Any

import dask
from dask.utils import parse_timedelta

from dasksolve.errors import counted, warn

logger = logging.getLogger(__name__)

PATIENCE = 10.0
"""Seconds without a result until it is asked whether anybody works."""
_FIRST, _NEXT, _LOCAL = 300.0, 3600.0, 60.0
"""Seconds that a worker is waited for where distributed's own setting does not say: before a job,
in the midst of it, and where this process is to start it."""
_NONE, _PAUSED, _UNFIT = "", " but paused ones", " for its tasks"
_REMEDIES = {
    _NONE: "start some (dask worker, cluster.scale)",
    _PAUSED: "release what they hold in memory, or start others",
    _UNFIT: "start some that have what dask.annotate asks for, or ask for less",
}
"""What to do where a cluster has no workers, or none but such."""
_KEPT = ". What is done is kept: resume=True (--resume) goes on with it"


class Waiting:
    """Waiting for the workers of a `distributed.Client`."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self.at = f"the scheduler at {client.scheduler.address}"
        self.lack = _NONE
        """Which workers there were none of when last seen."""
        self.seconds = 0.0
        """Since somebody worked."""

    def for_first(self) -> dict[str, int]:
        """Wait until there are workers; return the threads of each."""
        limit, began = self._limit(_FIRST), time.monotonic()
        # A warning: whoever forgot to start them may not see the log.
        warn(
            f"{self.at} has no workers yet; waiting for the first of them, up to {limit:g} s"
            f"{self._advice()}"
        )
        # An adaptive cluster starts workers for tasks alone, and keeps them while it has some.
        wanted = self.client.submit(_nothing, pure=False)
        try:
            while not (threads := self.client.nthreads()):
                if time.monotonic() - began > limit:
                    raise RuntimeError(self._in_vain(limit))
                self._restore()
                time.sleep(0.1)
        finally:
            wanted.release()
        return threads

    def for_next(self) -> None:
        """After a while without a result: say that nobody works, or stop the job."""
        lack = self._lack()
        if lack is None:
            self.over()
            return
        if lack != self.lack:
            self.lack, self.seconds = lack, 0.0
        limit = self._limit(_NEXT)
        if self.seconds > limit:
            raise RuntimeError(self.stopped(limit))
        text = f"{self.at} has no workers{lack}; waiting for some"
        # That those who are there do nothing may be so for a moment: what they did is on its way.
        first = PATIENCE if lack else 0.0
        if self.seconds > first:
            logger.warning(text)
        elif self.seconds == first:
            warn(f"{text}, up to {limit:g} s{self._advice()}")
        self.seconds += PATIENCE
        self._restore()

    def _lack(self) -> str | None:
        """Which workers there are none of; None: some work, or may, or there is nobody to ask."""
        if self.client.status != "running":
            return None
        workers = workers_of(self.client)
        # Who is paused, or to be closed, still ends the tasks that it has begun.
        if any(worker["status"] == "init" or _has_begun(worker) for worker in workers.values()):
            return None
        running = [address for address, worker in workers.items() if worker["status"] == "running"]
        if not running:
            return _PAUSED if workers else _NONE
        processed = self.client.processing()
        return None if any(processed.get(address) for address in running) else _UNFIT

    def over(self) -> None:
        """Somebody works."""
        self.lack, self.seconds = _NONE, 0.0

    def stopped(self, limit: float) -> str:
        """Why a job that had begun does not go on."""
        self.lack = self._lack() or _NONE
        return self._in_vain(limit) + _KEPT

    def _in_vain(self, limit: float) -> str:
        return (
            f"{self.at} got no worker{self.lack} within {limit:g} s; {_REMEDIES[self.lack]}, "
            "or wait longer (DASK_DISTRIBUTED__SCHEDULER__NO_WORKERS_TIMEOUT, such as 2h)"
        )

    def _limit(self, usual: float) -> float:
        setting = dask.config.get("distributed.scheduler.no-workers-timeout", None)
        if setting:
            return float(parse_timedelta(setting))
        return _LOCAL if self._local and not self.lack else usual

    @property
    def _local(self) -> Any:
        """The cluster, if its workers are processes that this one starts."""
        from distributed import LocalCluster  # imported by who made the client

        return self.client.cluster if isinstance(self.client.cluster, LocalCluster) else None

    def _advice(self) -> str:
        if self.lack:
            return f" ({_REMEDIES[self.lack]})"
        if self._local is None:
            return f" (dask worker {self.client.scheduler.address} starts one)"
        if not self._local.plan:
            return " (cluster.scale(2) starts two)"
        lost = counted(len(self._local.plan), "workers")
        return f": an interrupt, as of a cell, ends a LocalCluster's. It is to start {lost} again"

    def _restore(self) -> None:
        """Have a LocalCluster start as many workers as it is to have.

        Ctrl-C, or the interrupt of a cell, reaches all its processes, and of workers that end so no
        nanny starts another (dask/distributed#1925). The cluster forgets them after 15 s, and then
        starts others once it is asked for as many as before.
        """
        if self._local and self._local.plan and not self.lack:
            self._local.scale(len(self._local.plan))


def workers_of(client: Any) -> dict[str, Any]:
    """What the scheduler knows of each worker, by its address.

    `Client.scheduler_info` has none of them where the client asks for itself at the same time.
    """
    found: dict[str, Any] = client.sync(client.scheduler.identity)["workers"]
    return found


def _has_begun(worker: dict[str, Any]) -> bool:
    """Whether a worker said of a task that it runs, when last heard of."""
    counts = worker["metrics"].get("task_counts", {})
    return bool(counts.get("executing") or counts.get("long-running"))


def _nothing() -> None:
    """A task that needs a worker, and no more."""
