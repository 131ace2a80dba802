"""The same job on threads and on a cluster."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from operator import attrgetter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dask
import dask.array as da
import numpy as np
import obstore.store
import pytest
import zarr
from dask.callbacks import Callback
from distributed import Client, LocalCluster, as_completed, get_client
from families import same_bits
from programs import two_workers
from stored import Stored, files
from zarr.storage import LoggingStore, MemoryStore, ObjectStore, WrapperStore

import dasksolve
from dasksolve import BlockErrors, Report, check_zarr, solve_zarr
from dasksolve.job import presence
from dasksolve.job.cluster import Cluster
from dasksolve.job.schedulers import Threads, choose
from dasksolve.job.tasks import graph_of


def test_distributed_still_has_what_its_documents_do_not_name(two_processes: Client) -> None:
    completed = as_completed(loop=two_processes.loop)
    for place in ("thread_condition.wait", "has_ready"):
        assert callable(attrgetter(place)(completed)), f"mend `_next` in job/cluster.py: {place}"
    assert two_processes.scheduler.address.startswith("tcp://")


@pytest.fixture
def fast_switches() -> Iterator[None]:
    """Threads that take turns a hundred times as often, so that what can race does."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(interval / 100)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.usefixtures("many_blocks")
def test_numpy_threads_and_processes_write_the_same_bytes(
    batch: Stored, two_processes: Client
) -> None:
    solve_zarr(batch.a_path, batch.b_path, batch.out, workers=2)
    on_threads = files(batch.out)
    report = solve_zarr(batch.a_path, batch.b_path, batch.out, overwrite=True, client=two_processes)
    assert report.blocks_done == report.blocks == 10
    assert report.flagged == (123, 456, 789)
    assert 0 < report.peak_memory < 256 << 20
    assert files(batch.out) == on_threads
    assert same_bits(batch.x, dasksolve.solve(batch.a, batch.b, on_singular="nan"))


