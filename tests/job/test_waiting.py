"""A cluster whose workers are gone: they are waited for, started again, or given up."""

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import dask
import pytest
from distributed import Client, LocalCluster, Status, Worker, get_worker
from stored import Stored

from dasksolve import Report, solve_zarr
from dasksolve.job.job import Job

NO_WORKERS = "distributed.scheduler.no-workers-timeout"


@pytest.fixture
def cluster() -> Iterator[LocalCluster]:
    """A cluster of one thread, which soon forgets a worker that it has lost, and pauses none."""
    settings = {
        "distributed.deploy.lost-worker-timeout": "0.1s",
        "distributed.worker.memory.pause": False,
    }
    with (
        dask.config.set(settings),
        LocalCluster(
            n_workers=1, threads_per_worker=1, processes=False, dashboard_address=":0"
        ) as cluster,
    ):
        yield cluster


def lose(cluster: LocalCluster, client: Client) -> None:
    """End its worker behind the back of a cluster, as an interrupt does."""
    cluster.sync(cluster.workers[0].close, executor_wait=False)
    while client.nthreads():
        time.sleep(0.01)


class Gate:
    """Shut, it holds up all tasks of a job but the first."""

    def __init__(self) -> None:
        self.begun = 0
        self.open = threading.Event()

    def __call__(self, job: Job) -> None:
        self.begun += 1
        if self.begun > 1:
            assert self.open.wait(240)


def losing(cluster: LocalCluster, client: Client, gate: Gate) -> Callable[[Report], None]:
    """A `progress` that does so after the first block, and lets the other tasks go on."""

    def disturb(report: Report) -> None:
        if report.blocks_done == 1:
            lose(cluster, client)
            gate.open.set()

    return disturb


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch, many_blocks: None) -> Iterator[Gate]:
    """Through it go the tasks of a job of ten."""
    gate = Gate()
    monkeypatch.setattr(Job, "begin", lambda self: gate(self))
    yield gate
    gate.open.set()


def test_a_local_cluster_whose_workers_an_interrupt_ended_has_them_again(
    batch: Stored, cluster: LocalCluster
) -> None:
    with Client(cluster, set_as_default=False) as client:
        lose(cluster, client)
        with pytest.warns(UserWarning, match="up to 60 s: an interrupt.* to start 1 worker again"):
            report = solve_zarr(batch.a_path, batch.b_path, batch.out, client=client)
    assert report.blocks_done == report.blocks


