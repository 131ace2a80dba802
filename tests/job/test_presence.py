"""What a process keeps of jobs that have ended: nothing."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from distributed import Client
from stored import Stored

import dasksolve
from dasksolve.errors import BlockErrors
from dasksolve.storage import buffers


def kept() -> dict[str, int]:
    """How many entries each collection of dasksolve's modules and classes has, and each cache."""
    found = {}
    for name, module in sys.modules.copy().items():
        if name.partition(".")[0] != "dasksolve":
            continue
        for owner in [module, *(v for v in vars(module).values() if isinstance(v, type))]:
            for key, value in vars(owner).copy().items():
                place = f"{getattr(owner, '__qualname__', name)}.{key}"
                if isinstance(value, dict | set | list) and not key.startswith("__"):
                    found[place] = len(value)
                elif hasattr(value, "cache_info"):
                    found[place] = value.cache_info().currsize
    return found


def grown(before: dict[str, int], after: dict[str, int], by: int = 1) -> dict[str, int]:
    """What has so many entries more, with their number."""
    return {
        place: n - before.get(place, 0)
        for place, n in after.items()
        if n >= before.get(place, 0) + by
    }


@pytest.fixture
def small(store: Callable[..., Stored]) -> Stored:
    """Two blocks of four systems."""
    rng = np.random.default_rng(0)
    return store(rng.standard_normal((8, 3, 3)), np.ones((8, 3)), (4, 3, 3), (4, 3))


def solve(small: Stored, **options: object) -> None:
    dasksolve.solve_zarr(small.a_path, small.b_path, small.out, durable=False, **options)


def ends_of_jobs(small: Stored) -> None:
    """A job that is done, one that is refused, one that is stopped, one that fails, a check."""

    def stop(report: object) -> None:
        raise KeyboardInterrupt

    solve(small, overwrite=True)
    with pytest.raises(FileExistsError, match="overwrite"):
        solve(small)
    with pytest.raises(KeyboardInterrupt):
        solve(small, overwrite=True, progress=stop)
    Path(small.b_path, "c", "1", "0").rename(small.out + ".kept")
    with pytest.raises(BlockErrors, match="1 of 2 blocks"):
        solve(small, overwrite=True)
    Path(small.out + ".kept").rename(Path(small.b_path, "c", "1", "0"))
    solve(small, resume=True)
    dasksolve.check_zarr(small.a_path, small.b_path, small.out)


@pytest.mark.usefixtures("many_blocks")
def test_jobs_leave_nothing_behind_however_they_end(small: Stored) -> None:
    ends_of_jobs(small)
    before = kept()
    for _ in range(5):
        ends_of_jobs(small)
    assert grown(before, kept()) == {}


def test_a_job_that_is_stopped_keeps_no_memory(small: Stored) -> None:
    def stop(report: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        solve(small, progress=stop)
    assert [*buffers._idle, *buffers._loops] == []


@pytest.mark.slow
def test_a_hundred_jobs_leave_nothing_behind_on_workers(
    small: Stored, two_processes: Client
) -> None:
    def everywhere() -> list[dict[str, int]]:
        return [kept(), *two_processes.run(kept).values()]

    solve(small, client=two_processes)
    before = everywhere()
    for _ in range(100):
        solve(small, client=two_processes, overwrite=True)
    # Which worker is the first to do what fills a cache is chance, so a few entries may be new.
    assert [grown(*both, by=10) for both in zip(before, everywhere(), strict=True)] == [{}, {}, {}]


@pytest.mark.slow
def test_a_job_counts_nothing_that_dask_is_made_of(batch: Stored, tmp_path: Path) -> None:
    # pandas and SciPy, which come with dask.array, take 62 MiB; a kernel and numba 54 at most.
    program = (
        "import sys, dasksolve\n"
        "report = dasksolve.solve_zarr(*sys.argv[1:], overwrite=True, memory_limit='80MiB')\n"
        "print(report.peak_memory)"
    )
    command = [sys.executable, "-c", program, batch.a_path, batch.b_path, batch.out]
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "cache")}  # nobody else's
    for _ in range(2):  # the first has to compile, which takes more than such a limit
        run = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert run.stderr == ""
    assert int(run.stdout) <= 80 << 20
