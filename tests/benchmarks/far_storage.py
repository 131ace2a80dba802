"""Times zarr jobs whose storage is far away: against more workers, and against requests alone.

    python tests/benchmarks/far_storage.py --latency 0 0.05 0.2

Inputs and output stand behind zarr's LatencyStore, which waits before each request. The floor: as
many requests at once as the plan has blocks in hand, nothing solved.
"""

import argparse
import asyncio
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import zarr
from zarr.storage import LocalStore
from zarr.testing.store import LatencyStore

import dasksolve
from dasksolve.batch.options import Options
from dasksolve.job.prepare import prepare
from dasksolve.job.systems import Systems


def written(folder: Path, blocks: int, megabytes: int, n: int) -> None:
    """A batch of so many chunks."""
    systems = (megabytes << 20) // (8 * n * n)
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((systems, n, n)), rng.standard_normal((systems, n))
    for name, values in (("a", a), ("b", b)):
        shape = (systems * blocks, *values.shape[1:])
        array = zarr.create_array(
            folder / name, shape=shape, chunks=values.shape, dtype="f8", compressors=None
        )
        for i in range(blocks):
            array[i * systems : (i + 1) * systems] = values


def far(path: Path, latency: float, read_only: bool = True):
    store = LocalStore(path, read_only=read_only)
    return LatencyStore(store, get_latency=latency, set_latency=latency)


def opened(path: Path, latency: float):
    return zarr.open_array(far(path, latency), mode="r")


def job(folder: Path, latency: float, limit: str, **options) -> float:
    a, b = (opened(folder / name, latency) for name in "ab")
    with tempfile.TemporaryDirectory(dir=folder) as out:
        began = time.perf_counter()
        dasksolve.solve_zarr(a, b, Path(out) / "out", memory_limit=limit, **options)
        return time.perf_counter() - began


def floor(folder: Path, latency: float, limit: str) -> float:
    """All chunks of a and b fetched, as many blocks at once as the job has in hand."""
    arrays = [opened(folder / name, latency) for name in "ab"]
    systems = Systems.open(*arrays, Options("gen"))
    plan = prepare(lambda: systems, folder / "none", memory_limit=limit).plan

    def fetch(block: int) -> None:
        place = tuple(slice(*r) for r in plan.block(block))

        async def both():
            await asyncio.gather(*(array.async_array.getitem(place) for array in arrays))

        zarr.core.sync.sync(both())

    began = time.perf_counter()
    with ThreadPoolExecutor(plan.in_hand) as pool:
        list(pool.map(fetch, range(plan.blocks)))
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--latency", type=float, nargs="+", default=[0.0, 0.02, 0.05, 0.2])
    parser.add_argument("--blocks", type=int, default=64)
    parser.add_argument("--megabytes", type=int, default=4)
    parser.add_argument("--n", type=int, default=8)
    parser.add_argument("--memory", default="4GiB")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        written(folder, options.blocks, options.megabytes, options.n)
        job(folder, 0.0, options.memory)  # compiles
        print(f"{'latency':>8} {'job, s':>8} {'floor, s':>9} {'job / floor':>12}")
        for latency in options.latency:
            turns = [
                (job(folder, latency, options.memory), floor(folder, latency, options.memory))
                for _ in range(options.rounds)
            ]
            ours, least = (statistics.median(times) for times in zip(*turns, strict=True))
            print(f"{latency:8.3f} {ours:8.2f} {least:9.2f} {ours / least:12.2f}")


if __name__ == "__main__":
    main()