@pytest.mark.usefixtures("many_blocks")
def test_a_cluster_works_in_windows_and_frees_what_it_returned(
    batch: Stored, two_processes: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dasksolve.job.run.WINDOW", 3)
    monkeypatch.setattr("dasksolve.job.cluster.WINDOW", 3)

    def tasks() -> set[str]:
        return two_processes.run_on_scheduler(
            lambda dask_scheduler: set(map(str, dask_scheduler.tasks))
        )

    before = tasks()
    report = solve_zarr(batch.a_path, batch.b_path, batch.out, client=two_processes)
    assert report.blocks_done == 10
    until = time.monotonic() + 60  # releasing is a message to the scheduler
    while left := tasks() - before:
        assert time.monotonic() < until, left


@pytest.mark.usefixtures("many_blocks")
def test_a_task_may_work_off_several_blocks(
    batch: Stored, two_processes: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    solve_zarr(batch.a_path, batch.b_path, batch.out)
    on_threads = files(batch.out)
    monkeypatch.setattr("dasksolve.job.planning._together", lambda *_: 3)
    done: list[int] = []
    report = solve_zarr(
        batch.a_path,
        batch.b_path,
        batch.out,
        overwrite=True,
        client=two_processes,
        progress=lambda report: done.append(report.blocks_done),
    )
    assert done == list(range(1, 11))
    assert report.flagged == (123, 456, 789)
    assert files(batch.out) == on_threads


@pytest.mark.usefixtures("many_blocks", "fast_switches")
def test_two_jobs_at_once_keep_their_results_apart(batch: Stored, tmp_path: Path) -> None:
    bad = tmp_path / "bad"
    zarr.create_array(bad, data=batch.a, chunks=(100, 5, 5))
    for i in (1, 3):
        (bad / f"c/{i}/0/0").write_bytes(b"damaged")
    together = threading.Barrier(2)

    def solve(a: str | Path, out: str) -> Report:
        together.wait()
        return solve_zarr(a, batch.b_path, out, workers=2)

    for attempt in range(5):
        outs = [f"{tmp_path}/{name}{attempt}" for name in ("good", "bad")]
        with ThreadPoolExecutor(2) as pool:
            good, failing = pool.map(pool.submit, (solve, solve), (batch.a_path, bad), outs)
        assert good.result().blocks_done == 10
        assert good.result().flagged == (123, 456, 789)
        with pytest.raises(BlockErrors) as info:
            failing.result()
        assert [failure.block for failure in info.value.failures] == [1, 3]
        assert info.value.report.blocks_done == 8


@pytest.mark.usefixtures("many_blocks", "fast_switches")
def test_a_computation_of_another_thread_and_a_job_do_not_see_each_other(batch: Stored) -> None:
    done = threading.Event()
    total = da.ones(40, chunks=10).sum()

    def compute() -> set[float]:
        found = set()
        while not done.is_set():
            found.add(float(total.compute()))
        return found

    tasks: list[Any] = []
    with (
        Callback(pretask=lambda key, *_: tasks.append(key)),
        ThreadPoolExecutor(1) as pool,
    ):
        other = pool.submit(compute)
        try:
            for _ in range(5):
                report = solve_zarr(batch.a_path, batch.b_path, batch.out, overwrite=True)
                assert report.blocks_done == 10
                assert report.flagged == (123, 456, 789)
        finally:
            done.set()
        assert other.result() == {40.0}
    assert not any("solve_block" in str(key) for key in tasks)


def test_a_job_in_a_thread_leaves_the_filters_of_warnings_alone(batch: Stored) -> None:
    before = list(warnings.filters)
    together = threading.Barrier(2)

    def solve(out: str) -> None:
        together.wait()
        solve_zarr(batch.a_path, batch.b_path, out)

    for attempt in range(3):
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(solve, [f"{batch.out}{attempt}{i}" for i in range(2)]))
    assert warnings.filters == before


IMPORTING = """
import threading
import dask.array as da
from dasksolve.job.schedulers import choose

computing = threading.Thread(target=da.ones(4, chunks=1).sum().compute)
computing.start()
while computing.is_alive():
    assert str(choose(None, 1)) == "1 thread"
    computing.join(0.01)
"""


@pytest.mark.slow
def test_another_thread_may_be_importing_distributed() -> None:
    for _ in range(3):
        run = subprocess.run(
            [sys.executable, "-c", IMPORTING], capture_output=True, text=True, check=False
        )
        assert (run.stdout, run.stderr) == ("", "")


def test_the_current_client_is_used_if_there_is_one() -> None:
    assert isinstance(choose(None, None), Threads)
    with (
        LocalCluster(
            n_workers=1, threads_per_worker=1, processes=False, dashboard_address=":0"
        ) as cluster,
        Client(cluster) as client,
    ):
        chosen = choose(None, None)
        assert isinstance(chosen, Cluster)
        assert chosen.client is client
    assert isinstance(choose(None, None), Threads)


def test_the_number_of_threads_is_dask_s_unless_it_is_given() -> None:
    with dask.config.set(num_workers=1):
        assert str(choose(None, None)) == "1 thread"
        assert str(choose(None, 3)) == "3 threads"


@pytest.mark.parametrize(("together", "do"), [(2, True), (3, False)])
def test_a_worker_with_more_threads_than_planned_has_no_more_blocks_in_hand(
    together: int, do: bool
) -> None:
    meeting = threading.Barrier(together)

    async def meet(_job: Any, _number: int, _space: Any) -> bool:
        try:
            meeting.wait(60 if do else 0.2)
        except threading.BrokenBarrierError:
            return False
        return True

    plan = SimpleNamespace(workers=2, in_hand=2, together=1, threads=1)
    with presence.begun() as token, ThreadPoolExecutor(6) as pool:
        job = SimpleNamespace(token=token, task="meet", plan=plan, far=False, begin=lambda: None)
        met = graph_of(meet, job, range(6)).compute(scheduler="threads", pool=pool)
    assert met.tolist() == [do] * 6


@pytest.mark.parametrize(
    "store",
    [
        MemoryStore,
        lambda: WrapperStore(LoggingStore(MemoryStore())),
        lambda: ObjectStore(obstore.store.MemoryStore()),
    ],
    ids=["zarr", "wrapped", "obstore"],
)
def test_memory_that_workers_cannot_see_is_refused(
    two_processes: Client, batch: Stored, tmp_path: Path, store: Callable[[], Any]
) -> None:
    a = zarr.create_array(store(), data=np.eye(3) + np.zeros((9, 3, 3)))
    with pytest.raises(ValueError, match="in the memory of this process"):
        solve_zarr(a, a, tmp_path / "out", client=two_processes)
    assert not (tmp_path / "out").exists()
    with pytest.raises(ValueError, match="in the memory of this process"):
        solve_zarr(batch.a_path, batch.b_path, store(), client=two_processes)


def test_workers_that_would_find_other_bits_than_the_journal_says_are_refused(
    two_processes: Client, batch: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dasksolve.kernels.ARITHMETIC", "another")
    message = "process .* computes with arithmetic .*, the one that started the job with another"
    with pytest.raises(OSError, match=f"tcp:.*{message}"):
        solve_zarr(batch.a_path, batch.b_path, batch.out, client=two_processes)
    assert not Path(batch.out).exists()
    solve_zarr(batch.a_path, batch.b_path, batch.out)
    with pytest.raises(BlockErrors, match=f"RuntimeError: {message}"):
        check_zarr(batch.a_path, batch.b_path, batch.out, client=two_processes)


def test_a_cluster_that_gets_no_worker_is_refused_after_a_while(batch: Stored) -> None:
    with (
        LocalCluster(n_workers=0, processes=False, dashboard_address=":0") as cluster,
        Client(cluster, set_as_default=False) as client,
        dask.config.set({"distributed.scheduler.no-workers-timeout": "0.2s"}),
        pytest.warns(UserWarning, match=r"no workers yet; waiting for the first .* up to 0.2 s"),
        pytest.raises(RuntimeError, match=r"got no worker within 0.2 s; start some"),
    ):
        solve_zarr(batch.a_path, batch.b_path, batch.out, client=client)
    assert not Path(batch.out).exists()


def test_an_adaptive_cluster_begins_without_workers(batch: Stored) -> None:
    with (
        LocalCluster(
            n_workers=0, threads_per_worker=1, processes=False, dashboard_address=":0"
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        cluster.adapt(minimum=0, maximum=1, interval="10ms")
        with pytest.warns(UserWarning, match="no workers yet; waiting for the first") as caught:
            report = solve_zarr(batch.a_path, batch.b_path, batch.out, client=client)
    own = [warning for warning in caught if "no workers yet" in str(warning.message)]
    assert [warning.filename for warning in own] == [__file__]
    assert report.blocks_done == report.blocks
    assert report.flagged == (123, 456, 789)


@pytest.mark.usefixtures("many_blocks")
@pytest.mark.parametrize("named", [False, True], ids=["current client", "client="])
def test_a_job_in_a_task_leaves_its_thread_to_the_blocks(batch: Stored, named: bool) -> None:
    def solve() -> tuple[int, int]:
        chosen = {"client": get_client()} if named else {}
        report = solve_zarr(batch.a_path, batch.b_path, batch.out, **chosen)
        checked = check_zarr(batch.a_path, batch.b_path, batch.out, **chosen)
        return report.blocks_done, checked.blocks_done

    with (
        LocalCluster(
            n_workers=1, threads_per_worker=1, processes=False, dashboard_address=":0"
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        assert client.submit(solve, pure=False).result(timeout=240) == (10, 10)
        assert client.submit(sum, (1, 2)).result(timeout=240) == 3  # its thread came back


def closed_client() -> Client:
    with Client(processes=False, n_workers=1, dashboard_address=":0") as client:
        return client


@pytest.mark.parametrize(
    ("client", "error", "message"),
    [
        pytest.param(lambda: "tcp://127.0.0.1:8786", TypeError, "is a str; give Client", id="URL"),
        pytest.param(closed_client, ConnectionError, "is closed; give one", id="closed"),
    ],
)
def test_what_is_no_open_client_is_refused(
    batch: Stored, client: Callable[[], Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        solve_zarr(batch.a_path, batch.b_path, batch.out, client=client())
    assert not Path(batch.out).exists()


def closing(batch: Stored) -> Report:
    """What a job reports whose client is closed after its first block."""
    # Of a client that is the default, to close it twice, as `with` does, leaves dask without one.
    with Client(
        processes=False, n_workers=1, dashboard_address=":0", set_as_default=False
    ) as client:

        def close(_: Report) -> None:
            client.close()

        return solve_zarr(batch.a_path, batch.b_path, batch.out, client=client, progress=close)


@pytest.mark.usefixtures("many_blocks", "small_windows")
def test_a_job_whose_client_is_closed_says_how_to_go_on(batch: Stored) -> None:
    with pytest.raises(ConnectionError, match=r"client of inproc:.* was closed\. .*--resume"):
        closing(batch)
    assert solve_zarr(batch.a_path, batch.b_path, batch.out, resume=True).blocks_resumed


def test_a_client_may_be_closed_when_all_is_done(batch: Stored) -> None:
    assert closing(batch).blocks_done == 1


def test_a_default_client_that_is_not_connected_may_be_closed(batch: Stored) -> None:
    async def solve() -> Report:
        nobody = Client("tcp://127.0.0.1:1", asynchronous=True, timeout="60s")
        with pytest.raises(ConnectionError, match=r"is connecting; give one .*, or close this one"):
            await asyncio.to_thread(solve_zarr, batch.a_path, batch.b_path, batch.out)
        await nobody.close()
        return await asyncio.to_thread(solve_zarr, batch.a_path, batch.b_path, batch.out)

    with ThreadPoolExecutor(1) as pool:  # asyncio.run takes the event loop of its thread
        assert pool.submit(asyncio.run, solve()).result().blocks_done


def test_an_asynchronous_client_works_from_a_thread(batch: Stored) -> None:
    async def solve() -> Report:
        cluster = LocalCluster(
            n_workers=1, processes=False, dashboard_address=":0", asynchronous=True
        )
        async with cluster, Client(cluster, asynchronous=True):
            with pytest.raises(RuntimeError, match=r"would block the event loop .*to_thread"):
                solve_zarr(batch.a_path, batch.b_path, batch.out)
            return await asyncio.to_thread(solve_zarr, batch.a_path, batch.b_path, batch.out)

    with ThreadPoolExecutor(1) as pool:  # asyncio.run takes the event loop of its thread
        assert pool.submit(asyncio.run, solve()).result(240).flagged == (123, 456, 789)


@pytest.mark.slow
@pytest.mark.usefixtures("many_blocks")
def test_a_worker_that_is_killed_loses_nothing(
    batch: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    solve_zarr(batch.a_path, batch.b_path, batch.out)
    undisturbed = files(batch.out)
    with two_workers() as client:
        victim = next(iter(client.run(os.getpid).values()))
        killed = []

        def kill(_report: dasksolve.Report) -> None:
            if not killed:
                killed.append(os.kill(victim, signal.SIGKILL))

        report = solve_zarr(
            batch.a_path, batch.b_path, batch.out, client=client, overwrite=True, progress=kill
        )
    assert killed
    assert report.blocks_done == 10
    assert files(batch.out) == undisturbed
