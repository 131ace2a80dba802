"""`dasksolve demo`: a batch larger than its memory limit, written, solved and checked."""

import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from dask.utils import format_bytes
from numpy.typing import NDArray
from zarr.codecs import Crc32cCodec

import dasksolve
from dasksolve.batch.options import Options
from dasksolve.command.speech import say
from dasksolve.job.prepare import JobOptions, prepare
from dasksolve.job.systems import Systems
from dasksolve.status import Status
from dasksolve.storage import stores

N = 8
"""Unknowns of a pixel: mean, trend, and the cosine and sine of three harmonics of the year."""
DATES = 46
"""Observations in two years, one every 16 days."""
CHUNK = 8 << 20
"""Bytes of a in a stored chunk."""


def design() -> NDArray[np.float64]:
    """The harmonic regression's design matrix, (DATES, N)."""
    years = np.arange(DATES) * 16 / 365.25
    waves = [f(2 * np.pi * k * years) for k in (1, 2, 3) for f in (np.cos, np.sin)]
    return np.stack([np.ones(DATES), years - years.mean(), *waves], axis=1)


def create(path: Path, pixels: int) -> tuple[Any, Any]:
    """Create the arrays a and b of so many pixels, without a chunk."""
    step = min(CHUNK // (8 * N * N), pixels)
    group = zarr.create_group(path)
    a = group.create_array(
        "a",
        shape=(pixels, N, N),
        chunks=(step, N, N),
        dtype="f8",
        compressors=Crc32cCodec(),
        dimension_names=("pixel", "row", "term"),
    )
    b = group.create_array(
        "b",
        shape=(pixels, N),
        chunks=(step, N),
        dtype="f8",
        compressors=Crc32cCodec(),
        dimension_names=("pixel", "row"),
    )
    return a, b


def refuse(size: int, limit: int, folder: Path) -> None:
    """Refuse what the disk or the memory limit has no room for, before anything is written."""
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if not there.is_dir():
        raise NotADirectoryError(f"{there} is a file; give --keep the name of a folder")
    needed, free = size * (N + 3) // N, shutil.disk_usage(there).free  # a, b, x, and what is beside
    if needed > free:
        raise OSError(
            f"a demo of {format_bytes(size)} writes {format_bytes(needed)}, and {folder} has "
            f"{format_bytes(free)} free; give a smaller --size, or another disk's folder to --keep"
        )
    with tempfile.TemporaryDirectory(prefix="dasksolve-demo-", dir=there) as empty:
        a, b = create(Path(empty) / "planned.zarr", _pixels(size))
        systems = Systems.open(a, b, Options())
        prepare(lambda: systems, Path(empty) / "solved.zarr", JobOptions(limit))


def _pixels(size: int) -> int:
    return max(16, size // (8 * N * N))


def write(folder: Path, size: int, seed: int = 0) -> tuple[str, str, list[int]]:
    """Write normal equations of `size` bytes; return the paths of a and b, and the singular pixels.

    Each pixel has a time series with gaps (clouds). A few were never seen, so theirs is singular.
    """
    rng = np.random.default_rng(seed)
    x = design()
    squares = np.einsum("ti,tj->tij", x, x).reshape(DATES, N * N)
    pixels = _pixels(size)
    step = CHUNK // (8 * N * N)
    unseen = np.unique(rng.integers(0, pixels, 5))
    path = folder / "normal_equations.zarr"
    if path.exists():
        raise FileExistsError(f"{path} is there already; give --keep another folder")
    a, b = create(path, pixels)
    for start in range(0, pixels, step):
        stop = min(start + step, pixels)
        seen = (rng.random((stop - start, DATES), dtype=np.float32) < 0.7).astype(float)
        seen[unseen[(start <= unseen) & (unseen < stop)] - start] = 0
        series = rng.standard_normal((stop - start, N)) @ x.T
        series += 0.1 * rng.standard_normal((stop - start, DATES))
        a[start:stop] = (seen @ squares).reshape(-1, N, N)
        b[start:stop] = (seen * series) @ x
    return str(path / "a"), str(path / "b"), unseen.tolist()


def run(size: int, limit: int, keep: str | None, progress: bool) -> None:
    """Write, solve and check, and print what a person wants to know; size: bytes of a."""
    target = stores.resolved("--keep", _temporary() if keep is None else keep)
    if not isinstance(target, Path):
        raise ValueError(f"{target} is a URL, where --keep needs a local folder")
    refuse(size, limit, target)
    if keep is not None:
        _run(target, size, limit, progress)
        _tell("kept", f"in {target}")
        return
    with tempfile.TemporaryDirectory(prefix="dasksolve-demo-") as folder:
        _run(Path(folder), size, limit, progress)


def _temporary() -> str:
    try:
        return tempfile.gettempdir()
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{error.strerror}; name one with --keep") from error


def _run(folder: Path, size: int, limit: int, progress: bool) -> None:
    out = folder / "solved.zarr"
    started = time.perf_counter()
    a, b, unseen = write(folder, size)
    _tell(
        "wrote",
        f"{format_bytes(size)}: the normal equations of a harmonic regression of {N} terms",
        f"for each of {_pixels(size):,} pixels, in {time.perf_counter() - started:.1f} s",
    )
    report = dasksolve.solve_zarr(a, b, out, memory_limit=limit, progress=progress)
    rate = (report.bytes_read + report.bytes_written) / report.seconds
    _tell(
        "solved",
        f"all of them in {report.seconds:.1f} s: {report.systems / report.seconds:,.0f} systems/s,",
        f"{format_bytes(int(rate))}/s read and written",
    )
    kept = report.peak_memory <= limit
    though = f", though the batch is {size / limit:.1f} times as large" if size > limit else ""
    _tell(
        "peak memory",
        f"{format_bytes(report.peak_memory)} above the start, of a limit of {format_bytes(limit)}:",
        f"the limit is kept{though}" if kept else "the limit is not kept",
    )
    right = list(report.flagged) == unseen
    _tell(
        "flagged",
        f"{report.counts[Status.SINGULAR]} singular systems at {list(report.flagged)}:",
        "those of the pixels that were never seen, and no others"
        if right
        else f"but the pixels that were never seen are {unseen}",
    )
    checked = dasksolve.check_zarr(a, b, out, memory_limit=limit, progress=progress)
    eps = float(np.finfo(float).eps)
    solved = checked.worst_backward_error <= N * eps
    _tell(
        "checked",
        f"worst backward error {checked.worst_backward_error:.2g}, recomputed from the files:",
        f"{'every other answer' if solved else 'not every answer'} solves its system to rounding "
        f"(eps is {eps:.2g})",
    )
    if not (right and kept and solved):
        raise RuntimeError("this demo did not do what it should have; please report it")


def _tell(what: str, *lines: str) -> None:
    """Print what was done, and what it shows."""
    for i, line in enumerate(lines):
        say(f"{'' if i else what:<13}{line}")
