"""Waits for workers where a cluster has none: says so, has lost ones started again, gives up."""

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
_KEPT = ". What is done is kept: resume=True (--resume) goes on with it"


class Waiting:
    """Waiting for the workers of a `distributed.Client`."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self.at = f"the scheduler at {client.scheduler.address}"
        self.seconds = 0.0
        """Since there were workers."""

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
        """After a while without a result: say that there are no workers, or stop the job."""
        if self.client.status != "running" or self.client.nthreads():
            self.seconds = 0.0
            return
        limit = self._limit(_NEXT)
        if self.seconds > limit:
            raise RuntimeError(self.stopped(limit))
        text = f"{self.at} has no workers; waiting for some"
        if self.seconds:
            logger.warning(text)
        else:
            warn(f"{text}, up to {limit:g} s{self._advice()}")
        self.seconds += PATIENCE
        self._restore()

    def stopped(self, limit: float) -> str:
        """Why a job that had begun does not go on."""
        return self._in_vain(limit) + _KEPT

    def _in_vain(self, limit: float) -> str:
        return (
            f"{self.at} got no worker within {limit:g} s; start some (dask worker, cluster.scale), "
            "or wait longer (DASK_DISTRIBUTED__SCHEDULER__NO_WORKERS_TIMEOUT, such as 2h)"
        )

    def _limit(self, usual: float) -> float:
        setting = dask.config.get("distributed.scheduler.no-workers-timeout", None)
        if setting:
            return float(parse_timedelta(setting))
        return _LOCAL if self._local else usual

    @property
    def _local(self) -> Any:
        """The cluster, if its workers are processes that this one starts."""
        from distributed import LocalCluster  # imported by who made the client

        return self.client.cluster if isinstance(self.client.cluster, LocalCluster) else None

    def _advice(self) -> str:
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
        if self._local and self._local.plan:
            self._local.scale(len(self._local.plan))


def _nothing() -> None:
    """A task that needs a worker, and no more."""
