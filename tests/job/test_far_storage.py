"""Storage that is far away: requests overlap, whatever the number of threads that solve."""

import asyncio
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from families import same_bits
from stored import Stored
from turnstile import Together, Turnstile, gated
from zarr.storage import LocalStore, WrapperStore
from zarr.testing.store import LatencyStore

import dasksolve
from dasksolve import BlockErrors, Report, Status, check_zarr, solve_zarr
from dasksolve.batch.problem import describe
from dasksolve.job.plan import COMPILING, OVERHEAD
from dasksolve.job.planning import make_plan
from dasksolve.job.survey import survey
from dasksolve.job.systems import needs
from dasksolve.storage.layout import Layout


@pytest.mark.usefixtures("many_blocks")
def test_blocks_are_fetched_while_no_thread_is_free(batch: Stored) -> None:
    # Two threads solve; twelve requests, of six blocks, wait before the first is answered.
    turnstile = Turnstile(12)
    a, b = (gated(path, turnstile) for path in (batch.a_path, batch.b_path))
    report = solve_zarr(a, b, batch.out, workers=2)
    assert report.flagged == (123, 456, 789)
    assert same_bits(batch.x, dasksolve.solve(batch.a, batch.b, on_singular="nan"))


def test_a_and_b_of_a_block_are_asked_for_together(store: Callable[..., Stored]) -> None:
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((50, 5, 5)), rng.standard_normal((50, 5))
    stored, both = store(a, b, a.shape, b.shape), Turnstile(2)
    solve_zarr(gated(stored.a_path, both), gated(stored.b_path, both), stored.out, workers=1)
    assert same_bits(stored.x, dasksolve.solve(a, b))


@pytest.mark.usefixtures("many_blocks")
def test_a_block_that_cannot_be_fetched_disturbs_no_other(batch: Stored) -> None:
    Path(batch.a_path, "c", "3", "0", "0").unlink()
    a = gated(batch.a_path, Turnstile(6))
    with pytest.raises(BlockErrors, match="1 of 10 blocks"):
        solve_zarr(a, batch.b_path, batch.out, workers=2)
    status = zarr.open_array(batch.out + "/status")[:]
    assert (status[300:400] == -1).all()
    assert (np.delete(status, np.s_[300:400]) >= 0).all()


