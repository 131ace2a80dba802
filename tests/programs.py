"""Dask clusters of processes: programs over TCP, as people start them, and two of this machine."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from distributed import Client, LocalCluster

Program = subprocess.Popen[bytes]


class Programs:
    """`dask scheduler` and `dask worker`, each a process of its own, on the loopback."""

    def __init__(self, folder: Path, **configuration: str) -> None:
        self.folder = folder
        self.environment = {**os.environ, **configuration}
        self.workers: list[Program] = []
        self.log = (folder / "log").open("wb")
        self.scheduler, self.address = self._scheduler()
        self.client = Client(self.address, timeout="240s", set_as_default=False)

    def __enter__(self) -> "Programs":
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()
        for process in (*self.workers, self.scheduler):
            kill(process)
        self.log.close()

    def _dask(
        self, *words: str, hiding: Path | None = None, sealing: Path | None = None
    ) -> Program:
        command = [sys.executable, "-m", "dask", *words]
        script = f"exec {shlex.join(command)}"
        if hiding is not None:  # as another machine would, it finds an empty folder there
            script = f"mount -t tmpfs tmpfs {hiding} && {script}"
        if sealing is not None:  # as another user would, it finds one that it may only read
            sealed = f"mount --bind {sealing} {sealing} && mount -o remount,bind,ro {sealing}"
            script = f"{sealed} && {script}"
        if hiding or sealing:
            command = ["unshare", "--mount", "sh", "-c", script]
        return subprocess.Popen(
            command,
            env=self.environment,
            cwd=self.folder,
            stdout=self.log,
            stderr=self.log,
            start_new_session=True,  # a nanny, and the worker that it watches over
        )

    def _scheduler(self) -> tuple[Program, str]:
        found = self.folder / "scheduler.json"
        words = ["--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--no-show"]
        process = self._dask("scheduler", *words, "--scheduler-file", str(found))
        while True:
            assert process.poll() is None, "the scheduler ended"
            with suppress(FileNotFoundError, ValueError):  # not there, or not all of it
                return process, json.loads(found.read_text())["address"]
            time.sleep(0.01)

    def worker(self, *words: str, **elsewhere: Path) -> Program:
        """Start a worker of one thread, and wait until the scheduler knows it."""
        before = len(self.client.nthreads())
        known = ["worker", self.address, "--nthreads", "1", "--no-dashboard"]
        process = self._dask(*known, *words, **elsewhere)
        self.workers.append(process)
        self.client.wait_for_workers(before + 1, timeout=240)
        return process

    def kill_worker(self, process: Program) -> None:
        """SIGKILL a worker, and wait until the scheduler has noticed."""
        before = len(self.client.nthreads())
        kill(process)
        self.workers.remove(process)
        while len(self.client.nthreads()) >= before:
            os.sched_yield()


@contextmanager
def two_workers() -> Iterator[Client]:
    """A client of two processes of this machine, which are given the time that they take to end."""
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client
        # A cluster kills them after four seconds, and the oldest fails where that takes another.
        for nanny in [*cluster.workers.values()]:
            cluster.sync(nanny.close, timeout=240)


def kill(process: Program) -> None:
    """SIGKILL a program and all that it started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
