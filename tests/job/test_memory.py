"""What a job adds to a process stays under its memory limit, compiling included."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from dasksolve import solve_zarr
from dasksolve.job.memory import resident

MIB = 1 << 20

_MEASURED = """
import json, os, sys
import psutil
import dasksolve
from distributed import Client, LocalCluster

def resident():
    import dasksolve
    dasksolve.solve_zarr  # which is imported once it is asked for
    return psutil.Process().memory_info().rss

def peak():
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM"))

def main(folder, out, limit, processes):
    series = os.path.exists(folder + "/y")
    job = dasksolve.regress_zarr if series else dasksolve.solve_zarr
    paths = folder + ("/y" if series else "/a"), folder + ("/design.npy" if series else "/b"), out
    if not processes:
        before = resident()
        report = job(*paths, memory_limit=limit)
        return report.to_dict(), peak() - before
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster,
        Client(cluster) as client,
    ):
        before = client.run(resident)
        report = job(*paths, memory_limit=limit, client=client)
        after = client.run(peak)
        for nanny in [*cluster.workers.values()]:  # as `programs.two_workers` does
            cluster.sync(nanny.close, timeout=240)
        return report.to_dict(), max(after[name] - before[name] for name in after)

if __name__ == "__main__":
    try:
        print(json.dumps(main(*sys.argv[1:3], int(sys.argv[3]), sys.argv[4] == "processes")))
    except ValueError as error:
        print(json.dumps((str(error), None)))