@pytest.mark.usefixtures("many_blocks")
def test_an_interrupted_job_finishes_what_it_has_in_hand(
    batch: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dasksolve.job.planning._IN_HAND", 4)

    def interrupt(report: Report) -> None:
        if report.blocks_done == 1:
            raise KeyboardInterrupt

    out = LatencyStore(LocalStore(batch.out))
    with pytest.raises(KeyboardInterrupt):
        solve_zarr(batch.a_path, batch.b_path, out, progress=interrupt)
    x, status = (len([*Path(batch.out, name, "c").iterdir()]) for name in ("x", "status"))
    assert x == status >= 4
    [run] = survey(batch.out).runs
    assert run["samples"][-1][1] == 100 * status
    assert solve_zarr(batch.a_path, batch.b_path, out, resume=True).blocks_resumed == status
    assert same_bits(batch.x, dasksolve.solve(batch.a, batch.b, on_singular="nan"))


class LateLooks(WrapperStore):
    """A store that answers whether a mark is there only once the last status is written."""

    def __init__(self, path: Path) -> None:
        super().__init__(LocalStore(path))
        self.looks, self.left, self.ended = 0, 10, asyncio.Event()

    async def exists(self, key: str) -> bool:
        if key.endswith(".partial"):
            self.looks += 1
            await asyncio.wait_for(self.ended.wait(), 60)
        return await super().exists(key)

    async def set(self, key: str, *arguments: Any, **options: Any) -> None:
        await super().set(key, *arguments, **options)
        self.left -= key.startswith("status/c/")
        if not self.left:
            self.ended.set()


@pytest.mark.usefixtures("many_blocks")
def test_blocks_are_written_while_the_mark_is_looked_at(
    batch: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dasksolve.storage.marks.LOOK_EVERY", 0.0)
    monkeypatch.setattr("dasksolve.storage.marks.patience", lambda _: 60.0)
    out = LateLooks(Path(batch.out))
    report = solve_zarr(batch.a_path, batch.b_path, out, workers=1)
    assert report.blocks_done == 10
    assert out.looks == 1  # of all the blocks that would have


@pytest.mark.usefixtures("many_blocks")
def test_the_arrays_of_an_output_that_is_checked_are_opened_at_the_same_time(batch: Stored) -> None:
    solve_zarr(batch.a_path, batch.b_path, batch.out, diagnostics=True)
    looks = [f"get {name}/zarr.json" for name in ("x", "rcond", "backward_error")]
    out = Together(LocalStore(batch.out, read_only=True), looks)
    assert check_zarr(batch.a_path, batch.b_path, out).flagged == (123, 456, 789)


@pytest.mark.usefixtures("many_blocks")
def test_blocks_of_a_report_are_on_their_way_together(batch: Stored) -> None:
    solve_zarr(batch.a_path, batch.b_path, batch.out)
    reads = [f"get status/c/{i}" for i in range(10)]
    found = survey(Together(LocalStore(batch.out, read_only=True), reads))
    assert found.flagged == ((123,), (456,), (789,))
    assert found.counts == survey(batch.out).counts


class Pair(WrapperStore):
    """A store that reads a chunk of x once it is asked whether that is there."""

    def __init__(self, path: Path) -> None:
        super().__init__(LocalStore(path))
        self.both = Turnstile(2)

    async def get(self, key: str, *arguments: Any, **options: Any) -> Any:
        if key.startswith("x/c/"):
            await self.both.passed()
        return await super().get(key, *arguments, **options)

    async def exists(self, key: str) -> bool:
        if key.startswith("x/c/"):
            await self.both.passed()
        return await super().exists(key)


def test_what_an_earlier_run_wrote_is_looked_for_while_it_is_read(
    store: Callable[..., Stored], tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((50, 5, 5)), rng.standard_normal((50, 5))
    stored, out = store(a, b, a.shape, b.shape), tmp_path / "out"
    solve_zarr(stored.a_path, stored.b_path, str(out))
    found = solve_zarr(stored.a_path, stored.b_path, Pair(out), resume=True)
    assert found.blocks_resumed == 1


class Asked(WrapperStore):
    """A store that knows which of its files were asked for, in turn."""

    def __init__(self, path: Path) -> None:
        super().__init__(LocalStore(path))
        self.keys: list[str] = []

    async def get(self, key: str, *arguments: Any, **options: Any) -> Any:
        self.keys.append(key)
        return await super().get(key, *arguments, **options)


@pytest.mark.usefixtures("many_blocks")
def test_a_chunk_that_is_not_there_is_asked_for_once(batch: Stored) -> None:
    solve_zarr(batch.a_path, batch.b_path, batch.out)
    for number in (3, 7):
        Path(batch.out, "status", "c", str(number)).unlink()
    out, each = Asked(Path(batch.out)), sorted(f"status/c/{i}" for i in range(10))
    assert survey(out).counts[Status.PENDING] == 200
    assert sorted(key for key in out.keys if "/c/" in key) == each
    out.keys.clear()
    assert solve_zarr(batch.a_path, batch.b_path, out, resume=True).blocks_resumed == 8
    assert sorted(key for key in out.keys if key.startswith("status/c/")) == each


@pytest.mark.usefixtures("many_blocks")
def test_what_is_deleted_far_away_while_the_job_runs_is_noticed(batch: Stored) -> None:
    def disturb(report: Report) -> None:
        if report.blocks_done == 1:
            Path(batch.out, "x/zarr.json").unlink()

    out = LatencyStore(LocalStore(batch.out))
    with pytest.raises(FileNotFoundError, match=r"was deleted while the job ran.*resume=True"):
        solve_zarr(batch.a_path, batch.b_path, out, workers=1, progress=disturb)
    solve_zarr(batch.a_path, batch.b_path, out, resume=True)
    assert same_bits(batch.x, dasksolve.solve(batch.a, batch.b, on_singular="nan"))


def planned(limit: int, **options: Any) -> Any:
    a = Layout((25_600, 8, 8), (100, 8, 8), 2, 8)
    b = Layout((25_600, 8), (100, 8), 1, 8)
    problem = describe(a.shape, np.dtype(float), b.shape, np.dtype(float))
    return make_plan(needs(problem, a, b), memory_limit=limit, workers=2, **options)


@pytest.mark.usefixtures("many_blocks")
def test_the_memory_limit_decides_how_many_are_in_hand() -> None:
    assert planned(1 << 30).in_hand == 2
    assert planned(1 << 30, far=True).in_hand == 256
    each = planned(1 << 30, far=True).block_memory
    tight = planned(OVERHEAD + COMPILING + 11 * each, far=True)
    assert (tight.in_hand, tight.workers) == (10, 2)
    assert tight.memory <= tight.memory_limit
    assert "10 in hand" in str(tight)


@pytest.mark.usefixtures("many_blocks")
def test_a_task_of_a_cluster_holds_as_many_as_are_in_hand() -> None:
    plan = planned(1 << 30, far=True, processes=2, task_cost=3000, fixed_workers=True)
    assert plan.in_hand == 128  # of 256 blocks
    assert plan.together == plan.in_hand // plan.workers
    tight = OVERHEAD + COMPILING + 4 * plan.block_memory
    plan = planned(tight, far=True, processes=2, task_cost=3000, fixed_workers=True)
    assert plan.in_hand == 4
    assert plan.together >= 4 * plan.in_hand // plan.workers
    assert plan.blocks // plan.together >= 2 * plan.workers * 2


_MEASURED = """
import sys
from pathlib import Path
import psutil, zarr, dasksolve
from zarr.storage import LocalStore
from zarr.testing.store import LatencyStore

folder, limit = Path(sys.argv[1]), int(sys.argv[2])
a, b = (
    zarr.open_array(LatencyStore(store, get_latency=0.2), mode="r")
    for store in (LocalStore(folder / name, read_only=True) for name in "ab")
)
before = psutil.Process().memory_info().rss
dasksolve.solve_zarr(a, b, folder / "out", memory_limit=limit)
lines = open("/proc/self/status").read().splitlines()
print((next(int(n.split()[1]) << 10 for n in lines if n.startswith("VmHWM")) - before) >> 20)
"""


@pytest.mark.slow
@pytest.mark.parametrize("limit", [256, 1024])
def test_reading_ahead_keeps_the_memory_limit(tmp_path: Path, limit: int) -> None:
    rng = np.random.default_rng(0)
    a = zarr.create_array(tmp_path / "a", shape=(64 * 8192, 8, 8), chunks=(8192, 8, 8), dtype="f8")
    b = zarr.create_array(tmp_path / "b", shape=(64 * 8192, 8), chunks=(8192, 8), dtype="f8")
    some, right = rng.standard_normal((8192, 8, 8)), rng.standard_normal((8192, 8))
    for i in range(64):
        place = slice(i * 8192, (i + 1) * 8192)
        a[place], b[place] = some, right
    run = subprocess.run(
        [sys.executable, "-c", _MEASURED, tmp_path, str(limit << 20)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(run.stdout) <= limit
