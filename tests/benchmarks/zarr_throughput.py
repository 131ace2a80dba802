"""How near `solve_zarr` comes to reading and writing alone; a script.

The floor is as many threads that read every chunk of a and b and write x with zarr, and solve
nothing. Each figure is the job's throughput over the floor's: the median of rounds that take turns,
on data that the page cache holds.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

import dask
import dask.array as da
import numpy as np
import zarr
from dask.utils import parse_bytes
from outputs import put_away
from zarr.codecs import BloscCodec, Crc32cCodec

import dasksolve

CODECS: dict[str, Any] = {
    "zstd": "auto",
    "blosc-lz4": BloscCodec(cname="lz4"),
    "crc32c": Crc32cCodec(),
    "none": None,
}
ORDERS = 8, 32
CHUNK = 16 << 20
"""Bytes of a in a stored chunk."""


def write(folder: Path, n: int, size: int, codec: str) -> tuple[str, str]:
    """Store `size` bytes of a and the b that goes with them; return their paths."""
    systems, step = size // (8 * n * n), CHUNK // (8 * n * n)
    group = zarr.create_group(folder)
    options: Any = {"dtype": "f8", "compressors": CODECS[codec]}
    a = group.create_array("a", shape=(systems, n, n), chunks=(step, n, n), **options)
    b = group.create_array("b", shape=(systems, n), chunks=(step, n), **options)
    rng = np.random.default_rng(n)
    for start in range(0, systems, step):
        a[start : start + step] = rng.standard_normal((step, n, n))
        b[start : start + step] = rng.standard_normal((step, n))
    return str(folder / "a"), str(folder / "b")


def floor(a_path: str, b_path: str, out: Path, workers: int) -> None:
    """Read every chunk of a and b and write x, with zarr alone."""
    a, b = zarr.open_array(a_path, mode="r"), zarr.open_array(b_path, mode="r")
    x = zarr.create_array(
        out, shape=b.shape, chunks=b.chunks, dtype=b.dtype, compressors=Crc32cCodec()
    )
    values = np.ones(b.chunks)
    step = b.chunks[0]

    def copy(start: int) -> None:
        place = slice(start, start + step)
        a[place], b[place]
        x[place] = values[: min(step, x.shape[0] - start)]

    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(copy, range(0, a.shape[0], step)))


def job(a_path: str, b_path: str, out: Path, workers: int) -> None:
    """What is measured: like the floor, it does not wait for the disk."""
    dasksolve.solve_zarr(a_path, b_path, out, workers=workers, durable=False)


def durable(a_path: str, b_path: str, out: Path, workers: int) -> None:
    """The same, waiting until a power cut would spare what is written."""
    dasksolve.solve_zarr(a_path, b_path, out, workers=workers)


def naive(a_path: str, b_path: str, out: Path, workers: int) -> None:
    """What a person would write without dasksolve."""
    a, b = da.from_zarr(a_path), da.from_zarr(b_path)
    x = da.map_blocks(np.linalg.solve, a, b[..., None], dtype=a.dtype)
    stored = zarr.create_array(
        out, shape=x.shape, chunks=x.chunksize, dtype=x.dtype, compressors=Crc32cCodec()
    )
    with dask.config.set(scheduler="threads", num_workers=workers):
        da.store(x, stored)


def seconds(
    ways: Iterable[Callable[..., None]], folder: Path, paths: tuple[str, str], options: Any
) -> list[list[float]]:
    """Seconds that each way takes, in rounds that take turns; the first round is not counted."""
    rounds = []
    for _ in range(options.rounds + 1):
        times = []
        for way in ways:
            out = folder / "out"
            started = time.perf_counter()
            way(*paths, out, options.workers)
            times.append(time.perf_counter() - started)
            put_away(out)
        rounds.append(times)
    return rounds[1:]


def measure(n: int, codec: str, options: Any) -> dict[str, Any]:
    """One cell of the table."""
    size = parse_bytes(options.size)
    ways = [floor, job] + [naive] * (options.naive and n == 8 and codec == "none")
    ways += [durable] * options.durable
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="dasksolve-bench-") as name:
        rounds = seconds(ways, Path(name), write(Path(name) / "data", n, size, codec), options)
    return {
        "n": n,
        "codec": codec,
        "job_over_floor": median(times[0] / times[1] for times in rounds),
        "job_over_naive": _median_over(rounds, naive, ways),
        "job_over_durable": _median_over(rounds, durable, ways),
        "floor_gib_per_second": size / 2**30 / median(times[0] for times in rounds),
    }


def _median_over(
    rounds: list[list[float]], way: Callable[..., None], ways: list[Callable[..., None]]
) -> float | None:
    """How many times faster the job is than another way, if that was measured."""
    if way not in ways:
        return None
    return median(times[ways.index(way)] / times[1] for times in rounds)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, nargs="+", default=ORDERS)
    parser.add_argument("--codec", nargs="+", choices=CODECS, default=list(CODECS))
    parser.add_argument("--size", default="1GiB", help="bytes of a")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--folder", help="where the data go; default: that of temporary files")
    parser.add_argument("--naive", action="store_true", help="da.map_blocks + da.store as well")
    parser.add_argument("--durable", action="store_true", help="what waiting for the disk costs")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    cells = []
    for n in options.n:
        for codec in options.codec:
            cell = measure(n, codec, options)
            cells.append(cell)
            if not options.json:
                naive_ = cell["job_over_naive"]
                more = f", {naive_:.2f} of da.map_blocks + da.store" if naive_ else ""
                waiting = cell["job_over_durable"]
                more += f"; durable takes {waiting:.2f} times as long" if waiting else ""
                print(
                    f"N = {n:<3} {codec:<10} {cell['job_over_floor']:.2f} of the floor"
                    f" ({cell['floor_gib_per_second']:.2f} GiB/s){more}",
                    flush=True,
                )
    if options.json:
        print(json.dumps(cells, indent=1))


if __name__ == "__main__":
    main()