"""


def measured(folder: Path, tmp_path: Path, limit: int, where: str = "threads") -> tuple[Any, int]:
    """Run a job in a fresh process without a cached kernel; return its report and what it added."""
    script = tmp_path / "measured.py"
    script.write_text(_MEASURED)
    run = subprocess.run(
        [sys.executable, script, folder, tmp_path / "out", str(limit), where],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "cache")},
    )
    print(run.stderr)  # a kernel that is compiled in the job's own memory is told there
    report, added = json.loads(run.stdout)
    return report, added


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A batch of at least four chunks of so many bytes, which do not compress; made once."""

    @cache
    def create(n: int, chunk: int, sharded: bool = False, packed: bool = False) -> Path:
        step = chunk // ((2 if packed else 8) * n * n)
        systems = step * max(4, 64 * MIB // chunk)
        folder = tmp_path_factory.mktemp("data")
        rng = np.random.default_rng(n)
        for name, core in (("a", (n, n)), ("b", (n,))):
            array = zarr.create_array(
                folder / name,
                shape=(systems, *core),
                chunks=(step, *core),
                shards=(4 * step, *core) if sharded else None,
                dtype="i2" if packed else "f8",
                attributes={"scale_factor": 1e-4, "_FillValue": -32768} if packed else {},
            )
            values = rng.standard_normal((4 * step, *core))
            if packed:
                values = np.round(1e4 * values.clip(-3, 3)).astype("i2")
            for start in range(0, systems, 4 * step):
                array[start : start + 4 * step] = values
        return folder

    return create


def assert_under(folder: Path, tmp_path: Path, limit: int, where: str = "threads") -> None:
    report, added = measured(folder, tmp_path, limit, where)
    assert report["blocks_done"] == report["blocks"]
    assert added <= limit
    assert abs(added - report["peak_memory"]) < 4 * MIB
    print(f"{added / MIB:.0f} MiB of {limit / MIB:.0f}")


@pytest.mark.slow
def test_a_process_of_its_own_stays_under_its_memory_limit(
    stored: Callable[..., Path], tmp_path: Path
) -> None:
    assert_under(stored(8, MIB), tmp_path, 128 * MIB)


@pytest.mark.slow
@pytest.mark.parametrize("limit", [128, 256, 1024])
@pytest.mark.parametrize("chunk", [1, 16, 128])
@pytest.mark.parametrize("n", [3, 32, 200])
def test_every_chunk_under_every_limit(
    stored: Callable[..., Path], tmp_path: Path, n: int, chunk: int, limit: int
) -> None:
    folder = stored(n, chunk * MIB)
    if chunk < limit / 2:  # a chunk is there twice: as stored, and as numbers
        assert_under(folder, tmp_path, limit * MIB)
    else:
        message, _ = measured(folder, tmp_path, limit * MIB)
        assert re.search(r"is too small.*MiB of a, .*needs.*in all.*rechunk\(", message)


@pytest.mark.slow
@pytest.mark.parametrize("limit", [128, 256])
@pytest.mark.parametrize("n", [3, 32, 200])
def test_every_worker_process_stays_under_the_limit(
    stored: Callable[..., Path], tmp_path: Path, n: int, limit: int
) -> None:
    assert_under(stored(n, 16 * MIB), tmp_path, limit * MIB, "processes")


@pytest.mark.slow
def test_shards_are_read_under_the_limit(stored: Callable[..., Path], tmp_path: Path) -> None:
    assert_under(stored(8, MIB, sharded=True), tmp_path, 128 * MIB)


@pytest.mark.slow
@pytest.mark.parametrize("sharded", [False, True], ids=["chunks", "shards"])
@pytest.mark.parametrize("chunk", [1, 4, 8])
def test_packed_numbers_are_unpacked_under_the_limit(
    stored: Callable[..., Path], tmp_path: Path, chunk: int, sharded: bool
) -> None:
    assert_under(stored(8, chunk * MIB, sharded, packed=True), tmp_path, 200 * MIB)


@pytest.mark.slow
@pytest.mark.usefixtures("many_blocks")
def test_memory_is_flat_from_the_first_block_to_the_last(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name, core in (("a", (2, 2)), ("b", (2,))):
        values = rng.standard_normal((3000, *core))
        zarr.create_array(tmp_path / name, data=values, chunks=(1, *core))
    held: list[int] = []
    solve_zarr(
        tmp_path / "a",
        tmp_path / "b",
        tmp_path / "out",
        progress=lambda report: held.append(resident()),
    )
    grown = held[-1] - held[999]
    assert grown < 2 * MIB, f"{grown} bytes in 2,000 blocks"


def stack(folder: Path, chunks: tuple[int, ...], dtype: str, careful: bool) -> None:
    """Series of 120 observations, 256 MiB of them, which compress badly."""
    rng, (p, *image) = np.random.default_rng(0), (120, 512, 2**28 // 120 // 512 // 8)
    y = zarr.create_array(
        folder / "y",
        shape=(p, *image),
        chunks=chunks,
        dtype=dtype,
        attributes={"scale_factor": 1e-4, "_FillValue": -32768} if dtype == "i2" else {},
    )
    for start in range(0, p, 20):
        values = 1 + rng.random((20, *image))
        if careful and start > 0:  # all series are fitted with care, to the same observations
            values[:, :, :] = np.nan
        packed = np.where(np.isnan(values), -32768, np.round(1e4 * values))
        y[start : start + 20] = packed.astype(dtype) if dtype == "i2" else values
    times = np.linspace(-1, 1, p)
    np.save(folder / "design.npy", np.stack([times**k for k in range(6)], axis=1))


@pytest.mark.slow
@pytest.mark.parametrize("careful", [False, True])
@pytest.mark.parametrize(
    ("chunks", "dtype"),
    [
        pytest.param((120, 32, 64), "f8", id="series"),
        pytest.param((1, 512, 546), "f4", id="steps"),
        pytest.param((1, 512, 546), "i2", id="packed steps"),
        pytest.param((20, 64, 64), "i2", id="packed, chunked every way"),
    ],
)
@pytest.mark.parametrize("limit", [128, 256])
def test_regressions_stay_under_the_limit(
    tmp_path: Path, chunks: tuple[int, ...], dtype: str, careful: bool, limit: int
) -> None:
    stack(tmp_path, chunks, dtype, careful)
    assert_under(tmp_path, tmp_path, limit * MIB)
