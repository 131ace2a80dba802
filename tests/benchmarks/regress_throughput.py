"""How near `regress_zarr` comes to reading y alone; a script.

The floor is as many threads that read every chunk of y with zarr, and neither decode packed numbers
nor fit nor write. Each figure is the job's throughput over the floor's: the median of rounds that
take turns, on data that the page cache holds. The job does not wait for the disk; with `--durable`,
one that does takes its turns, too, and how much longer it takes stands at the end.
"""

import argparse
import json
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import zarr
from dask.utils import parse_bytes
from outputs import put_away
from zarr.codecs import BloscCodec

import dasksolve

P, N, SIDE = 120, 6, 1024
CODECS: dict[str, Any] = {"zstd": "auto", "blosc-lz4": BloscCodec(cname="lz4"), "none": None}
CHUNKS = {"steps": (1, SIDE, SIDE), "series": (P, 64, 256), "both": (30, 128, 256)}
DTYPES = ("float32", "float64", "int16")
PACKED = {"scale_factor": 1e-4, "_FillValue": -32768}


def design() -> np.ndarray:
    """Harmonics and a trend."""
    years = np.arange(P) / 12
    waves = [f(2 * np.pi * k * years) for k in (1, 2) for f in (np.cos, np.sin)]
    return np.stack([np.ones(P), years, *waves], axis=1)


def write(folder: Path, dtype: str, codec: str, chunks: str, size: int) -> Path:
    """Store about `size` bytes of series of which a fifth is missing."""
    rows = max(64, size // (P * SIDE * np.dtype(dtype).itemsize) // 64 * 64)
    shape = tuple(map(min, CHUNKS[chunks], (P, rows, SIDE)))
    y = zarr.create_array(
        folder / "y",
        shape=(P, rows, SIDE),
        chunks=shape,
        dtype=dtype,
        compressors=CODECS[codec],
        attributes=PACKED if dtype == "int16" else {},
    )
    rng = np.random.default_rng(0)
    for start in range(0, P, shape[0]):
        values = 0.5 + 0.1 * rng.standard_normal((min(shape[0], P - start), rows, SIDE))
        gap = rng.random(values.shape) < 0.2
        if dtype == "int16":
            values = np.round(1e4 * values.clip(-3, 3))
        values[gap] = PACKED["_FillValue"] if dtype == "int16" else np.nan
        y[start : start + shape[0]] = values.astype(dtype)
    return folder / "y"


def floor(path: Path, out: Path, options: Any) -> None:
    """Read every chunk with zarr alone."""
    y = zarr.open_array(path, mode="r")
    ranges = (range(0, n, c) for n, c in zip(y.shape, y.chunks, strict=True))

    def read(place: tuple[int, ...]) -> None:
        y[tuple(slice(i, i + c) for i, c in zip(place, y.chunks, strict=True))]

    with ThreadPoolExecutor(options.workers) as pool:
        list(pool.map(read, product(*ranges)))
    out.mkdir()


def job(path: Path, out: Path, options: Any, durable: bool = False) -> None:
    """What is measured."""
    how = {"workers": options.workers, "memory_limit": options.memory, "durable": durable}
    dasksolve.regress_zarr(path, design(), out, strict=False, **how)


def measure(dtype: str, codec: str, chunks: str, options: Any) -> dict[str, Any]:
    """One cell of the table."""
    size, rounds = parse_bytes(options.size), []
    ways = [floor, job, partial(job, durable=True)][: 2 + options.durable]
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="dasksolve-bench-") as name:
        path = write(Path(name), dtype, codec, chunks, size)
        for _ in range(options.rounds + 1):
            times = []
            for way in ways:
                started = time.perf_counter(), time.process_time()
                way(path, Path(name) / "out", options)
                times.append((time.perf_counter() - started[0], time.process_time() - started[1]))
                put_away(Path(name) / "out")
            rounds.append(times)
    waiting = {}
    if options.durable:
        waiting["durable_over_job"] = median(t[2][0] / t[1][0] for t in rounds[1:])
    return {
        "dtype": dtype,
        "codec": codec,
        "chunks": chunks,
        "job_over_floor": median(t[0][0] / t[1][0] for t in rounds[1:]),
        "processor_time": median(t[0][1] / t[1][1] for t in rounds[1:]),
        "floor_gib_per_second": size / 2**30 / median(t[0][0] for t in rounds[1:]),
        **waiting,
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dtype", nargs="+", choices=DTYPES, default=list(DTYPES))
    parser.add_argument("--codec", nargs="+", choices=CODECS, default=list(CODECS))
    parser.add_argument("--chunks", nargs="+", choices=CHUNKS, default=list(CHUNKS))
    parser.add_argument("--size", default="512MiB", help="bytes of y, as it is stored")
    parser.add_argument("--memory", default="4GiB")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--durable", action="store_true", help="and what it costs to wait")
    parser.add_argument("--folder", help="where the data go; default: that of temporary files")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    cells = []
    for case in product(options.dtype, options.codec, options.chunks):
        cell = measure(*case, options)
        cells.append(cell)
        if not options.json:
            print(
                f"{cell['dtype']:<8} {cell['codec']:<10} {cell['chunks']:<7}"
                f" {cell['job_over_floor']:.2f} of the floor"
                f" ({cell['floor_gib_per_second']:.2f} GiB/s)"
                f", {cell['processor_time']:.2f} in processor time"
                + (f"; durable {cell['durable_over_job']:.2f}" if options.durable else ""),
                flush=True,
            )
    if options.json:
        print(json.dumps(cells, indent=1))


if __name__ == "__main__":
    main()