def test_workers_that_are_lost_in_the_midst_of_a_job_are_started_again(
    batch: Stored, cluster: LocalCluster, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dasksolve.job.waiting.PATIENCE", 0.2)
    with Client(cluster, set_as_default=False) as client:
        how = {"client": client, "progress": losing(cluster, client, gate)}
        with pytest.warns(UserWarning, match="no workers; waiting for some, up to 60 s: an interr"):
            report = solve_zarr(batch.a_path, batch.b_path, batch.out, **how)
    assert report.blocks_done == 10


@pytest.mark.parametrize("whose", ["client", "scheduler"])
def test_a_job_that_stays_without_workers_stops_and_may_be_resumed(
    batch: Stored, gate: Gate, monkeypatch: pytest.MonkeyPatch, whose: str
) -> None:
    settings = {NO_WORKERS: "0.5s"}
    with (
        dask.config.set(settings if whose == "scheduler" else {}),
        LocalCluster(
            n_workers=1, threads_per_worker=1, processes=False, dashboard_address=":0"
        ) as cluster,
        Client(cluster.scheduler_address, set_as_default=False) as client,
    ):
        how = {"client": client, "progress": losing(cluster, client, gate)}
        told: AbstractContextManager[object] = nullcontext()
        if whose == "client":
            monkeypatch.setattr("dasksolve.job.waiting.PATIENCE", 0.2)
            told = pytest.warns(UserWarning, match="up to 0.5 s .dask worker inproc.* starts one")
        with (
            dask.config.set(settings),
            told,
            pytest.raises(RuntimeError, match=r"got no worker within 0.5 s; .*is kept: resume=Tr"),
        ):
            solve_zarr(batch.a_path, batch.b_path, batch.out, **how)
    assert 1 <= solve_zarr(batch.a_path, batch.b_path, batch.out, resume=True).blocks_resumed < 10


@pytest.mark.parametrize(
    ("paused", "told", "given_up"),
    [
        (True, "workers but paused ones; .*release", "worker but paused ones within .*release"),
        (False, "workers for its tasks; .*start", "worker for its tasks within .*start"),
    ],
    ids=["short of memory", "without the resource"],
)
def test_workers_none_of_whom_takes_a_task_are_not_waited_for_in_silence(
    batch: Stored,
    cluster: LocalCluster,
    monkeypatch: pytest.MonkeyPatch,
    paused: bool,
    told: str,
    given_up: str,
) -> None:
    monkeypatch.setattr("dasksolve.job.waiting.PATIENCE", 0.2)

    def pause(dask_worker: Worker) -> None:
        dask_worker.status = Status.paused

    with Client(cluster, set_as_default=False) as client:
        if paused:
            client.run(pause)
        with (
            dask.config.set({NO_WORKERS: "0.5s"}),
            dask.annotate(resources={} if paused else {"GPU": 1}),
            pytest.warns(UserWarning, match=f"has no {told}"),
            pytest.raises(RuntimeError, match=f"got no {given_up}.*is kept"),
        ):
            solve_zarr(batch.a_path, batch.b_path, batch.out, client=client)


@pytest.mark.parametrize("idle", [0, 1])
def test_a_worker_that_ends_a_block_once_paused_is_waited_for(
    batch: Stored, cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch, idle: int
) -> None:
    monkeypatch.setattr("dasksolve.job.waiting.PATIENCE", 0.2)

    def pause(job: Job) -> None:
        worker = get_worker()
        known = cluster.scheduler.workers[worker.address]
        while not known.metrics["task_counts"].get("executing"):
            time.sleep(0.01)
        worker.status = Status.paused
        time.sleep(2)  # ten looks, of which four would end the job
        monkeypatch.setattr("dasksolve.job.waiting.PATIENCE", 240.0)  # what is done is on its way
        worker.status = Status.running

    monkeypatch.setattr(Job, "begin", pause)
    cluster.scale(1 + idle)
    with Client(cluster, set_as_default=False) as client, dask.config.set({NO_WORKERS: "0.5s"}):
        client.wait_for_workers(1 + idle)
        assert solve_zarr(batch.a_path, batch.b_path, batch.out, client=client).blocks_done == 1


def test_a_cluster_does_no_more_for_a_job_that_is_interrupted(
    batch: Stored, cluster: LocalCluster, gate: Gate
) -> None:
    def stop(_report: Report) -> None:
        raise KeyboardInterrupt

    def left() -> int:
        return client.run_on_scheduler(
            lambda dask_scheduler: sum("solve_block" in str(key) for key in dask_scheduler.tasks)
        )

    with Client(cluster, set_as_default=False) as client:
        with pytest.raises(KeyboardInterrupt):
            solve_zarr(batch.a_path, batch.b_path, batch.out, client=client, progress=stop)
        until = time.monotonic() + 60  # releasing is a message to the scheduler
        while count := left():
            assert time.monotonic() < until, f"{count} tasks"
        gate.open.set()
        client.submit(sum, (1, 2)).result(timeout=240)  # after what is in hand
    assert gate.begun <= 2


INTERRUPTED = """
import os, signal, sys
import dasksolve
from distributed import Client, LocalCluster

def interrupt(report):
    if report.blocks_done == 3:
        os.killpg(0, signal.SIGINT)

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    cluster = LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0")
    with cluster, Client(cluster) as client:
        try:
            dasksolve.solve_zarr(*sys.argv[1:], progress=interrupt)
        except KeyboardInterrupt:
            while client.nthreads():
                pass
        report = dasksolve.solve_zarr(*sys.argv[1:], resume=True)
        print(report.blocks_done == report.blocks, report.blocks_resumed >= 3)
        for nanny in [*cluster.workers.values()]:  # as `programs.two_workers` does
            cluster.sync(nanny.close, timeout=240)
"""


@pytest.mark.slow
def test_an_interrupted_cell_runs_again(long: Stored, tmp_path: Path) -> None:
    program = tmp_path / "cell.py"
    program.write_text(INTERRUPTED)
    run = subprocess.run(
        [sys.executable, program, long.a_path, long.b_path, long.out],
        capture_output=True,
        text=True,
        start_new_session=True,
        timeout=240,
        check=False,
    )
    assert run.stdout == "True True\n", run.stderr
    assert "has no workers yet; waiting for the first of them, up to 60 s: an inter" in run.stderr
